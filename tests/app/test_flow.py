"""The whole flow through HTTP, left to right, on both databases; a scripted student stands in for the model."""

from pathlib import Path

import numpy as np
import pytest

from paced import Client, wire
from paced.errors import NothingEligible, ScheduleComplete
from tests.app.world import build, measure


def test_problems_become_estimates_become_weighted_batches(client: Client, tmp_path: Path) -> None:
    half = {"name": "discounted_beta", "prior_a": 0.5, "prior_b": 0.5}
    curriculum = build(client, tmp_path, n=60, holdout_share=0.25, estimator=half)
    measurement = client.measurement(curriculum.measurement_id)
    assert (measurement.n_problems, measurement.n_measured, measurement.n_due) == (60, 0, 60)
    assert 5 <= measurement.n_holdout <= 25

    assert measure(client) == 60
    measurement = client.measurement(curriculum.measurement_id)
    assert (measurement.n_measured, measurement.n_at_latest, measurement.n_due) == (60, 60, 0)
    assert measurement.n_holdout_at_latest == measurement.n_holdout

    estimates = {item.problem_id: item for item in client.estimates(curriculum.measurement_id, limit=7)}
    assert len(estimates) == 60
    for problem_id, estimate in estimates.items():
        assert (estimate.last_passed, estimate.last_counted) == (problem_id % 9, 8)
        assert estimate.pass_rate == pytest.approx((0.5 + problem_id % 9) / 9)
        assert estimate.interval is not None
        assert estimate.interval[0] < estimate.pass_rate < estimate.interval[1]

    run = client.create_run(wire.RunCreate(curriculum_id=curriculum.curriculum_id, name="first"))
    batch = client.draw_batch(curriculum.curriculum_id, 8, run_id=run.run_id)
    assert (batch.size, batch.step, batch.stage, batch.shortfall) == (8, 0, wire.Stage.FORWARD_KL, None)
    assert len(set(batch.problem_id)) == 8
    assert not any(estimates[problem_id].is_holdout for problem_id in batch.problem_id)
    for position, problem_id in enumerate(batch.problem_id):
        a, b = 0.5 + problem_id % 9, 8.5 - problem_id % 9
        assert batch.weight[position] == pytest.approx(a * b / ((a + b) * (a + b + 1)))
    assert [problem.problem_id for problem, _ in batch.items()] == batch.problem_id

    outcomes = [wire.Outcome(problem_id=batch.problem_id[0], checkpoint_index=0, n_passed=3, n_failed=1)]
    receipt = client.acknowledge(batch.batch_id, outcomes)
    assert (receipt.n_outcomes, receipt.is_replay) == (1, False)
    assert client.acknowledge(batch.batch_id, outcomes).is_replay
    detail = client.estimate(curriculum.measurement_id, batch.problem_id[0])
    assert [o.source for o in detail.observations] == ["trainer", detail.observations[1].source]
    assert detail.n_groups == 2


def test_hold_out_progress_and_frontier(client: Client, tmp_path: Path) -> None:
    curriculum = build(client, tmp_path, n=80, holdout_share=0.3)
    measure(client, passed=lambda _: 2)
    client.register_checkpoint("tiny", wire.CheckpointCreate(uri="/models/tiny/1", parent_index=0))
    measure(client, passed=lambda i: 4 + 2 * (i % 2))
    before, after = client.holdout(curriculum.measurement_id)
    assert (before.checkpoint_index, before.pass_rate, before.se) == (0, 0.25, 0.0)
    assert after.checkpoint_index == 1
    assert 0.5 <= after.pass_rate <= 0.75
    assert after.n_rollouts == 8 * after.n_problems
    frontier = client.frontier(curriculum.measurement_id)
    assert frontier.n_measured == sum(frontier.counts) == 80 - before.n_problems
    assert frontier.frontier_share == 1.0


def test_the_schedule_switches_from_forward_to_reverse_and_ends(client: Client, tmp_path: Path) -> None:
    schedule = [{"stage": "forward_kl", "steps": 2}, {"stage": "reverse_kl", "steps": 1}]
    curriculum = build(client, tmp_path, schedule=schedule)
    run = client.create_run(wire.RunCreate(curriculum_id=curriculum.curriculum_id, name="first"))
    stages = []
    for _ in range(3):
        batch = client.draw_batch(curriculum.curriculum_id, 4, run_id=run.run_id)
        stages.append(batch.stage)
        client.acknowledge(batch.batch_id)
    assert stages == ["forward_kl", "forward_kl", "reverse_kl"]
    with pytest.raises(ScheduleComplete):
        client.draw_batch(curriculum.curriculum_id, 4, run_id=run.run_id)
    other = client.create_run(wire.RunCreate(curriculum_id=curriculum.curriculum_id, name="second"))
    assert client.draw_batch(curriculum.curriculum_id, 4, run_id=other.run_id).stage == "forward_kl"


def test_a_changed_kernel_holds_from_the_next_draw(client: Client, tmp_path: Path) -> None:
    curriculum = build(client, tmp_path, n=60, holdout_share=0.0)
    measure(client)
    first = client.draw_batch(curriculum.curriculum_id, 5)
    changed = client.update_curriculum(
        curriculum.curriculum_id, wire.CurriculumUpdate(kernel=wire.Kernel(alpha=3.0, beta=0.5), gamma=1.0)
    )
    assert changed.version == 2
    second = client.draw_batch(curriculum.curriculum_id, 5)
    assert (first.curriculum_version, second.curriculum_version) == (1, 2)
    explained = client.explain(second.batch_id)
    assert (explained.kernel.alpha, explained.gamma) == (3.0, 1.0)
    assert client.explain(first.batch_id).kernel.alpha == 1.0
    for item in explained.items:
        assert len(item.observations) == 1
        assert item.uniform_probability == pytest.approx(1 / 55)  # the first batch's five are in flight


