"""When a stage ends before its steps are done, and that a run which is killed around it ends alike."""

from pathlib import Path
from typing import Any

import pytest

from paced import Client
from paced.wire import Checkpoint, Frontier, HoldoutPoint, RunCreate, Stage, StagePlan
from tests.app.world import measure
from tests.worker.distill.world import Killed, Killing, losses, make_config, make_curriculum, run
from worker.distill import endings
from worker.distill.endings import ended, has_plateaued, mastered_share
from worker.distill.errors import ConfigRefused

PLAN = [StagePlan(stage=Stage.FORWARD_KL, steps=8), StagePlan(stage=Stage.REVERSE_KL, steps=4)]


def points(*rates: float, se: float = 0.05, n: int = 20) -> list[HoldoutPoint]:
    return [
        HoldoutPoint(checkpoint_index=i, n_problems=n, n_rollouts=8 * n, pass_rate=rate, se=se)
        for i, rate in enumerate(rates)
    ]


@pytest.mark.parametrize(
    ("rates", "is_over"),
    [
        ((), False),
        ((0.3, 0.3), False),  # two checkpoints have none before them
        ((0.3, 0.3, 0.3), True),
        ((0.3, 0.34, 0.35), True),  # within the standard error
        ((0.3, 0.36, 0.3), False),
        ((0.3, 0.4, 0.5, 0.54, 0.5), True),
        ((0.5, 0.3, 0.3), True),
    ],
)
def test_a_plateau_is_a_best_that_no_later_checkpoint_beats_by_its_error(rates: Any, is_over: bool) -> None:
    assert has_plateaued(points(*rates), 2) == is_over


def test_a_hold_out_half_measured_does_not_count() -> None:
    half = points(0.9, n=3)[0].model_copy(update={"checkpoint_index": 3})
    assert has_plateaued([*points(0.3, 0.3, 0.3), half], 2)


def test_a_problem_in_quarantine_does_not_hide_a_plateau() -> None:
    assert has_plateaued([*points(0.3, n=120), *points(0.3, 0.3, n=119)], 2)


def test_points_are_those_of_the_run_and_its_stage() -> None:
    def made(index: int, run_id: str | None, step: int | None) -> Checkpoint:
        fields = {"index": index, "run_id": run_id, "step": step, "parent_index": index - 1 if index else None}
        return Checkpoint.model_construct(**fields)

    made_here = [made(0, None, None), made(1, "other", 4), made(2, "run", 4), made(3, "run", 8), made(4, "run", 12)]
    found = points(0.1, 0.2, 0.3, 0.4, 0.5)
    assert [p.checkpoint_index for p in endings.of_stage(found, made_here, "run", 0)] == [1, 2, 3, 4]
    assert [p.checkpoint_index for p in endings.of_stage(found, made_here, "run", 8)] == [3, 4]


def test_the_share_mastered_is_of_those_that_are_not_hopeless() -> None:
    edges = [i / 10 for i in range(11)]
    counts = [50, 1, 1, 0, 0, 0, 0, 0, 2, 4]
    frontier = Frontier(edges=edges, counts=counts, n_measured=58, n_unmeasured=0, frontier_share=None, mean=None)
    assert mastered_share(frontier) == 0.5
    assert mastered_share(frontier.model_copy(update={"counts": [9] + [0] * 9})) == 0


def test_a_stage_that_ends_leaves_the_others_as_they_were() -> None:
    assert [plan.steps for plan in ended(PLAN, 3)] == [3, 4]
    assert [plan.steps for plan in ended(PLAN, 10)] == [8, 2]
    assert [plan.steps for plan in ended([PLAN[0], StagePlan(stage=Stage.REVERSE_KL)], 11)] == [8, 3]


class Measuring(Killing):
    """A client whose student is measured whenever a checkpoint is registered, always alike."""

    def register_checkpoint(self, *arguments: Any, **options: Any) -> Any:
        made = self._client.register_checkpoint(*arguments, **options)
        measure(self._client, size=64)
        return made


def test_stages_end_by_plateau_and_a_killed_run_ends_them_at_the_same_steps(
    sqlite_client: Client, student: Path, tmp_path: Path
) -> None:
    schedule = [{"stage": "forward_kl", "steps": 8}, {"stage": "reverse_kl", "steps": 50}]
    fields = {"stage_ends": "plateau", "plateau_checkpoints": 1, "checkpoint_every": 2, "save_every": 5}
    curriculum = make_curriculum(sqlite_client, tmp_path, schedule=schedule, holdout_share=0.3)
    config = make_config(curriculum, student, tmp_path / "out", **fields)
    for method, nth in (("update_curriculum", 1), ("draw_batch", 2), ("update_curriculum", 1)):
        with pytest.raises(Killed):
            run(config, Measuring(sqlite_client, method, nth, "after"))
    report = run(config, Measuring(sqlite_client, "", 0, ""))
    assert [plan.steps for plan in sqlite_client.curriculum(curriculum.curriculum_id).schedule] == [2, 2]
    assert [(s["stage"], s["n_steps"]) for s in report["stages"]] == [("forward_kl", 2), ("reverse_kl", 2)]
    assert len(losses(config.out)) == 4
    batches = list(sqlite_client.batches(curriculum.curriculum_id))
    assert sorted((b.step, b.stage) for b in batches) == [
        (0, "forward_kl"), (1, "forward_kl"), (2, "reverse_kl"), (3, "reverse_kl"),
    ]  # fmt: skip


def test_a_curriculum_that_another_run_trains_on_keeps_its_schedule(
    sqlite_client: Client, student: Path, tmp_path: Path
) -> None:
    curriculum = make_curriculum(sqlite_client, tmp_path)
    sqlite_client.create_run(RunCreate(curriculum_id=curriculum.curriculum_id, name="another"))
    config = make_config(curriculum, student, tmp_path / "out", stage_ends="mastered", checkpoint_every=2)
    with pytest.raises(ConfigRefused, match="on which run 'another' trains too"):
        run(config, sqlite_client)
