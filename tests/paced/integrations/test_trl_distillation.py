"""TRL's own DistillationTrainer on a curriculum: the draw's weights and stage in every loss, exactly."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from paced import Client, wire
from paced.integrations.trl import Curriculum
from paced.integrations.trl_distillation import WeightedDistillation
from paced.losses import KLSettings
from tests.app.world import build, measure
from tests.paced.dense import dense_divergence
from tests.paced.integrations.tiny import tiny_model

SIZE, N_MICRO_STEPS, N_STEPS = 8, 2, 10  # five steps of each stage
SCHEDULE = [{"stage": "forward_kl", "steps": N_STEPS // 2}, {"stage": "reverse_kl", "steps": N_STEPS // 2}]
pytestmark = pytest.mark.filterwarnings("ignore")  # TRL, datasets and accelerate warn of each other


@pytest.fixture
def curriculum(client: Client, tmp_path: Path) -> wire.Curriculum:
    """A measured one, whose weights act in the loss."""
    made = build(client, tmp_path, 40, mode="reweight", schedule=SCHEDULE, holdout_share=0.0, seed=3)
    measure(client)
    return made


def trainer_of(client: Client, folder: Path, kind: type | None = None, **options: Any) -> Any:
    from trl import DistillationConfig, DistillationTrainer

    class Trainer(WeightedDistillation, kind or DistillationTrainer):  # type: ignore[misc]
        pass

    settings = {
        "per_device_train_batch_size": SIZE // N_MICRO_STEPS,
        "gradient_accumulation_steps": N_MICRO_STEPS,
        "max_completion_length": 8,
        "max_steps": N_STEPS,
        "learning_rate": 3e-3,
        "max_grad_norm": 0.0,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "logging_steps": 1,
        "disable_tqdm": True,
        "bf16": False,
        **options,
    }
    return Trainer(
        model=str(tiny_model(folder / "student")),
        teacher_model=str(tiny_model(folder / "teacher", seed=1, spread=0.3)),
        args=DistillationConfig(output_dir=str(folder / "out"), **settings),
        curriculum=Curriculum(client, "main", "distil"),
    )


def dense_kl(trainer: Any, inputs: dict[str, Any], stage: str) -> Tensor:
    """KL of each answered token [B, T], nan behind the end, in float64 from full logits, by the definition."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    n = inputs["completion_ids"].shape[1]

    def log_probs(model: Any) -> Tensor:
        logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits
        return logits[:, -n - 1 : -1].double().div(trainer.temperature).log_softmax(-1)

    with torch.no_grad():
        theirs = log_probs(trainer.teacher_model)
    kl = dense_divergence(log_probs(trainer.model), theirs, KLSettings(stage))
    return kl.masked_fill(inputs["completion_mask"] == 0, torch.nan)


def watched() -> tuple[type, list[dict[str, Any]]]:
    """TRL's trainer, and what a subclass of it sees of every micro-batch."""
    from trl import DistillationTrainer

    seen: list[dict[str, Any]] = []

    class Watched(DistillationTrainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any) -> Any:
            before = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
            loss = super().training_step(model, inputs, num_items_in_batch)
            after = [p.grad.clone() for p in model.parameters()]
            made = [a if b is None else a - b for a, b in zip(after, before, strict=True)]
            micro_batch = self._buffered_inputs[(self._step - 1) % N_MICRO_STEPS]
            prompts = self.processing_class.batch_decode(micro_batch["prompt_ids"], skip_special_tokens=True)
            stage = "forward_kl" if self.state.global_step < N_STEPS // 2 else "reverse_kl"
            kl = dense_kl(self, micro_batch, stage)
            dense = (kl.nanmean(1) * micro_batch["loss_weight"].double()).sum() / SIZE
            expected = torch.autograd.grad(dense, list(model.parameters()))
            seen.append(
                {
                    "step": self.state.global_step,
                    "loss": loss.item(),
                    "dense": dense.item(),
                    "kl": kl.nanmean().item(),
                    "gap": norm([a - b for a, b in zip(made, expected, strict=True)]) / norm(expected),
                    "weights": dict(zip(prompts, micro_batch["loss_weight"].tolist(), strict=True)),
                    "inputs": micro_batch,
                }
            )
            return loss

    return Watched, seen


