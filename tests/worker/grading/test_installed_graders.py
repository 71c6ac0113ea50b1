"""`user:NAME`: an entry point of an installed package, found in the grading process."""

import asyncio
import os
from pathlib import Path

import pytest

from paced.wire.grading import GradingPolicy, Verdict
from worker.grading import GraderPool, grade

MODULE = """
def same_length(text, answer, policy):
    return len(text) == len(answer)

def shows(text, answer, policy):
    return policy.order == "kept", text.upper()

def broken(text, answer, policy):
    return 0.5
"""
ENTRY_POINTS = """
[paced.graders]
same-length = graders_for_tests:same_length
shows = graders_for_tests:shows
broken = graders_for_tests:broken
gone = graders_for_tests:gone
twice = graders_for_tests:shows
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package as an installer leaves it, on the path of grading processes; a second one repeats a name."""
    (tmp_path / "graders_for_tests.py").write_text(MODULE)
    _dist_info(tmp_path, "graders-for-tests", ENTRY_POINTS)
    _dist_info(tmp_path, "other-graders", "[paced.graders]\ntwice = graders_for_tests:shows\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))


def _dist_info(folder: Path, name: str, entry_points: str) -> None:
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.mark.usefixtures("installed")
async def test_the_pool_judges_with_an_installed_grader() -> None:
    async with GraderPool(1) as pool:
        right, wrong, shown = await asyncio.gather(
            pool.grade("abc", "xyz", "user:same-length"),
            pool.grade("abc", "wxyz", "user:same-length"),
            pool.grade("abc", "xyz", "user:shows", GradingPolicy(order="kept")),
        )
        stats = pool.stats()
    assert (right.verdict, wrong.verdict) == (Verdict.PASS, Verdict.FAIL)
    assert (shown.verdict, shown.extracted) == (Verdict.PASS, "ABC")
    assert stats.n_by_grader == {"user:same-length": 2, "user:shows": 1}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone", ["graders-for-tests", "graders_for_tests:gone", "does not load"]),
        ("twice", ["graders-for-tests", "other-graders", "keep one"]),
        ("broken", ["user:broken returned 0.5"]),
        ("absent", ["no package installed here declares the entry point 'absent'", "paced.graders"]),
    ],
)
async def test_a_grader_that_is_not_usable_gives_no_verdict(name: str, words: list[str]) -> None:
    async with GraderPool(1) as pool:
        result = await pool.grade("abc", "xyz", f"user:{name}")
    assert result.verdict is Verdict.GRADER_ERROR
    assert all(word in (result.detail or "") for word in words), result.detail


@pytest.mark.parametrize("name", ["user:", "user:a b", "user:" + "x" * 65, "User:x"])
def test_a_senseless_name_is_a_callers_mistake(name: str) -> None:
    with pytest.raises(ValueError, match="not a valid"):
        grade("5", "5", name)
