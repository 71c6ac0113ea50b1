"""A pool of grading processes with a deadline a task: what hangs, dies or eats memory is killed and replaced.

One thread a process waits on its socket and nothing else; nothing is judged in a thread or in the event loop.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import NamedTuple, Self

from paced.wire.grading import Grader, GradingPolicy, Verdict

from .base import DEFAULT_POLICY, Grade
from .judge import MAX_CHARS, checked_name, max_reference
from .process import GradingProcess, LostProcessError
from .stats import PoolStats, Tally

N_STARTS = 3  # attempts in a row to start a process before a task goes without a verdict
CLOSED = "the grader pool was closed"


class _Task(NamedTuple):
    text: str
    answer: str
    grader: Grader
    policy: GradingPolicy
    future: Future[Grade]


class GraderPool:
    """Grades in `n_workers` processes; `async with` starts and ends them.

    `deadline_s` counts from when a process takes the task, never in the queue. `memory_mb` bounds what a process may
    take beyond what it has when idle. After `max_tasks_per_worker` a process makes way for a fresh one. `graders`
    replaces graders of the registry by functions at dotted paths, `module:function`.
    """

    def __init__(
        self,
        n_workers: int,
        deadline_s: float = 5.0,
        memory_mb: int = 1024,
        max_tasks_per_worker: int = 20_000,
        graders: Mapping[str, str] | None = None,
    ) -> None:
        """Check the settings; nothing starts yet. Raises ValueError where one is not positive."""
        if n_workers < 1 or deadline_s <= 0 or memory_mb < 1 or max_tasks_per_worker < 1:
            raise ValueError("n_workers, deadline_s, memory_mb and max_tasks_per_worker must be positive")
        self.deadline_s = deadline_s
        self._memory_mb = memory_mb
        self._max_tasks = max_tasks_per_worker
        self._graders = dict(graders or {})
        self._tally = Tally(memory_mb)
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._processes: set[GradingProcess] = set()
        self._is_open = False
        self._is_closing = threading.Event()
        self._starts: list[Future[bool]] = [Future() for _ in range(n_workers)]
        self._threads = [
            threading.Thread(target=self._serve, args=(start,), name=f"grader-{i}", daemon=True)
            for i, start in enumerate(self._starts)
        ]

    async def __aenter__(self) -> Self:
        """Start the processes and wait for them. Raises RuntimeError where none starts."""
        self._is_open = True
        for thread in self._threads:
            thread.start()
        try:
            if any(await asyncio.gather(*map(asyncio.wrap_future, self._starts))):
                return self
        except BaseException:
            await self.close()
            raise
        await self.close()
        raise RuntimeError("no grading process could be started; the reason is on standard error")

    async def __aexit__(self, *_: object) -> None:
        """Close the pool."""
        await self.close()

    async def grade(self, text: str, answer: str, grader: str, policy: GradingPolicy = DEFAULT_POLICY) -> Grade:
        """Judge one answer under a policy; never raises for content. A lost process gives the verdict infrastructure.

        Raises ValueError for an unknown grader, RuntimeError on a pool that is not open.
        """
        name = checked_name(grader)
        task = _Task(text[-MAX_CHARS:], answer[: max_reference(name) + 1], name, policy, Future())
        with self._lock:  # no task may slip in behind the closing of the queue
            if not self._is_open:
                raise RuntimeError("the grader pool is not open: use it inside `async with`")
            self._tasks.put(task)
        return await asyncio.wrap_future(task.future)

    @property
    def pids(self) -> list[int]:
        """Process ids of the children, for operators and tests."""
        with self._lock:
            return [process.pid for process in self._processes]

    def stats(self) -> PoolStats:
        """Return what the pool has done so far: counts, seconds by grader, the slowest answers."""
        return self._tally.snapshot(n_waiting=self._tasks.qsize())

    async def close(self) -> None:
        """Kill every process and wait for the threads; what waits or is in hand gets the verdict infrastructure."""
        with self._lock:
            self._is_open = False
            self._is_closing.set()
            processes = list(self._processes)
        with contextlib.suppress(queue.Empty):
            while True:
                self._give_up(self._tasks.get_nowait())
        for _ in self._threads:
            self._tasks.put(None)
        for process in processes:
            process.interrupt()
        await asyncio.to_thread(self._join)

    def _give_up(self, task: _Task | None) -> None:
        if task is not None and task.future.set_running_or_notify_cancel():
            task.future.set_result(Grade(Verdict.INFRASTRUCTURE, None, 0.0, CLOSED))

    def _join(self) -> None:
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _serve(self, start: Future[bool]) -> None:
        """Own one process: hand it task after task, and replace it when it is lost or spent."""
        process = self._start()
        start.set_result(process is not None)
        while (task := self._tasks.get()) is not None:
            if not task.future.set_running_or_notify_cancel():
                continue
            try:
                grade, process = self._judge(process, task)
            except Exception as error:  # a task must never be left without an answer
                grade = Grade(Verdict.INFRASTRUCTURE, None, 0.0, f"{type(error).__name__}: {error}")
                self._retire(process)
                process = None
            self._tally.add(task.grader, task.text, grade)
            task.future.set_result(grade)
            if process is None:
                process = self._start()
        self._retire(process)

    def _judge(self, process: GradingProcess | None, task: _Task) -> tuple[Grade, GradingProcess | None]:
        """Return the grade, and the process where it can go on."""
        if process is not None and not process.is_alive:  # killed while idle: no fault of this task
            self._tally.count_replaced()
            self._retire(process)
            process = None
        process = process or self._start()
        if process is None:
            detail = CLOSED if self._is_closing.is_set() else "no grading process could start"
            return Grade(Verdict.INFRASTRUCTURE, None, 0.0, detail), None
        try:
            grade, is_fit = process.ask(task.text, task.answer, task.grader, task.policy, self.deadline_s)
        except LostProcessError as error:
            detail = CLOSED if self._is_closing.is_set() else str(error)
            grade, is_fit = Grade(Verdict.INFRASTRUCTURE, None, 0.0, detail), False
        if is_fit and process.n_tasks < self._max_tasks:
            return grade, process
        if not process.is_alive:
            self._tally.count_replaced()
        self._retire(process)
        return grade, None

    def _start(self) -> GradingProcess | None:
        """Return a process that is ready, or None where none starts or the pool closes."""
        for attempt in range(N_STARTS):
            if self._is_closing.wait(timeout=0.5 * attempt):
                return None
            process = None
            try:
                process = GradingProcess(self._memory_mb, self._graders)
                with self._lock:
                    self._processes.add(process)
                if not self._is_closing.is_set():
                    process.wait_ready()
                    return process
            except (LostProcessError, OSError):  # OSError: no file descriptor or process left to have
                pass
            self._retire(process)
        return None

    def _retire(self, process: GradingProcess | None) -> None:
        if process is not None:
            with self._lock:
                self._processes.discard(process)
            process.kill()
