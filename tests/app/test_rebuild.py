"""paced rebuild makes every estimate again from the log."""

import datetime as dt
import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.flow.rollouts.store import AT_ONCE
from paced import wire
from paced.cli import build as build_cli
from tests.app.test_regrading import flipped, second
from tests.app.world import World, build, group, leased
from tests.service import TestClock, serve


def rebuild(data: Path, *options: str) -> Result:
    return CliRunner().invoke(build_cli(), ["rebuild", "--data", str(data), "--json", *options])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A database after two checkpoints, failures up to a quarantine, outcomes of a trainer, and a regrade."""
    folder, clock = tmp_path / "data", TestClock()
    with serve(folder, None, clock) as service, service.client() as client:
        world = World(service, client, clock, build(client, tmp_path, 30, holdout_share=0.2))
        world.measure()
        world.new_checkpoint()
        world.measure(lambda i: 8 - i % 9, size=7)
        batch = world.draw(6)
        outcomes = [wire.Outcome(problem_id=p, checkpoint_index=1, n_passed=1, n_failed=3) for p in batch.problem_id]
        client.acknowledge(batch.batch_id, outcomes)
        world.new_checkpoint()
        for _ in range(3):
            lease = world.claim(2)
            lost = [wire.Rollout(text="", verdict=wire.Verdict.INFRASTRUCTURE, n_tokens=0)] * 8
            ids = [item.problem_id for item in lease.problems]
            world.report(lease, [wire.RolloutGroup(problem_id=i, checkpoint_index=2, rollouts=lost) for i in ids])
        groups = list(client.groups(world.measurement.measurement_id))
        client.regrade(second(world).measurement_id, [flipped(group, 1) for group in groups])
    return folder


def test_the_log_makes_every_estimate_again(data: Path) -> None:
    found = rebuild(data, "--check")
    assert found.exit_code == 0, found.output
    first, regraded = json.loads(found.stdout)
    assert (first["n_estimates"], first["n_observations"]) == (30, 30 + 30 + 6 + 6)
    assert regraded["n_observations"] == 30 + 30 + 6
    assert first["changed"] == regraded["changed"] == []


class StoppedClock(TestClock):
    """Two parts of a report fall into one moment."""

    def __call__(self) -> dt.datetime:
        return dt.datetime(2026, 3, 1, tzinfo=dt.UTC) + self.ahead


def test_the_parts_of_a_report_are_told_apart(tmp_path: Path) -> None:
    folder, clock = tmp_path / "data", StoppedClock()
    with serve(folder, None, clock) as service, service.client() as client:
        world = World(service, client, clock, build(client, tmp_path, 3 * AT_ONCE))
        lease = world.claim(3 * AT_ONCE)
        world.report(lease, [group(problem_id, problem_id % 9) for problem_id in leased(lease)])
    found = rebuild(folder, "--check")
    assert found.exit_code == 0, found.output


def test_priors_rest_on_the_hold_out_and_the_audits_alone(data: Path) -> None:
    """One tag, so the faded count of its uniformly chosen groups is that of the log; oldest-first ones are as many."""
    with sqlite3.connect(data / "paced.sqlite3") as conn:
        (n, mean), *others = conn.execute(
            "SELECT audit_n, audit_sum / audit_n FROM abilities WHERE measurement_id = 1"
        ).fetchall()
        uniform, rest = (
            conn.execute(
                "SELECT COUNT(*) FROM observations WHERE measurement_id = 1 AND n_counted > 0"
                f" AND source {negation} IN ('audit', 'holdout')"
            ).fetchone()[0]
            for negation in ("", "NOT")
        )
    conn.close()
    assert not others
    assert 0.7 * uniform < n <= uniform
    assert rest > 20
    assert 0 < mean < 1


@pytest.mark.parametrize(
    ("statement", "n_changed", "n_abilities"),
    [
        ("UPDATE estimates SET logit_mean = logit_mean + 1e-12 WHERE measurement_id = 1 AND ordinal = 3", 1, 0),
        ("UPDATE estimates SET failure_streak = 9, quarantined_until = NULL WHERE measurement_id = 1", 30, 0),
        ("UPDATE estimates SET alone_mean = alone_mean + 1e-12 WHERE measurement_id = 1 AND ordinal = 3", 1, 0),
        ("UPDATE abilities SET level = level + 1 WHERE measurement_id = 1", 0, 1),
        ("UPDATE abilities SET audit_square = audit_square + 1e-12 WHERE measurement_id = 1", 0, 1),
        ("DELETE FROM abilities", 0, 1),
    ],
)
def test_what_was_changed_by_hand_is_found_and_put_right(
    data: Path, statement: str, n_changed: int, n_abilities: int
) -> None:
    with sqlite3.connect(data / "paced.sqlite3") as conn:
        conn.execute(statement)
    conn.close()
    found = rebuild(data, "--check")
    assert found.exit_code == 1
    first = json.loads(found.stdout)[0]
    assert (len(first["changed"]), first["n_abilities_changed"]) == (n_changed, n_abilities)
    assert rebuild(data).exit_code == 0
    assert rebuild(data, "--check").exit_code == 0
