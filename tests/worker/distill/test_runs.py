"""Where a run begins and is taken up again, and what it may report and may not ask for."""

from pathlib import Path

import pytest
import torch

from paced import Client, wire
from tests.worker.distill.test_train import weights
from tests.worker.distill.world import make_config, make_curriculum, run
from worker.distill.errors import ConfigRefused, Interrupted
from worker.distill.lessons import Graded, Lesson
from worker.distill.stages import Stop


def test_answers_sampled_otherwise_are_not_reported(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    curriculum = make_curriculum(sqlite_client, tmp_path)
    fields = {"report_outcomes": True, "on_policy_temperature": 0.3, "max_answer_tokens": 4}
    told = r"on_policy_temperature 0.3, not 0.6; max_answer_tokens 4, not 16"
    with pytest.raises(ConfigRefused, match=told):
        run(make_config(curriculum, student, tmp_path / "out", **fields), sqlite_client)


def test_answers_that_a_grader_failed_on_are_no_outcomes() -> None:
    verdicts = list(wire.Verdict)
    lesson = Lesson([], {}, [Graded(number, verdict) for number, verdict in enumerate(verdicts)])
    told = {verdicts[one.problem_id]: one for one in lesson.outcomes(3)}
    assert set(told) == {wire.Verdict.PASS, wire.Verdict.FAIL, wire.Verdict.TRUNCATED}
    assert (told[wire.Verdict.PASS].n_passed, told[wire.Verdict.FAIL].n_failed) == (1, 1)
    assert told[wire.Verdict.TRUNCATED].n_truncated == 1


def test_a_run_saved_before_its_first_step_steps_as_one_that_was_not(
    sqlite_client: Client, student: Path, tmp_path: Path
) -> None:
    first, second = (
        make_curriculum(sqlite_client, tmp_path, preset="uniform", suffix=suffix) for suffix in ("", "-again")
    )
    straight, again = (make_config(made, student, tmp_path / made.name, max_steps=2) for made in (first, second))
    run(straight, sqlite_client)
    stop = Stop()
    stop.ask()
    with pytest.raises(Interrupted):
        run(again, sqlite_client, stop)
    assert (again.out / "state.pt").exists()
    run(again, sqlite_client)
    for name, tensor in weights(straight.out).items():
        assert torch.equal(weights(again.out)[name], tensor)


def test_a_second_run_begins_at_the_checkpoint_of_its_folder(
    sqlite_client: Client, student: Path, tmp_path: Path
) -> None:
    curriculum = make_curriculum(sqlite_client, tmp_path)
    first = run(make_config(curriculum, student, tmp_path / "first", max_steps=2), sqlite_client)
    made = list(sqlite_client.checkpoints("tiny"))
    assert [one.step for one in made] == [None, 2]
    run(make_config(curriculum, student, tmp_path / "a", run_name="a", max_steps=1), sqlite_client)
    then = make_config(curriculum, Path(made[1].uri), tmp_path / "b", run_name="b", max_steps=1)
    run(then, sqlite_client)
    _, _, from_base, from_first = sqlite_client.checkpoints("tiny")
    assert made[1].index == first["checkpoint_index"]
    assert (from_base.parent_index, from_first.parent_index) == (1, 1)


def test_a_run_whose_folder_moved_goes_on(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    curriculum = make_curriculum(sqlite_client, tmp_path)
    config = make_config(curriculum, student, tmp_path / "out", checkpoint_every=2, save_every=3, max_steps=2)
    run(config, sqlite_client)
    (tmp_path / "out" / "state.pt").unlink()
    config.out.rename(tmp_path / "moved")
    done = run(config.model_copy(update={"out": tmp_path / "moved", "max_steps": 3}), sqlite_client)
    assert done["n_steps"] == 3
    assert [one.step for one in sqlite_client.checkpoints("tiny")] == [None, 2, 2, 3]


def test_settings_that_cannot_go_together_are_refused(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    curriculum = make_curriculum(sqlite_client, tmp_path)
    with pytest.raises(ConfigRefused, match="leave weights_dtype out, or set dtype to bfloat16"):
        run(make_config(curriculum, student, tmp_path / "out", weights_dtype="bfloat16"), sqlite_client)
