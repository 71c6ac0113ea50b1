"""Entries of reasoning-gym, scored by their own datasets."""

import builtins
import json
from typing import Any

import pytest

from paced.wire.grading import Verdict
from worker.grading import grade

ENTRY = {"source_dataset": "leg_counting", "answer": "22", "metadata": {"source_index": 0}}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("<answer>22</answer>", Verdict.PASS),
        (r"So \boxed{22}", Verdict.PASS),
        ("The answer is 22", Verdict.PASS),
        ("<answer>22</answer> or <answer>23</answer>", Verdict.FAIL),
        ("<answer>there are 22 legs</answer>", Verdict.FAIL),  # a part of the score only
    ],
)
def test_the_dataset_scores(text: str, verdict: Verdict) -> None:
    pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym")
    assert grade(text, json.dumps(ENTRY), "reasoning_gym").verdict is verdict


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("answer", ["22", "{}", "[]", json.dumps(ENTRY | {"source_dataset": "no_such_set"})])
def test_a_reference_that_is_no_entry_gives_no_verdict(answer: str) -> None:
    pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym")
    result = grade("22", answer, "reasoning_gym")
    assert result.verdict is Verdict.GRADER_ERROR
    assert "reference answer" in (result.detail or "")


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "reasoning_gym":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    result = grade("22", json.dumps(ENTRY), "reasoning_gym")
    assert result.verdict is Verdict.GRADER_ERROR
    assert "pip install reasoning-gym" in (result.detail or "")
