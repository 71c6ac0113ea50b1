"""Agreement with what other projects' suites assert, and with GSM8K's own solutions."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from paced.wire.grading import Verdict
from worker.grading import grade

DATA = os.environ.get("PACED_TEST_DATA")
pytestmark = pytest.mark.skipif(DATA is None, reason="set PACED_TEST_DATA to the folder that holds grader_pairs/")


def rows(name: str) -> list[dict[str, Any]]:
    with (Path(DATA or "") / name).open() as lines:
        return [json.loads(line) for line in lines]


def agrees(row: dict[str, Any], grader: str) -> bool:
    return (grade(row["pred"] or "", row["gold"], grader).verdict is Verdict.PASS) == row["expected"]


def is_choice(row: dict[str, Any]) -> bool:
    return "NativeLetters" in row.get("config", {}).get("match_types", [])


def test_math_agrees_with_other_suites() -> None:
    pairs = [row for row in rows("grader_pairs/grader_pairs.jsonl") if not row.get("flags") and not is_choice(row)]
    odd_ones = [row["id"] for row in pairs if not agrees(row, "math")]
    assert len(pairs) > 150
    assert len(odd_ones) <= 0.10 * len(pairs), odd_ones


def test_choice_agrees_with_other_suites() -> None:
    pairs = [row for row in rows("grader_pairs/grader_pairs.jsonl") if is_choice(row)]
    assert len(pairs) >= 10
    assert [row["id"] for row in pairs if not agrees(row, "choice")] == []


@pytest.mark.parametrize("grader", ["numeric", "math"])
def test_gsm8k_solutions_pass_and_their_neighbours_fail(grader: str) -> None:
    sample = list(itertools.islice(rows("gsm8k_test.jsonl"), 0, None, 4))[:300]
    finals = [row["answer"].rsplit("####", 1)[1].strip() for row in sample]
    verdicts = [grade(row["answer"], final, grader).verdict for row, final in zip(sample, finals, strict=True)]
    wrong = [
        grade(row["answer"], f"{int(final.replace(',', '')) + 1}", grader).verdict
        for row, final in zip(sample, finals, strict=True)
    ]
    assert len(sample) == 300
    assert verdicts.count(Verdict.PASS) >= 0.995 * len(sample)
    assert wrong.count(Verdict.PASS) == 0