def test_the_paper_preset_reweights_a_uniform_draw(client: Client, tmp_path: Path) -> None:
    curriculum = build(client, tmp_path, n=45, preset="paper", holdout_share=0.0)
    with pytest.raises(NothingEligible) as caught:
        client.draw_batch(curriculum.curriculum_id, 4)
    assert caught.value.members["shortfall"]["n_unmeasured"] == 45
    measure(client)
    batch = client.draw_batch(curriculum.curriculum_id, 45)
    assert batch.draw_probability == pytest.approx([1 / 45] * 45)
    p = np.array([problem_id % 9 / 8 for problem_id in batch.problem_id])
    w = p * (1 - p)
    assert batch.weight == pytest.approx(w.tolist())
    assert batch.loss_weight == pytest.approx((w / w.mean()).tolist())
    # measured once, for good: new groups change nothing
    client.acknowledge(batch.batch_id)
    client.register_checkpoint("tiny", wire.CheckpointCreate(uri="/models/tiny/1"))
    measure(client, passed=lambda _: 8)
    again = client.draw_batch(curriculum.curriculum_id, 45)
    assert sorted(again.weight) == pytest.approx(sorted(batch.weight))


def test_sample_mode_corrects_the_draw_back_to_the_weight(client: Client, tmp_path: Path) -> None:
    curriculum = build(client, tmp_path, n=60, holdout_share=0.0, gamma=2.0, loss_weight_clip=1e6)
    measure(client)
    batch = client.draw_batch(curriculum.curriculum_id, 60)
    q, w, factor = (np.array(x) for x in (batch.draw_probability, batch.weight, batch.loss_weight))
    assert q.sum() == pytest.approx(1.0)
    assert q / q.max() == pytest.approx((w / w.max()) ** 2)
    assert q * factor == pytest.approx(w / w.sum())


def test_all_right_or_all_wrong_is_a_typed_answer(client: Client, tmp_path: Path) -> None:
    plug_in = {"name": "plug_in_newest"}
    curriculum = build(client, tmp_path, n=30, holdout_share=0.0, estimator=plug_in)
    measure(client, passed=lambda i: 8 * (i % 2))
    with pytest.raises(NothingEligible) as caught:
        client.draw_batch(curriculum.curriculum_id, 4)
    assert caught.value.members["shortfall"]["n_zero_weight"] == 30
    client.register_checkpoint("tiny", wire.CheckpointCreate(uri="/models/tiny/1"))
    measure(client, passed=lambda i: 4 if i % 10 == 0 else 0)
    batch = client.draw_batch(curriculum.curriculum_id, 10)
    assert batch.size == 3
    assert batch.shortfall is not None
    assert (batch.shortfall.n_requested, batch.shortfall.n_returned, batch.shortfall.n_zero_weight) == (10, 3, 27)


def test_problems_imported_later_are_measured_and_drawn(client: Client, tmp_path: Path) -> None:
    curriculum = build(client, tmp_path, n=20, holdout_share=0.0)
    measure(client)
    client.draw_batch(curriculum.curriculum_id, 5)
    from tests.app.world import write_problems

    report = client.import_problems("sums", write_problems(tmp_path, 50))
    assert (report.n_imported, report.n_twins) == (30, 20)
    assert measure(client) == 30
    batch = client.draw_batch(curriculum.curriculum_id, 50)
    assert batch.size == 45
    assert client.problem_set("sums").n_rows == 50


def test_runs_metrics_and_teacher_references(client: Client, tmp_path: Path) -> None:
    curriculum = build(client, tmp_path)
    run = client.create_run(wire.RunCreate(curriculum_id=curriculum.curriculum_id, name="r", config={"lr": 1e-5}))
    assert (
        client.create_run(wire.RunCreate(curriculum_id=curriculum.curriculum_id, name="r", config={"lr": 1e-5})) == run
    )
    points = [wire.MetricPoint(step=s, stage=wire.Stage.FORWARD_KL, values={"loss": 1.0 / (s + 1)}) for s in range(5)]
    client.append_metrics(run.run_id, points)
    replaced = wire.MetricPoint(step=4, stage=wire.Stage.REVERSE_KL, values={"loss": 0.0})
    client.append_metrics(run.run_id, [replaced])
    assert list(client.metrics(run.run_id)) == [*points[:4], replaced]
    assert client.run(run.run_id).last_step == 4
    assert client.update_run(run.run_id, wire.RunState.FINISHED).state == "finished"

    ids = [problem.problem_id for problem in client.problems("sums")][:3]
    texts = [wire.TeacherReference(problem_id=i, text=f"text {i}", n_tokens=2, finish_reason="stop") for i in ids]
    client.store_references(wire.TeacherReferences(teacher="self", references=texts))
    client.store_references(wire.TeacherReferences(teacher="self", references=texts[:1]))
    assert client.references("self", [*ids, 999_999]) == {text.problem_id: text for text in texts}
    assert client.references("other", ids) == {}
