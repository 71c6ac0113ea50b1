"""The pool: what hangs, dies or eats memory is killed and replaced, and every task is answered once."""

import asyncio
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from paced.wire.grading import GraderName, Verdict
from worker.grading import GraderPool, grade

HOSTILE = {GraderName.EXACT: "tests.worker.grading.hostile_graders:by_order"}
ROOT = Path(__file__).parents[3]


async def test_two_thousand_queued_at_once_are_all_answered() -> None:
    async with GraderPool(2) as pool:
        tasks = [pool.grade(f"\\boxed{{{i}}}", str(i - i % 2), "numeric") for i in range(2000)]
        grades = await asyncio.gather(*tasks)
        stats = pool.stats()
    assert [g.extracted for g in grades] == [str(i) for i in range(2000)]
    assert [g.verdict for g in grades] == [Verdict.PASS, Verdict.FAIL] * 1000
    assert (stats.n_graded, stats.n_timeouts, stats.n_replaced, stats.n_waiting) == (2000, 0, 0, 0)
    assert stats.n_by_grader == {GraderName.NUMERIC: 2000}
    assert stats.n_by_verdict == {Verdict.PASS: 1000, Verdict.FAIL: 1000}


async def test_a_nested_power_is_killed_in_time_and_the_rest_finish() -> None:
    async with GraderPool(2, deadline_s=1.5) as pool:
        start = time.perf_counter()
        power = asyncio.create_task(pool.grade(r"\boxed{9^{9^{9^9}}}", "x+1", "math"))
        rest = await asyncio.gather(*(pool.grade(r"\boxed{1+x}", "x+1", "math") for _ in range(50)))
        assert time.perf_counter() - start < 5.0
        assert {g.verdict for g in rest} == {Verdict.PASS}
        killed = await power
        assert (killed.verdict, killed.extracted) == (Verdict.TIMEOUT, None)
        assert 1.5 <= killed.seconds < 3.0
        again = await asyncio.gather(*(pool.grade("5", "5", "math") for _ in range(4)))
        assert {g.verdict for g in again} == {Verdict.PASS}
        stats = pool.stats()
    assert (stats.n_timeouts, stats.n_replaced, stats.n_graded) == (1, 1, 55)
    assert stats.slowest[0].grader is GraderName.MATH
    assert stats.slowest[0].head == r"\boxed{9^{9^{9^9}}}"


async def test_the_pool_sees_the_verdicts_of_this_process() -> None:
    answers = [
        "x+1",
        "1+x",
        r"\frac{1}{2}",
        "0.5",
        r"2\sqrt{2}",
        "(1,2)",
        "no idea",
        "5\0",
        "\ud800",
        r"\left(" * 10_000,
    ]
    here = [grade(text, "0.5", "math") for text in answers]
    async with GraderPool(1) as pool:
        there = await asyncio.gather(*(pool.grade(text, "0.5", "math") for text in answers))
    assert [(g.verdict, g.extracted, g.detail) for g in there] == [(g.verdict, g.extracted, g.detail) for g in here]
    assert {g.verdict for g in here} == {Verdict.PASS, Verdict.FAIL}


async def test_a_lost_process_gives_no_verdict_and_others_finish() -> None:
    async with GraderPool(2, graders=HOSTILE) as pool:
        crash, *rest = await asyncio.gather(
            pool.grade("exit", "a", "exact"), *(pool.grade("a", "a", "exact") for _ in range(20))
        )
        stats = pool.stats()
    assert crash.verdict is Verdict.INFRASTRUCTURE
    assert crash.detail == "the grading process died: exit code 3"
    assert {g.verdict for g in rest} == {Verdict.PASS}
    assert (stats.n_replaced, stats.n_by_verdict[Verdict.INFRASTRUCTURE]) == (1, 1)


@pytest.mark.parametrize("order", ["hang", "spin"])
async def test_waiting_in_the_queue_does_not_count(order: str) -> None:
    async with GraderPool(1, deadline_s=1.5, graders=HOSTILE) as pool:
        start = time.perf_counter()
        hung, *slow = await asyncio.gather(
            pool.grade(order, "a", "exact"), *(pool.grade("sleep 0.5", "a", "exact") for _ in range(6))
        )
        waited = time.perf_counter() - start
    assert hung.verdict is Verdict.TIMEOUT
    assert {g.verdict for g in slow} == {Verdict.FAIL}
    assert waited > 4.5  # the last of them waited thrice the deadline
    assert all(0.5 <= g.seconds < 1.5 for g in slow)


async def test_a_killed_process_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with GraderPool(1, deadline_s=0.5, graders=HOSTILE) as pool:
        assert len(list(tmp_path.iterdir())) == 1
        assert (await pool.grade("hang", "a", "exact")).verdict is Verdict.TIMEOUT
    assert list(tmp_path.iterdir()) == []


async def test_memory_is_bounded() -> None:
    async with GraderPool(1, deadline_s=20, memory_mb=256, graders=HOSTILE) as pool:
        hungry = await pool.grade("allocate", "a", "exact")
        (pid,) = pool.pids
        assert psutil.Process(pid).memory_info().rss < 512 << 20
        after = await pool.grade("a", "a", "exact")
        stats = pool.stats()
    assert (stats.n_out_of_memory, stats.memory_mb) == (1, 256)
    assert hungry.verdict is Verdict.GRADER_ERROR
    assert (hungry.detail or "").startswith("MemoryError")
    assert after.verdict is Verdict.PASS


