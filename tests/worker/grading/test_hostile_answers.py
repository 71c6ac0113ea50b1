"""Answers made to break a grader: none passes, none outlasts its deadline, and the pool goes on."""

import base64
import zlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from paced.wire.grading import Verdict
from worker.grading import GraderPool, grade

DEADLINE_S = 1.5
BOMB = zlib.compress(b"0" * (1 << 30), 9)  # a gigabyte in one megabyte
HOSTILE = {
    "50 MB of digits": "7" * 50_000_000,
    "50 MB of prose": "it is so " * 5_500_000,
    "50 MB of open boxes": r"\boxed{" * 7_000_000,
    "a bomb as text": BOMB.decode("latin-1"),
    "a bomb in base64": base64.b64encode(BOMB).decode(),
    "a bomb in a box": rf"\boxed{{{base64.b64encode(BOMB)[:15_000].decode()}}}",
    "a tower of powers": "9^9^9^9",
    "a boxed tower of powers": r"\boxed{9^{9^{9^9}}}",
    "10,000 open brackets": r"\left(" * 10_000,
    "boxed brackets": r"\boxed{" + r"\left(" * 1_600 + "x" + r"\right)" * 1_600 + "}",
    "39 brackets deep": rf"\boxed{{{'(' * 39}x{')' * 39}}}",
    "nested fractions": r"\boxed{" + r"\frac{1}{1+" * 38 + "x" + "}" * 38 + "}",
    "NUL bytes": "5\0" * 100,
    "half a surrogate pair": "5 \ud800",
    "half a surrogate pair in a box": "\\boxed{5\udfff}",
    "a factorial of a factorial": r"\boxed{(10^{9}!)!}",
    "a power that fills memory": r"\boxed{2^{10^{12}}}",
    "a product that expands": r"\boxed{(a+b+c+d+e+f+g+h)^{200}}",
    "a sum without end": r"\boxed{\sum_{k=1}^{10^{12}} k^{k}}",
    "a long list": rf"\boxed{{{','.join(['1'] * 9_000)}}}",
    "many minus signs": rf"\boxed{{{'-' * 15_000}5}}",
    "many plus-minus signs": r"\boxed{" + r"\pm " * 3_000 + "5}",
    "many dollars": "$" * 19_000,
    "a matrix of a thousand cells": r"\boxed{\begin{pmatrix}" + "&".join(["x"] * 5_000) + r"\end{pmatrix}}",
    "many unions": r"\boxed{" + r"(0,1)\cup " * 1_500 + "(0,1)}",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[GraderPool]:
    async with GraderPool(1, deadline_s=DEADLINE_S, memory_mb=512) as pool:
        yield pool


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("answer", ["x+1", "5"])
@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_answer_never_passes_and_never_outlasts_its_deadline(
    name: str, answer: str, pool: GraderPool
) -> None:
    result = await pool.grade(HOSTILE[name], answer, "math")
    assert result.verdict is not Verdict.PASS
    assert result.seconds < DEADLINE_S + 1
    after = await pool.grade("1+x", "x+1", "math")
    assert after.verdict is Verdict.PASS


@pytest.mark.parametrize("grader", ["numeric", "choice", "exact"])
@pytest.mark.parametrize("name", HOSTILE)
def test_the_other_graders_need_no_deadline(name: str, grader: str) -> None:
    result = grade(HOSTILE[name], "B" if grader == "choice" else "4", grader)
    assert result.verdict is Verdict.FAIL
    assert result.seconds < 1


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
async def test_a_hostile_reference_gives_no_pass_either(pool: GraderPool) -> None:
    for name, hostile in HOSTILE.items():
        result = await pool.grade("x+1", hostile, "math")
        assert result.verdict is not Verdict.PASS, name
        assert result.seconds < DEADLINE_S + 1, name
