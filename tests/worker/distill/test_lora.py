"""Adapters: what is trained, what is written down, and the teacher that is the student without them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from paced import Client
from paced.wire import Stage
from tests.worker.distill.test_step import EXAMPLES, make_session
from tests.worker.distill.test_train import weights
from tests.worker.distill.world import Killed, Killing, losses, make_config, make_curriculum, run
from worker.distill.config import DistillConfig
from worker.distill.errors import ModelRefused
from worker.distill.lessons import Lesson
from worker.distill.lora import Unadapted, adapt
from worker.distill.model import copy_weights, load_model, plain_weights
from worker.distill.train import update

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 6, 7, 8]])


def adapted(student: Path, **fields: Any) -> Any:
    model = load_model(student, torch.float32, CPU)
    adapt(model, DistillConfig(curriculum_id="cur_1", student=student, **{"lora_rank": 3, **fields}))
    return model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


@pytest.fixture
def trained(student: Path) -> Any:
    """A student one step away from its first weights."""
    session = make_session(student, student, learning_rate=0.05)
    session.student.load_state_dict(load_model(student, torch.float32, CPU).state_dict())
    session.student = adapted(student)
    session.body.model = session.student
    own = [p for p in session.student.parameters() if p.requires_grad]
    session.optimizer = torch.optim.AdamW(own, lr=0.05)
    update(session, Lesson(EXAMPLES, {}), Stage.FORWARD_KL, step=0)
    update(session, Lesson(EXAMPLES, {}), Stage.FORWARD_KL, step=1)
    return session.student


def test_only_adapters_are_trained_and_begin_as_nothing(student: Path) -> None:
    model, plain = adapted(student), load_model(student, torch.float32, CPU)
    own = {name for name, p in model.named_parameters() if p.requires_grad}
    assert own
    assert all(".lora_" in name for name in own)
    assert not any("lm_head" in name or "embed" in name for name in own)
    assert torch.equal(logits(model), logits(plain))
    few = adapted(student, lora_targets=["q_proj"])
    assert {
        name.rpartition(".lora_")[0].rpartition(".")[2] for name, p in few.named_parameters() if p.requires_grad
    } == {"q_proj"}


def test_written_down_the_adapters_are_part_of_the_weights(trained: Any, student: Path) -> None:
    plain = load_model(student, torch.float32, CPU)
    before = logits(plain)
    assert {name for name, _ in plain_weights(trained)} == set(plain.state_dict())
    copy_weights(trained, plain)
    torch.testing.assert_close(logits(plain), logits(trained), rtol=1e-5, atol=1e-5)
    assert float((logits(plain) - before).abs().max()) > 1e-2


def test_the_first_student_is_the_student_without_adapters(trained: Any, student: Path) -> None:
    first = Unadapted(trained.train())
    assert torch.equal(logits(first), logits(load_model(student, torch.float32, CPU)))
    assert trained.training
    assert not torch.equal(logits(trained), logits(first))
    assert all(p.requires_grad == (".lora_" in name) for name, p in trained.named_parameters())


def test_a_run_with_adapters_resumes_and_registers_plain_models(
    sqlite_client: Client, student: Path, tmp_path: Path
) -> None:
    fields = {"lora_rank": 2, "learning_rate": 1e-2, "save_every": 1}
    first, second = (
        make_curriculum(sqlite_client, tmp_path, preset="uniform", suffix=suffix) for suffix in ("", "-again")
    )
    straight = make_config(first, student, tmp_path / "straight", **fields)
    run(straight, sqlite_client)
    killed = make_config(second, student, tmp_path / "killed", **fields)
    for nth in (3, 4):
        with pytest.raises(Killed):
            run(killed, Killing(sqlite_client, "append_metrics", nth, "after"))
    run(killed, sqlite_client)
    assert losses(killed.out) == pytest.approx(losses(straight.out), abs=1e-6)
    assert all(".lora_" in name for name in weights(killed.out))
    last = sqlite_client.student("tiny").latest_checkpoint
    assert last is not None
    loaded = AutoModelForCausalLM.from_pretrained(last.uri)
    plain = load_model(student, torch.float32, CPU)
    assert set(loaded.state_dict()) == set(plain.state_dict())
    assert not torch.equal(logits(loaded), logits(plain))


def test_targets_that_are_not_there_are_refused(student: Path) -> None:
    with pytest.raises(ModelRefused, match=r"lora_targets \['nothing'\] do not fit"):
        adapted(student, lora_targets=["nothing"])
    for name in ("embed_tokens", "lm_head", "mlp"):
        with pytest.raises(ModelRefused, match=f"{name} of .*: name linear layers below the head"):
            adapted(student, lora_targets=[name])


def test_layers_that_are_not_linear_are_refused(student: Path) -> None:
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)
    with pytest.raises(ModelRefused, match=r"has a Conv1D at .*c_attn, whose adapter cannot be merged"):
        adapt(GPT2LMHeadModel(config), DistillConfig(curriculum_id="cur_1", student=student, lora_rank=3))