def norm(tensors: Any) -> float:
    return float(torch.stack([tensor.double().square().sum() for tensor in tensors]).sum().sqrt())


def test_every_loss_is_the_weighted_one_of_its_draw_and_stage(
    client: Client, curriculum: wire.Curriculum, tmp_path: Path
) -> None:
    """Held against float64 autograd over full logits, at every micro-batch of a real run through both stages."""
    kind, seen = watched()
    trainer = trainer_of(client, tmp_path, kind)
    trainer.train()
    log = list(client.batches(curriculum.curriculum_id))
    assert [(batch.step, batch.state) for batch in log] == [(step, "acknowledged") for step in range(N_STEPS)]
    assert [batch.stage for batch in log] == ["forward_kl"] * (N_STEPS // 2) + ["reverse_kl"] * (N_STEPS // 2)
    assert [micro["step"] for micro in seen] == [step for step in range(N_STEPS) for _ in range(N_MICRO_STEPS)]
    prompts = {problem.problem_id: problem.prompt for problem in client.problems(curriculum.problem_set, limit=1000)}
    for batch in log:
        served = {prompts[i]: w for i, w in zip(batch.problem_id, batch.loss_weight, strict=True)}
        assert len(set(served.values())) > 3, "weights that tell problems apart"
        found = [micro["weights"] for micro in seen if micro["step"] == batch.step]
        answered = {prompt.strip(): weight for micro in found for prompt, weight in micro.items()}
        assert answered == pytest.approx(served)
    for micro in seen:
        assert micro["loss"] == pytest.approx(micro["dense"], rel=1e-5)
        assert micro["gap"] < 1e-5
    logged = [entry["kl"] for entry in trainer.state.log_history if "kl" in entry]
    means = [sum(micro["kl"] for micro in seen if micro["step"] == step) / N_MICRO_STEPS for step in range(N_STEPS)]
    assert logged == pytest.approx(means, rel=1e-5)
    first, *_ = seen
    with torch.no_grad():
        assert dense_kl(trainer, first["inputs"], "forward_kl").nanmean().item() < 0.95 * first["kl"], "it learns"


@pytest.mark.parametrize(("side", "message"), [("student", "the student scales"), ("teacher", "no teacher")])
def test_what_it_cannot_compare_is_refused(
    client: Client, curriculum: wire.Curriculum, tmp_path: Path, side: str, message: str
) -> None:
    from trl import DistillationConfig, DistillationTrainer

    class Trainer(WeightedDistillation, DistillationTrainer):  # type: ignore[misc]
        pass

    folder = tiny_model(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    if side == "student":
        model.config.logit_scale = 0.5
    with pytest.raises(ValueError, match=message):
        Trainer(
            model=model,
            teacher_model=str(folder) if side == "student" else None,
            args=DistillationConfig(output_dir=str(tmp_path / "out"), max_steps=1, use_cpu=True, bf16=False),
            processing_class=AutoTokenizer.from_pretrained(folder),
            curriculum=Curriculum(client, "main", "distil"),
        )


def test_twice_the_weight_is_twice_the_gradient(client: Client, curriculum: wire.Curriculum, tmp_path: Path) -> None:
    trainer = trainer_of(client, tmp_path)
    trainer.model.train()
    loader = iter(trainer.get_train_dataloader())
    inputs = trainer._prepare_inputs(next(loader))

    def gradient(weights: Tensor) -> Tensor:
        trainer.model.zero_grad()
        trainer.compute_loss(trainer.model, {**inputs, "loss_weight": weights}).backward()
        return torch.cat([p.grad.flatten() for p in trainer.model.parameters()])

    weights = inputs["loss_weight"]
    assert (weights > 0).all()
    assert torch.equal(gradient(2 * weights), 2 * gradient(weights))
    total = torch.zeros(())
    for place in range(len(weights)):
        alone = torch.zeros_like(weights)
        alone[place] = weights[place]
        one = gradient(alone)
        assert one.abs().max() > 0
        assert torch.equal(gradient(2 * alone), 2 * one)
        total = total + one.double()
    whole = gradient(weights).double()
    assert float((total - whole).norm() / whole.norm()) < 1e-6, "each sequence adds its own share"
