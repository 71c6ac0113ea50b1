"""Several processes: the step of one, weights to the last bit, and what the death of one means to the others."""

import signal
import subprocess
from pathlib import Path

import pytest
import torch

from paced import Client
from paced.wire import Stage
from tests.worker.distill.serving import serving
from tests.worker.distill.test_command import wait_for
from tests.worker.distill.test_step import EXAMPLES, heavier, make_session
from tests.worker.distill.test_train import run_batches, weights
from tests.worker.distill.tiny import tiny_folder
from tests.worker.distill.together import ended, start
from tests.worker.distill.world import losses, make_config, make_curriculum, run
from worker.distill.config import DistillConfig
from worker.distill.metrics import pooled
from worker.distill.train import accumulate, loss_denominator

GREEDY = {
    "teacher_temperature": 0.0,
    "on_policy_temperature": 1e-3,
}  # texts that do not depend on what is written beside them
SCHEDULE = [{"stage": "forward_kl", "steps": 3}, {"stage": "reverse_kl", "steps": 1}]


def succeeded(processes: "list[subprocess.Popen[str]]") -> None:
    for code, output in ended(processes):
        assert code == 0, output


def check_gradients(folder: Path, student: Path, teacher: Path) -> None:
    """Those of two processes are those of one, and twice the weight is twice the gradient."""
    alone = make_session(student, teacher)
    for factor in (1, 2):
        examples = heavier(EXAMPLES, factor)
        accumulate(alone, examples, Stage.FORWARD_KL, loss_denominator(alone.config, examples))
        one = [p.grad for p in alone.student.parameters()]
        for kind in ("ddp", "fsdp"):
            for ours, theirs in zip(torch.load(folder / f"{kind}-{factor}.pt"), one, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    for kind in ("ddp", "fsdp"):
        once, twice = (torch.load(folder / f"{kind}-{factor}.pt") for factor in (1, 2))
        assert all(torch.equal(2 * a, b) for a, b in zip(once, twice, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_train_as_one_and_twice_the_weight_is_twice_the_gradient(
    sqlite_client: Client, student: Path, tmp_path: Path
) -> None:
    """Batches of 5 and of 1: a rank's share is larger, smaller, or nothing. FSDP stops, is saved and goes on."""
    runs = {"one": {}, "ddp": {}, "fsdp": {"parallel": "fsdp"}, "few": {"batch_size": 1, "max_steps": 2}}
    configs = {}
    for name, fields in runs.items():
        suffix = {} if name == "one" else {"suffix": f"-{name}"}
        curriculum = make_curriculum(sqlite_client, tmp_path, schedule=SCHEDULE, preset="uniform", **suffix)
        configs[name] = make_config(curriculum, student, tmp_path / name, **{"batch_size": 5, **GREEDY, **fields})
    run(configs["one"], sqlite_client)
    halves = [configs["fsdp"].model_copy(update={"max_steps": 2}), configs["fsdp"]]
    teacher = tiny_folder(tmp_path / "teacher", seed=1)
    base = {"curriculum_id": "cur_1", "student": student, "teacher": str(teacher)}
    jobs = {
        "train_all": [configs["ddp"], *halves, configs["few"]],
        "gradients": [DistillConfig(**base, parallel=kind) for kind in ("ddp", "fsdp")],
    }
    succeeded(start(2, tmp_path, jobs, sqlite_client))
    check_gradients(tmp_path, student, teacher)

    for name in ("ddp", "fsdp"):
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "one"), abs=1e-6)
        for key, tensor in weights(tmp_path / "one").items():
            torch.testing.assert_close(weights(tmp_path / name)[key], tensor, rtol=0, atol=2e-5)
        (made,) = sqlite_client.runs(configs[name].curriculum_id)
        assert made.state == "finished"
    assert len(losses(tmp_path / "few")) == 2
    (checkpoint,) = [c for c in sqlite_client.checkpoints("tiny-fsdp") if c.step == 4]
    assert (Path(checkpoint.uri) / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_adapters_and_a_served_teacher_train_on_two_processes_as_on_one(
    sqlite_client: Client, student: Path, tmp_path: Path
) -> None:
    with serving(tiny_folder(tmp_path / "served", seed=1)) as server:
        served = {"teacher": server.url, "teacher_top_k": 12, "temperature": 1.0}
        kinds = {"lora": {"lora_rank": 3, **GREEDY}, "served": {**served, **GREEDY}}
        configs = {}
        for kind, fields in kinds.items():
            for way, more in {"one": {}, "ddp": {}, "fsdp": {"parallel": "fsdp"}}.items():
                name = f"{kind}-{way}"
                suffix = {"suffix": f"-{name}"}
                curriculum = make_curriculum(sqlite_client, tmp_path, schedule=SCHEDULE, preset="uniform", **suffix)
                configs[name] = make_config(curriculum, student, tmp_path / name, **{"batch_size": 5, **fields, **more})
        for kind in kinds:
            run(configs[f"{kind}-one"], sqlite_client)
        together = [config for name, config in configs.items() if not name.endswith("-one")]
        succeeded(start(2, tmp_path, {"train_all": together}, sqlite_client))
    for kind in kinds:
        straight = weights(tmp_path / f"{kind}-one")
        for way in ("ddp", "fsdp"):
            assert losses(tmp_path / f"{kind}-{way}") == pytest.approx(losses(tmp_path / f"{kind}-one"), abs=1e-6)
            for key, tensor in weights(tmp_path / f"{kind}-{way}").items():
                torch.testing.assert_close(tensor, straight[key], rtol=0, atol=2e-5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_death_of_one_process_ends_the_others_and_the_run_resumes(
    sqlite_client: Client, student: Path, tmp_path: Path
) -> None:
    schedule = [{"stage": "forward_kl", "steps": 60}]
    first, curriculum = (
        make_curriculum(sqlite_client, tmp_path, schedule=schedule, preset="uniform", suffix=suffix)
        for suffix in ("", "-killed")
    )
    straight = make_config(first, student, tmp_path / "straight", save_every=2, **GREEDY)
    killed = make_config(curriculum, student, tmp_path / "killed", save_every=2, rank_timeout_s=60, **GREEDY)
    ranks = start(2, tmp_path, {"train_all": [killed]}, sqlite_client)
    wait_for(killed.out / "metrics.jsonl", 5)
    ranks[1].kill()
    (code, output), (killed_code, _) = ended(ranks)
    assert killed_code == -signal.SIGKILL
    assert code == 1
    assert "RankLost: another rank ended or does not answer" in output

    n_done = len(losses(killed.out))
    assert n_done < 60
    run(straight.model_copy(update={"max_steps": n_done + 3}), sqlite_client)
    again = killed.model_copy(update={"max_steps": n_done + 3})
    succeeded(start(2, tmp_path, {"train_all": [again]}, sqlite_client))
    assert losses(killed.out) == pytest.approx(losses(straight.out), abs=1e-6)
    assert [b.step for b in run_batches(sqlite_client, curriculum)] == list(range(n_done + 4))  # one drawn ahead


def test_counts_of_ranks_add_up_and_shares_are_weighted() -> None:
    parts = [(3, {"n_dropped": 1, "right_share": 1.0}), (1, {"n_dropped": 2, "right_share": 0.0}), (0, {})]
    assert pooled(parts) == {"n_dropped": 3, "right_share": 0.75}
