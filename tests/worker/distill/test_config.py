"""Settings from a file and from flags, and what is said of wrong ones."""

from pathlib import Path

import pytest

from paced.stream import count_steps
from paced.wire import Stage, StagePlan
from worker.distill.config import FREE_FIELDS, DistillConfig, load_config, parse_setting
from worker.distill.errors import ConfigRefused
from worker.distill.stages import is_stage_start

BASE = {"curriculum_id": "cur_1", "student": Path("model")}


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('curriculum_id = "cur_1"\nstudent = "model"\nlearning_rate = 1e-4\nbetas = [0.8, 0.9]\nseed = 3\n')
    config = load_config(file, {"seed": 5, "learning_rate": None})
    assert (config.learning_rate, config.seed, config.betas) == (1e-4, 5, (0.8, 0.9))


def test_every_wrong_setting_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('student = "model"\nlearning_rat = 1e-4\nbatch_size = 0\n')
    with pytest.raises(ConfigRefused) as caught:
        load_config(file, {"teacher_context": "no place for it"})
    for name in ("curriculum_id: Field required", "learning_rat: Extra inputs", "batch_size: ", str(file)):
        assert name in str(caught.value)
    with pytest.raises(ConfigRefused, match=r"teacher_context must hold \{prompt\}"):
        load_config(None, {**BASE, "teacher_context": "no place for it"})
    with pytest.raises(ConfigRefused, match="cannot be read as TOML"):
        load_config(tmp_path / "absent.toml", {})


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("warmup_steps=5", ("warmup_steps", 5)),
        ("betas=[0.9, 0.95]", ("betas", [0.9, 0.95])),
        ("drop_wrong_references=false", ("drop_wrong_references", False)),
        ("teacher_context={prompt} = {answer}", ("teacher_context", "{prompt} = {answer}")),
    ],
)
def test_any_setting_from_the_command_line(text: str, pair: tuple[str, object]) -> None:
    assert parse_setting(text) == pair


def test_a_setting_without_value_is_refused() -> None:
    with pytest.raises(ConfigRefused, match="write NAME=VALUE"):
        parse_setting("warmup_steps")


def test_the_identity_leaves_out_what_computes_the_same() -> None:
    assert DistillConfig.model_fields.keys() >= FREE_FIELDS
    same = DistillConfig(**BASE, micro_batch_size=2, save_every=7, device="cpu", wait_s=1)
    assert same.identity() == DistillConfig(**BASE).identity()
    assert DistillConfig(**BASE, warmup_steps=1).identity() != same.identity()
    assert same.identity()["student"] == str(Path("model").resolve())


def test_wrong_teacher_texts_are_dropped_for_the_self_teacher_alone() -> None:
    assert DistillConfig(**BASE).is_dropping_wrong(is_self=True)
    assert not DistillConfig(**BASE).is_dropping_wrong(is_self=False)
    assert DistillConfig(**BASE, drop_wrong_references=True).is_dropping_wrong(is_self=False)


def test_where_stages_begin_and_end() -> None:
    plan = [StagePlan(stage=Stage.FORWARD_KL, steps=2), StagePlan(stage=Stage.REVERSE_KL, steps=3)]
    assert [step for step in range(8) if is_stage_start(plan, step)] == [2, 5]
    assert count_steps(plan) == 5
    open_ended = [plan[0], StagePlan(stage=Stage.REVERSE_KL)]
    assert [step for step in range(8) if is_stage_start(open_ended, step)] == [2]
    assert count_steps(open_ended) is None


def test_teachers_by_tag_are_short_or_tables(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        'curriculum_id = "cur_1"\nstudent = "model"\nteacher_model = "big"\n[teachers]\ndefault = "self"\n'
        'algebra = "http://gpu:8000/v1"\ngeometry = {at = "http://gpu:8001/v1", model = "other", key_env = "KEY"}\n'
    )
    found = load_config(file, {}).by_tag
    assert found["default"].is_self
    assert (found["algebra"].model, found["algebra"].key_env) == ("big", "PACED_TEACHER_KEY")
    assert (found["geometry"].model, found["geometry"].key_env) == ("other", "KEY")
    config = load_config(file, {})
    assert [config.top_k_of(found[tag]) for tag in ("default", "algebra")] == [None, 20]
    assert DistillConfig(**BASE).by_tag.keys() == {"default"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"teachers": {"algebra": "self"}}, "must name one 'default'"),
        ({"teachers": {"default": "self"}, "teacher": "big"}, "not both"),
        ({"teacher": "http://gpu/v1", "temperature": 0.6}, "must be 1 with a teacher behind a URL"),
        ({"teacher": "big", "teacher_top_k": 8, "teacher_sharpness": 2.0}, "must be 1"),
        ({"teacher": "http://gpu/v1", "forward_divergence": "akl"}, "whole distribution"),
    ],
)
def test_what_a_served_teacher_cannot_do_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigRefused, match=words):
        load_config(None, {**BASE, **settings})


def test_the_divergence_of_each_stage() -> None:
    config = DistillConfig(**BASE, forward_divergence="jsd")
    assert [config.divergence_of(stage) for stage in Stage] == ["jsd", "reverse_kl"]
    assert [DistillConfig(**BASE).divergence_of(stage) for stage in Stage] == ["forward_kl", "reverse_kl"]
