"""Whole runs on a real service: both stages, and death at any place."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from paced import Client, wire
from tests.app.world import build, measure
from tests.service import serve
from tests.worker.distill.tiny import tiny_folder
from tests.worker.distill.world import SCHEDULE, Killed, Killing, losses, make_config, make_curriculum, run
from worker.distill import checkpoint
from worker.distill.errors import ConfigRefused, DistillError, FolderBusy, Interrupted, StateBroken, WaitedTooLong
from worker.distill.model import load_model, load_tokenizer
from worker.distill.stages import Stop

N_STEPS = 8


@pytest.fixture
def second_client(tmp_path: Path) -> Iterator[Client]:
    """A second service, whose draws are those of the first."""
    with serve(tmp_path / "second", None) as service, service.client() as client:
        yield client


def weights(out: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(out / "state.pt", weights_only=True)["model"]
    return state


def run_batches(client: Client, curriculum: wire.Curriculum) -> list[wire.Batch]:
    (made,) = client.runs(curriculum.curriculum_id)
    return list(client.batches(curriculum.curriculum_id, run_id=made.run_id))


def test_a_run_goes_through_both_stages_and_registers_what_it_made(
    sqlite_client: Client, student: Path, tmp_path: Path
) -> None:
    curriculum = make_curriculum(sqlite_client, tmp_path)
    out = tmp_path / "out"
    report = run(make_config(curriculum, student, out), sqlite_client)

    assert report["n_steps"] == N_STEPS
    assert [(s["stage"], s["n_steps"]) for s in report["stages"]] == [("forward_kl", 4), ("reverse_kl", 4)]
    made = [(c.index, c.parent_index, c.step, c.run_id) for c in sqlite_client.checkpoints("tiny")]
    assert made == [(0, None, None, None), (1, 0, 4, report["run_id"]), (2, 1, 8, report["run_id"])]
    last = sqlite_client.student("tiny").latest_checkpoint
    assert last is not None
    loaded = AutoModelForCausalLM.from_pretrained(last.uri)
    torch.testing.assert_close(loaded.lm_head.weight, weights(out)["lm_head.weight"])
    assert AutoTokenizer.from_pretrained(last.uri).chat_template is not None

    batches = run_batches(sqlite_client, curriculum)
    assert [b.state for b in batches] == ["acknowledged"] * N_STEPS
    assert sqlite_client.run(report["run_id"]).state == "finished"
    points = list(sqlite_client.metrics(report["run_id"]))
    assert [(p.step, p.stage) for p in points] == [(b.step, b.stage) for b in batches]
    assert [p.values["loss"] for p in points] == losses(out)
    assert {"kl_per_token", "grad_norm", "learning_rate", "n_tokens", "duration_s", "frontier_share"} <= set(
        points[0].values
    )
    assert "reference_right_share" in points[0].values
    assert "on_policy_right_share" in points[-1].values


def test_a_finished_run_started_again_does_nothing(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    config = make_config(make_curriculum(sqlite_client, tmp_path), student, tmp_path / "out")
    first, again = run(config, sqlite_client), run(config, sqlite_client)
    assert again == {**first, "resumed_at": N_STEPS}
    assert len(list(sqlite_client.checkpoints("tiny"))) == 3


KILLS = [
    ("create_run", 1, "after"),
    ("draw_batch", 1, "after"),
    ("store_references", 1, "after"),
    ("append_metrics", 2, "before"),
    ("acknowledge", 4, "before"),  # the third step is saved
    ("register_checkpoint", 1, "after"),
    ("draw_batch", 3, "after"),
    ("append_metrics", 2, "after"),
    ("acknowledge", 2, "after"),
    ("register_checkpoint", 1, "before"),
    ("update_run", 2, "before"),
]


def test_a_run_killed_anywhere_ends_as_one_that_was_not(
    sqlite_client: Client, second_client: Client, student: Path, tmp_path: Path
) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    run(make_config(make_curriculum(sqlite_client, tmp_path), student, straight), sqlite_client)

    curriculum = make_curriculum(second_client, tmp_path)
    config = make_config(curriculum, student, killed)
    for method, nth, when in KILLS:
        with pytest.raises(Killed):
            run(config, Killing(second_client, method, nth, when))
    run(config, second_client)

    assert losses(killed) == pytest.approx(losses(straight), abs=1e-6)
    batches = run_batches(second_client, curriculum)
    assert [b.step for b in batches] == list(range(N_STEPS))
    assert [b.state for b in batches] == ["acknowledged"] * N_STEPS
    assert [c.step for c in second_client.checkpoints("tiny")] == [None, 4, 8]
    for name, tensor in weights(straight).items():
        torch.testing.assert_close(weights(killed)[name], tensor, rtol=0, atol=1e-6)


def test_death_while_saving_leaves_the_former_state(
    sqlite_client: Client, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(make_curriculum(sqlite_client, tmp_path), student, tmp_path / "out")
    save, n_saves = torch.save, 0

    def dying(state: Any, file: Any) -> None:
        nonlocal n_saves
        n_saves += 1
        if n_saves == 2:
            file.write(b"half of it")
            raise Killed
        save(state, file)

    monkeypatch.setattr(torch, "save", dying)
    with pytest.raises(Killed):
        run(config, sqlite_client)
    assert torch.load(config.out / "state.pt", weights_only=True)["progress"]["step"] == 3
    assert run(config, sqlite_client)["resumed_at"] == 3


def test_a_lost_folder_means_the_same_steps_again(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    curriculum = make_curriculum(sqlite_client, tmp_path)
    first, again = tmp_path / "first", tmp_path / "again"
    with pytest.raises(Killed):
        run(make_config(curriculum, student, first), Killing(sqlite_client, "append_metrics", 3, "after"))
    run(make_config(curriculum, student, again), sqlite_client)
    assert losses(again)[:3] == pytest.approx(losses(first), abs=1e-6)
    assert len(run_batches(sqlite_client, curriculum)) == N_STEPS


def test_a_signal_finishes_the_step_and_saves(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    config = make_config(make_curriculum(sqlite_client, tmp_path), student, tmp_path / "out", save_every=100)
    stop = Stop()

    class Stopping(Killing):
        def acknowledge(self, batch_id: str, outcomes: Any) -> wire.BatchReceipt:
            stop.ask(15)
            return sqlite_client.acknowledge(batch_id, outcomes)

    with pytest.raises(Interrupted, match="stopped before step 1; the same command resumes there") as caught:
        run(config, Stopping(sqlite_client, "", 0, ""), stop)
    assert caught.value.signal_number == 15
    (made,) = sqlite_client.runs(config.curriculum_id)
    assert made.state == "running"
    assert run(config, sqlite_client)["resumed_at"] == 1


def test_other_settings_are_refused_by_name(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    curriculum = make_curriculum(sqlite_client, tmp_path)
    out = tmp_path / "out"
    run(make_config(curriculum, student, out, max_steps=2), sqlite_client)
    with pytest.raises(ConfigRefused, match=r"learning_rate: was 0\.001, now 0\.002"):
        run(make_config(curriculum, student, out, learning_rate=2e-3), sqlite_client)
    with pytest.raises(ConfigRefused, match=r"run 'tiny' of curriculum .*\n  seed: was 0, now 1"):
        run(make_config(curriculum, student, tmp_path / "elsewhere", seed=1), sqlite_client)
    other = make_config(curriculum, student, out, micro_batch_size=1, chunk_tokens=7, max_steps=3)
    assert run(other, sqlite_client)["n_steps"] == 3


def test_other_weights_under_the_same_name_are_refused(sqlite_client: Client, tmp_path: Path) -> None:
    student = tiny_folder(tmp_path / "student")
    config = make_config(make_curriculum(sqlite_client, tmp_path), student, tmp_path / "out", max_steps=1)
    run(config, sqlite_client)
    tiny_folder(student, seed=9)
    with pytest.raises(ConfigRefused, match=r"not those that the run .* began with"):
        run(config, sqlite_client)


def test_a_run_made_beforehand_without_settings_is_taken(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    curriculum = make_curriculum(sqlite_client, tmp_path)
    made = sqlite_client.create_run(wire.RunCreate(curriculum_id=curriculum.curriculum_id, name="tiny"))
    report = run(make_config(curriculum, student, tmp_path / "out", max_steps=1), sqlite_client)
    assert report["run_id"] == made.run_id


def test_a_broken_state_says_what_to_do(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    config = make_config(make_curriculum(sqlite_client, tmp_path), student, tmp_path / "out", max_steps=1)
    run(config, sqlite_client)
    (config.out / "state.pt").write_bytes(b"not a state")
    with pytest.raises(StateBroken, match="remove it to redo the run"):
        run(config, sqlite_client)


def test_the_next_stage_waits_for_its_measurement(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    curriculum = make_curriculum(sqlite_client, tmp_path)
    config = make_config(curriculum, student, tmp_path / "out", wait_for_measurement=True, wait_s=0.1)
    with pytest.raises(WaitedTooLong, match=r"at checkpoint 1: 0 of 40; `paced rollout tiny` starts a worker"):
        run(config, sqlite_client)
    assert len(run_batches(sqlite_client, curriculum)) == 4
    measure(sqlite_client)
    assert run(config, sqlite_client)["resumed_at"] == 4


def test_problems_that_nobody_measured_are_waited_for(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    curriculum = build(sqlite_client, tmp_path, schedule=SCHEDULE, preset="paper")
    config = make_config(curriculum, student, tmp_path / "out", wait_s=0.1)
    with pytest.raises(WaitedTooLong, match=r"not\s+measured yet.*waited 0\.1 s"):
        run(config, sqlite_client)
    patient = make_config(curriculum, student, tmp_path / "out", wait_s=0.1, wait_for_measurement=True)
    with pytest.raises(WaitedTooLong, match="every problem to be measured once: 0 of 40"):
        run(patient, sqlite_client)


def test_on_policy_answers_become_observations_when_asked(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    curriculum = make_curriculum(sqlite_client, tmp_path, schedule=[{"stage": "reverse_kl", "steps": 1}])
    run(make_config(curriculum, student, tmp_path / "out", report_outcomes=True), sqlite_client)
    (batch,) = run_batches(sqlite_client, curriculum)
    for problem_id in batch.problem_id:
        seen = sqlite_client.estimate(curriculum.measurement_id, problem_id).observations
        (ours,) = [one for one in seen if one.source == "trainer"]
        assert sum(ours.verdicts.values()) == 1


def test_checkpoints_between_stage_ends(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    curriculum = make_curriculum(sqlite_client, tmp_path)
    run(make_config(curriculum, student, tmp_path / "out", checkpoint_every=3), sqlite_client)
    assert [c.step for c in sqlite_client.checkpoints("tiny")] == [None, 3, 4, 6, 8]


def test_a_teacher_of_its_own(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    teacher = tiny_folder(tmp_path / "teacher", seed=5, hidden_size=48)
    curriculum = make_curriculum(sqlite_client, tmp_path)
    run(make_config(curriculum, student, tmp_path / "out", teacher=str(teacher)), sqlite_client)
    assert len(losses(tmp_path / "out")) == N_STEPS


def test_a_second_trainer_in_the_run_is_noticed(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    curriculum = make_curriculum(sqlite_client, tmp_path)
    made = sqlite_client.create_run(wire.RunCreate(curriculum_id=curriculum.curriculum_id, name="tiny"))
    sqlite_client.draw_batch(curriculum.curriculum_id, 4, run_id=made.run_id, key="someone else's")
    with pytest.raises(DistillError, match="another trainer draws batches"):
        run(make_config(curriculum, student, tmp_path / "out"), sqlite_client)
    assert sqlite_client.run(made.run_id).state == "failed"


def test_half_a_line_of_metrics_is_dropped(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    curriculum = make_curriculum(sqlite_client, tmp_path)
    out = tmp_path / "out"
    run(make_config(curriculum, student, out, max_steps=3), sqlite_client)
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    run(make_config(curriculum, student, out), sqlite_client)
    assert len(losses(out)) == N_STEPS


def test_an_export_appears_whole_or_not(student: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(student, torch.bfloat16, torch.device("cpu")), load_tokenizer(student)
    left = tmp_path / "checkpoints" / ".step-000004.partial"
    left.mkdir(parents=True)
    (left / "rubbish").write_text("of a killed trainer")
    folder = checkpoint.export(model, tokenizer, tmp_path, 4)
    assert folder == (tmp_path / "checkpoints" / "step-000004").resolve()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {f.name for f in folder.iterdir()}
    assert not left.exists()
    assert not (folder / "rubbish").exists()
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert checkpoint.export(model, tokenizer, tmp_path, 4) == folder


def test_a_folder_takes_one_trainer_at_a_time(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    config = make_config(make_curriculum(sqlite_client, tmp_path), student, tmp_path / "out", max_steps=1)
    with checkpoint.locked(config.out), pytest.raises(FolderBusy, match="another trainer works in"):
        run(config, sqlite_client)
    assert run(config, sqlite_client)["n_steps"] == 1
