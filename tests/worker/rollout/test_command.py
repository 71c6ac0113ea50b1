"""The command as a process: exit codes, signals, kill -9."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.service import ADMIN_KEY
from tests.worker.rollout.world import COMMAND, MakeWorld, start, sums, wait_for


def test_until_idle_measures_everything_and_says_so(make_world: MakeWorld) -> None:
    world = make_world(sums(12))
    worker = start(world, "--until-idle", "--max-problems", "5")
    out, err = worker.communicate(timeout=60)
    assert worker.returncode == 0, err
    report = json.loads(out.splitlines()[-1])
    assert (report["n_groups"], report["n_rollouts"], report["failure"]) == (12, 96, None)
    assert report["grading"]["n_graded"] > 0
    assert report["grading"]["slowest"][0]["grader"] == "numeric"
    assert sum(report["verdicts"].values()) == 96
    assert world.measurement().n_measured == 12
    assert "done: checkpoint 0: 12 problems, 96 answers" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_releases_the_leases_and_exits_with_0(make_world: MakeWorld, number: signal.Signals) -> None:
    world = make_world(sums(30))
    worker = start(world, "--delay-s", "0.5", "--n-groups", "2")
    wait_for(lambda: world.measurement().n_measured > 0)
    worker.send_signal(number)
    out, err = worker.communicate(timeout=10)
    assert worker.returncode == 0, err
    after = world.measurement()
    assert (after.n_leased, after.n_measured) == (0, json.loads(out)["n_groups"])


def test_a_second_signal_exits_at_once(make_world: MakeWorld) -> None:
    world = make_world(sums(4))
    worker = start(world, "--delay-s", "30")
    wait_for(lambda: world.measurement().n_leased > 0)
    worker.send_signal(signal.SIGSTOP)  # both signals are waiting when it goes on
    worker.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGINT)
    worker.send_signal(signal.SIGCONT)
    worker.communicate(timeout=5)
    assert worker.returncode == 130


def test_after_kill_9_another_worker_does_the_rest_once(make_world: MakeWorld) -> None:
    world = make_world(sums(20))
    killed = start(world, "--delay-s", "0.3", "--n-groups", "2", "--ttl-s", "2")
    wait_for(lambda: world.measurement().n_measured > 0)
    killed.kill()
    killed.communicate()
    second = start(world, "--until-idle", "--ttl-s", "2")
    wait_for(lambda: world.measurement().n_leased == 0)
    second.communicate(timeout=60)
    third = start(world, "--until-idle")
    third.communicate(timeout=60)
    assert (second.returncode, third.returncode) == (0, 0)
    assert world.measurement().n_measured == 20
    assert all(len(seen) == 1 for seen in world.observations().values())


def test_an_unknown_student_exits_with_1(make_world: MakeWorld) -> None:
    world = make_world(sums(1))
    worker = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "nobody", "--engine", "scripted"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PACED_URL": world.service.url, "PACED_KEY": ADMIN_KEY, "PYTHONPATH": "."},
    )
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 1
    assert "nobody" in err
    assert "Traceback" not in err