async def test_a_formula_without_end_gives_no_verdict() -> None:
    async with GraderPool(1, deadline_s=2, memory_mb=256) as pool:
        hungry = await pool.grade(r"\boxed{3^{3^{3^3}}}", "x+1", "math")
        after = await pool.grade("5", "5", "math")
    assert hungry.verdict in {Verdict.TIMEOUT, Verdict.GRADER_ERROR, Verdict.INFRASTRUCTURE}
    assert after.verdict is Verdict.PASS


async def test_a_raising_grader_keeps_its_process() -> None:
    async with GraderPool(1, graders=HOSTILE) as pool:
        before = pool.pids
        result = await pool.grade("raise", "a", "exact")
        assert pool.pids == before
    assert (result.verdict, result.detail) == (Verdict.GRADER_ERROR, "RuntimeError: the grader is broken")


async def test_a_process_killed_while_idle_costs_no_task_its_verdict() -> None:
    async with GraderPool(1) as pool:
        child = psutil.Process(pool.pids[0])
        child.kill()
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)
        result = await pool.grade("5", "5", "numeric")
        stats = pool.stats()
    assert result.verdict is Verdict.PASS
    assert stats.n_replaced == 1


async def test_processes_make_way_after_their_share_of_tasks() -> None:
    async with GraderPool(1, max_tasks_per_worker=2, graders=HOSTILE) as pool:
        pids = [(await pool.grade("pid", "", "exact")).extracted for _ in range(2)]
        pids = [(await pool.grade("pid", "a", "exact")).extracted for _ in range(5)]
        assert pool.stats().n_replaced == 0  # planned, not lost
    assert len(set(pids)) == 3


async def test_closing_answers_what_is_left_and_leaves_no_process() -> None:
    async with GraderPool(2, deadline_s=60, graders=HOSTILE) as pool:
        pids = pool.pids
        tasks = [asyncio.create_task(pool.grade("hang", "a", "exact")) for _ in range(6)]
        await asyncio.sleep(0.2)
    grades = await asyncio.gather(*tasks)
    assert [(g.verdict, g.detail) for g in grades] == [(Verdict.INFRASTRUCTURE, "the grader pool was closed")] * 6
    assert not any(psutil.pid_exists(pid) for pid in pids)
    with pytest.raises(RuntimeError, match="not open"):
        await pool.grade("a", "a", "exact")


async def test_a_cancelled_caller_does_not_stop_the_pool() -> None:
    async with GraderPool(1, deadline_s=20, graders=HOSTILE) as pool:
        tasks = [asyncio.create_task(pool.grade("sleep 2", "a", "exact")) for _ in range(5)]
        await asyncio.sleep(0.5)
        for task in tasks:
            task.cancel()
        assert (await pool.grade("a", "a", "exact")).verdict is Verdict.PASS
        assert pool.stats().n_graded == 2  # the one in hand and ours; the waiting ones were dropped


async def test_a_pool_that_cannot_start_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="standard error"):
        async with GraderPool(1, graders={GraderName.EXACT: "no_such_module:judge"}):
            pytest.fail("started")
    assert "no_such_module" in capfd.readouterr().err


@pytest.mark.parametrize(
    "settings", [{"n_workers": 0}, {"n_workers": 1, "deadline_s": 0}, {"n_workers": 1, "memory_mb": 0}]
)
def test_senseless_settings_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        GraderPool(**settings)


async def test_an_unknown_grader_is_a_callers_mistake() -> None:
    async with GraderPool(1) as pool:
        with pytest.raises(ValueError, match="telepathy"):
            await pool.grade("5", "5", "telepathy")


SCRIPT = """
import asyncio, sys
from worker.grading import GraderPool
print("imported", flush=True)
async def main():
    graders = {"exact": "tests.worker.grading.hostile_graders:by_order"}
    async with GraderPool(2, deadline_s=600, graders=graders) as pool:
        task = asyncio.create_task(pool.grade("spin", "a", "exact"))
        print(*pool.pids, flush=True)
        print((await pool.grade("a", "a", "exact")).verdict, flush=True)
        if "wait" in sys.argv:
            await task
asyncio.run(main())
"""


def _start_script(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    script = tmp_path / "no_main_guard.py"
    script.write_text(textwrap.dedent(SCRIPT))
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    command = [sys.executable, str(script), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path})


def test_a_script_without_a_main_guard_is_not_run_again(tmp_path: Path) -> None:
    with _start_script(tmp_path) as script:
        out, _ = script.communicate(timeout=60)
    lines = out.splitlines()
    assert (script.returncode, lines[0], lines[2:]) == (0, "imported", ["pass"])


def test_no_process_outlives_a_killed_parent(tmp_path: Path) -> None:
    with _start_script(tmp_path, "wait") as script:
        assert script.stdout is not None
        _, pids, verdict = (script.stdout.readline().split() for _ in range(3))
        assert verdict == ["pass"]
        children = [psutil.Process(int(pid)) for pid in pids]
        script.kill()
        script.wait()
        _, alive = psutil.wait_procs(children, timeout=5)
    assert len(children) == 2
    assert alive == []


def test_a_child_imports_nothing_heavy() -> None:
    code = "import sys, worker.grading.child; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"torch", "vllm", "transformers", "sympy", "math_verify", "numpy"} & set(out.split())
