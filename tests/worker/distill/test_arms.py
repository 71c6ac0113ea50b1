"""Arms: the laboratory's, by the service's presets, and one command that runs one."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.flow.curricula.rule import PRESETS
from benchmarks.learning.arms import PRESET_ARMS as OF_LABORATORY
from paced import Client
from paced.cli import build as build_cli
from paced.wire import Preset, Stage
from tests.app.world import build, measure
from tests.service import ADMIN_KEY
from tests.worker.distill.tiny import lines_of
from worker.distill.arms import ALIASES, ARMS, Arm, find_arm
from worker.distill.errors import ConfigRefused

SETTINGS = {
    "batch_size": 4,
    "dtype": "float32",
    "engine": "transformers",
    "device": "cpu",
    "teacher_attempts": 1,
    "drop_wrong_references": "false",
    "wait_for_measurement": "false",
    "max_answer_tokens": 8,
}


FORWARD, REVERSE = ("forward_kl", 1.0), ("reverse_kl", 1.0)
HALVES = (("forward_kl", 0.5), ("reverse_kl", 0.5))
MEANINGS = {
    "uniform": ("uniform", (FORWARD,), False),
    "hard_filter": ("hard_filter", (FORWARD,), True),
    "akl": ("uniform", (("akl", 1.0),), False),
    "paper": ("paper", (FORWARD,), False),
    "default": ("default", (FORWARD,), True),
    "uniform_forward_reverse": ("uniform", HALVES, False),
    "uniform_reverse": ("uniform", (REVERSE,), False),
    "default_forward_reverse": ("default", HALVES, True),
    "default_reverse": ("default", (REVERSE,), True),
    "default_reverse_forward": ("default", HALVES[::-1], True),
}


def test_the_laboratory_and_the_trainer_mean_the_same_arms() -> None:
    assert ARMS.keys() == OF_LABORATORY.keys() == MEANINGS.keys()
    for name, (preset, stages, is_following) in MEANINGS.items():
        arm = OF_LABORATORY[name]
        assert (arm.rule, arm.stages, arm.is_following) == (PRESETS[Preset(preset)], stages, is_following)
        assert arm.is_measured == (preset != "uniform")
        divergences = [ARMS[name].divergence == "akl", any(divergence == "akl" for divergence, _ in stages)]
        assert divergences[0] == divergences[1]


def test_names_and_schedules() -> None:
    assert {find_arm(name)[0] for name in ALIASES} <= ARMS.keys()
    assert find_arm("reverse_then_forward")[1].stages[0][0] == Stage.REVERSE_KL
    plan = ARMS["default_forward_reverse"].schedule(7)
    assert [(stage.stage, stage.steps) for stage in plan] == [("forward_kl", 4), ("reverse_kl", 3)]
    assert [stage.steps for stage in ARMS["uniform"].schedule(1)] == [1]
    assert (ARMS["default"].checkpoint_every(80), ARMS["paper"].checkpoint_every(80)) == (10, 0)
    with pytest.raises(ConfigRefused, match="2 stages"):
        Arm(ARMS["default"].preset, ARMS["default_forward_reverse"].stages).schedule(1)
    with pytest.raises(ConfigRefused, match="no arm 'best': choose one of uniform, hard_filter, akl"):
        find_arm("best")


def run_arm(client: Client, name: str, student: Path, *more: str) -> tuple[int, str, str]:
    arguments = [f"{key}={value}" for key, value in SETTINGS.items()]
    done = CliRunner().invoke(
        build_cli(),
        ["arm", name, "--student", str(student), "--problem-set", "sums", "--student-name", "small", "--json"]
        + [word for text in arguments for word in ("--set", text)]
        + list(more),
        env={"PACED_URL": client.url, "PACED_KEY": ADMIN_KEY},
    )
    return done.exit_code, done.stdout, done.stderr


def test_one_command_runs_an_arm_and_goes_on_with_it(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    build(sqlite_client, tmp_path, n=12)  # problems and the one profile
    out = str(tmp_path / "run")
    code, said, err = run_arm(sqlite_client, "akl", student, "--steps", "2", "--seed", "3", "--out", out)
    assert code == 0, err
    report: dict[str, Any] = json.loads(said)
    curriculum = sqlite_client.curriculum(report["curriculum_id"])
    assert (curriculum.name, curriculum.student, curriculum.seed) == ("small-akl-s3", "small-akl-s3", 3)
    assert curriculum.preset == "uniform"
    made = sqlite_client.run(report["run_id"])
    assert made.name == "akl-s3"
    assert {name: made.config[name] for name in ("arm", "seed", "forward_divergence")} == {
        "arm": "akl", "seed": 3, "forward_divergence": "akl",
    }  # fmt: skip
    assert [line["stage"] for line in lines_of(tmp_path / "run" / "metrics.jsonl")] == ["forward_kl"] * 2
    assert [c.step for c in sqlite_client.checkpoints("small-akl-s3")] == [None, 2]

    code, said, err = run_arm(sqlite_client, "akl", student, "--steps", "2", "--seed", "3", "--out", out)
    assert code == 0, err
    assert json.loads(said)["resumed_at"] == 2


def test_following_arms_register_checkpoints_on_the_way(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    build(sqlite_client, tmp_path, n=12)
    code, _, err = run_arm(
        sqlite_client, "forward_only", student, "--steps", "3", "--holdout-share", "0.5", "--out", str(tmp_path / "run")
    )
    assert code == 0, err
    assert [c.step for c in sqlite_client.checkpoints("small-default-s0")] == [None, 1, 2, 3]
    measure(sqlite_client, "small-default-s0")
    done = CliRunner().invoke(
        build_cli(), ["compare", "default", "--json"], env={"PACED_URL": sqlite_client.url, "PACED_KEY": ADMIN_KEY}
    )
    (row,) = json.loads(done.stdout)["arms"]
    assert row["after"][0] is not None


def test_what_is_missing_is_said(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    code, _, err = run_arm(sqlite_client, "uniform", student, "--steps", "2", "--out", str(tmp_path / "run"))
    assert code == 1
    assert "there are 0 sampling profiles" in err
    code, _, err = run_arm(sqlite_client, "best", student, "--steps", "2")
    assert (code, "there is no arm 'best'" in err) == (1, True)


def test_what_an_arm_decides_may_not_be_asked_for_otherwise(
    sqlite_client: Client, student: Path, tmp_path: Path
) -> None:
    build(sqlite_client, tmp_path, n=12)
    steps = ("--steps", "2", "--out", str(tmp_path / "run"))
    code, _, err = run_arm(sqlite_client, "uniform", student, *steps, "--set", "forward_divergence=jsd")
    assert code == 1
    assert "forward_divergence: this arm has 'kl', asked for is 'jsd'" in err
    (tmp_path / "run.toml").write_text("checkpoint_every = 1\n")
    code, _, err = run_arm(sqlite_client, "uniform", student, str(tmp_path / "run.toml"), *steps)
    assert code == 0, err
    assert [c.step for c in sqlite_client.checkpoints("small-uniform-s0")] == [None, 1, 2]
