"""Alarms: each rule alone, then through HTTP and the command line on both databases."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.alarms.rules import Signals, alarms, behind
from paced import wire
from paced.cli import build as build_cli
from tests.app.conftest import MakeWorld
from tests.app.world import World, leased, verdict_group
from tests.service import ADMIN_KEY

NOW = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC)
WELL = wire.Frontier(edges=[0, 1], counts=[100], n_measured=100, n_unmeasured=0, frontier_share=0.5, mean=0.4)
PASS, TIMEOUT = wire.Verdict.PASS, wire.Verdict.TIMEOUT


def worker(seen_s: float) -> wire.WorkerActivity:
    shown: Any = wire.Workers.model_config["json_schema_extra"]
    fields = shown["examples"][0]["workers"][0]
    return wire.WorkerActivity.model_validate({**fields, "last_seen_at": NOW - dt.timedelta(seconds=seen_s)})


def signals(*, frontier: wire.Frontier = WELL, holdout: tuple[tuple[float, int], ...] = (), **fields: Any) -> Signals:
    queue = wire.WorkQueue(
        is_wanted=fields.pop("is_wanted", False),
        checkpoint_index=3,
        waiting_since=NOW - dt.timedelta(minutes=20),
        oldest_checkpoint_index=2,
        oldest_measured_at=NOW - dt.timedelta(hours=1),
    )
    empty = {"n_live": 0, "n_late": 0, "n_lost": 0, "workers": [], "verdicts": {}, "minutes": []}
    rest = {"measurement_id": "mea_1", "student": "s", "at": NOW, "queue": queue, "graders": [], "slowest": []}
    points = [
        wire.HoldoutPoint(checkpoint_index=i, n_problems=n, n_rollouts=8 * n, pass_rate=p, se=0.02)
        for i, (p, n) in enumerate(holdout)
    ]
    made = wire.Workers.model_validate({**empty, **rest, **fields})
    return Signals("mea_1", "s", "sums", made, points, frontier)


def named(found: Signals) -> list[tuple[str, str]]:
    return [(alarm.name.value, alarm.severity.value) for alarm in alarms(found)]


def test_nothing_is_said_when_all_is_well() -> None:
    fine = signals(verdicts={"pass": 500, "timeout": 10}, holdout=((0.5, 100), (0.52, 100)), is_wanted=True, n_live=2)
    assert named(fine) == []
    assert list(behind(0.3)) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"is_wanted": True, "workers": [worker(120)]}, []),
        ({"is_wanted": True, "workers": [worker(600)]}, [("workers_gone", "serious")]),
        ({"is_wanted": False, "workers": [worker(600)]}, []),
        ({"is_wanted": True}, [("workers_gone", "warning")]),
        ({"n_lost": 2}, []),
        ({"n_lost": 3}, [("leases_lost", "warning")]),
        ({"verdicts": {"pass": 20, "timeout": 60}}, []),
        ({"verdicts": {"pass": 95, "timeout": 3, "grader_error": 2}}, [("grader_failing", "warning")]),
        ({"verdicts": {"pass": 70, "grader_error": 30}}, [("grader_failing", "serious")]),
        ({"verdicts": {"pass": 70, "infrastructure": 30}}, [("rollouts_failing", "serious")]),
        ({"holdout": ((0.5, 100), (0.44, 100))}, [("holdout_falling", "warning")]),
        ({"holdout": ((0.5, 100), (0.30, 100))}, [("holdout_falling", "serious")]),
        ({"holdout": ((0.5, 100), (0.48, 100))}, []),
        ({"holdout": ((0.5, 100), (0.30, 10))}, []),
        ({"frontier": WELL.model_copy(update={"frontier_share": 0.0})}, [("nothing_to_learn", "serious")]),
        ({"frontier": WELL.model_copy(update={"frontier_share": 0.0, "n_measured": 9})}, []),
    ],
)
def test_each_rule(fields: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert named(signals(**fields)) == expected


def test_serious_ones_come_first_and_each_names_a_command() -> None:
    found = alarms(signals(n_lost=5, verdicts={"pass": 50, "timeout": 50}, is_wanted=True, workers=[worker(720)]))
    assert [alarm.severity.value for alarm in found] == ["serious", "serious", "warning"]
    assert "no worker was seen for 12 minutes" in found[0].sentence
    commands = {command.name for command in build_cli().registered_commands} | {
        command.callback.__name__ for command in build_cli().registered_commands if command.callback
    }
    for alarm in found:
        assert alarm.command.split()[0] == "paced"
        assert alarm.command.split()[1] in commands
    (late,) = behind(90.0)
    assert (late.name, late.severity, late.measurement_id) == ("process_behind", "serious", None)


def run(world: World, *command: str) -> Result:
    return CliRunner().invoke(build_cli(), [*command, "--url", world.service.url, "--key", ADMIN_KEY])


def test_a_sick_grader_and_a_vanished_worker_are_found(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(60, holdout_share=0.0)
    measurement_id = world.curriculum.measurement_id
    assert world.client.alarms(measurement_id) == []
    assert run(world, "alarms", "--measurement", measurement_id).stdout == "no alarms\n"
    lease = world.claim(20)
    world.report(lease, [verdict_group(i, [PASS] * 4 + [TIMEOUT] * 4) for i in leased(lease)])
    world.clock.advance(600)
    found = world.client.alarms(measurement_id)
    assert [alarm.name.value for alarm in found] == ["workers_gone", "grader_failing"]
    assert [alarm for alarm in world.client.alarms() if alarm.measurement_id == measurement_id] == found
    listed = run(world, "alarms", "--measurement", measurement_id, "--json")
    assert listed.exit_code == 1
    assert [row["name"] for row in json.loads(listed.stdout)] == ["workers_gone", "grader_failing"]
    assert "50% of 160 answers" in " ".join(run(world, "alarms", "--measurement", measurement_id).stdout.split())
    shown = run(world, "workers", measurement_id)
    assert (shown.exit_code, "problems wait at checkpoint 0" in shown.stdout) == (0, True)
    assert json.loads(run(world, "workers", measurement_id, "--json").stdout)["verdicts"] == {"pass": 80, "timeout": 80}
    world.clock.advance(2 * 86_400)
    assert world.client.alarms(measurement_id) == [], "nobody has worked on it for a day"


def test_a_falling_holdout_is_found(make_world: MakeWorld) -> None:
    world = make_world(60, holdout_share=0.9)
    world.measure(lambda i: 6 + i % 2)
    world.new_checkpoint()
    world.measure(lambda i: 2 + i % 2)
    falling = [a for a in world.client.alarms(world.curriculum.measurement_id) if a.name == "holdout_falling"]
    assert [alarm.severity.value for alarm in falling] == ["serious"]
    shown = run(world, *falling[0].command.split()[1:], "--json")
    assert [point["checkpoint_index"] for point in json.loads(shown.stdout)] == [0, 1]
    assert "0.8" in run(world, *falling[0].command.split()[1:]).stdout
