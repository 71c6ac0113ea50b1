"""The rollout worker: claim a lease, let the student answer, grade, report, and claim the next before this one drains.

A lease is claimed as soon as the last problem of the one before is in the engine, so the engine stays full. Every
group is of the checkpoint that its lease names: on another one the engine is drained and loads it. Nothing is lost
while a lease lives: groups wait for a service that is away. `stop` reports what is graded and releases the rest.
"""

import asyncio
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from paced.errors import PacedError
from paced.wire import Checkpoint, Lease, LeaseClaim, LeasedProblem, LeaseToken, RolloutGroup
from worker.grading import GRADER_VERSION
from worker.rollout import groups
from worker.rollout.engine import Engine, EngineDown, EngineFailure
from worker.rollout.holding import Holding
from worker.rollout.service import Line, Service
from worker.rollout.slots import Slot, Slots
from worker.rollout.tally import Tally

N_LOADS = 5  # a checkpoint on a shared disk may show up late
BACKLOG = 4  # groups in all, grading included, for each that may be in the engine
IDLE_S = 5.0

log = structlog.get_logger(__name__)


class LoopFailure(Exception):
    """The worker cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class LoopOptions:
    """What to work on, and how much at once; `grace_s` bounds each step of stopping."""

    student: str
    worker: str
    measurement_id: str | None = None
    max_problems: int = 32
    ttl_s: float = 120.0
    n_groups: int = 64
    is_until_idle: bool = False
    report_every_s: float = 0.5
    load_retry_s: float = 1.0
    grace_s: float = 3.0
    seed: int | None = None


class RolloutLoop:
    """One worker; `run` returns after `stop`, when nothing is due (`is_until_idle`), or on a failure."""

    def __init__(
        self, service: Service, engine: Engine, pool: groups.Pool, options: LoopOptions, tally: Tally | None = None
    ) -> None:
        self.tally = tally or Tally()
        self._service, self._engine, self._pool, self._options = service, engine, pool, options
        self._line = Line()
        self._slots = Slots(options.n_groups, self.tally)
        self._holdings: dict[asyncio.Task[None], Holding] = {}
        self._groups: dict[asyncio.Task[None], Slot] = {}
        self._claiming: asyncio.Task[Lease] | None = None
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Stop claiming and generating, report what is graded, release the leases."""
        self._stopped.set()

    async def run(self) -> Tally:
        """Work; `tally.failure` tells why when the worker could not go on."""
        feeding = asyncio.create_task(self._feed())
        stopping = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait({feeding, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            feeding.cancel()
            await asyncio.gather(self._cancelled(feeding), self._wind_down())
            await self._engine.stop()
        return self.tally

    async def _cancelled(self, feeding: asyncio.Task[None]) -> None:
        await asyncio.wait({feeding})
        self._note_failure(feeding)

    async def _feed(self) -> None:
        await self._engine.start()
        while True:
            lease = await self._claim()
            if lease.lease_id is not None:
                await self._work_on(lease)
            elif self._options.is_until_idle and not self._holdings:
                return
            else:
                await self._pause(IDLE_S if lease.retry_after_s is None else lease.retry_after_s)

    async def _claim(self) -> Lease:
        body = LeaseClaim(
            student=self._options.student,
            measurement_id=self._options.measurement_id,
            worker=self._options.worker,
            max_problems=self._options.max_problems,
            ttl_s=self._options.ttl_s,
        )
        # One key for all tries, and shielded: a lease that was granted is never forgotten.
        call = self._line.call(self._service.claim_lease, body, uuid.uuid4().hex)
        self._claiming = asyncio.create_task(call)
        lease = await asyncio.shield(self._claiming)
        self._claiming = None
        return lease

    async def _work_on(self, lease: Lease) -> None:
        holding = self._hold(lease)
        if holding.profile.grader_version != GRADER_VERSION:
            raise LoopFailure(
                f"profile {holding.profile.profile_id} wants grader version {holding.profile.grader_version}, this "
                f"worker has {GRADER_VERSION}: pass rates of two graders must not mix. Make a profile with "
                f"grader_version {GRADER_VERSION}, or run the worker's release that has the other."
            )
        await self._load(holding.checkpoint)
        for problem in holding.problems:
            slot = await self._slots.take()
            while len(self._groups) >= BACKLOG * self._options.n_groups:
                await asyncio.wait(self._groups, return_when=asyncio.FIRST_COMPLETED)
            if holding.is_lost:
                slot.free()
                return
            self._start(holding, problem, slot)

    def _hold(self, lease: Lease) -> Holding:
        holding = Holding(
            lease,
            self._service,
            self._line,
            self.tally,
            ttl_s=self._options.ttl_s,
            report_every_s=self._options.report_every_s,
        )
        self.tally.n_leases += 1
        task = self._spawn(holding.run())
        self._holdings[task] = holding
        task.add_done_callback(self._holdings.pop)
        log.debug("lease claimed", lease_id=holding.lease_id, n_problems=len(holding.problems))
        return holding

    async def _load(self, checkpoint: Checkpoint) -> None:
        if checkpoint.index == self.tally.checkpoint_index:
            return
        async with self._slots.drained():
            for attempt in range(N_LOADS):
                try:
                    await self._engine.load_checkpoint(checkpoint.uri)
                    break
                except EngineDown:
                    raise
                except EngineFailure as error:
                    log.warning("checkpoint not loaded", index=checkpoint.index, attempt=attempt + 1, error=str(error))
                    if attempt + 1 == N_LOADS:
                        raise
                    await asyncio.sleep(self._options.load_retry_s * 2**attempt)
        self.tally.checkpoint_index = checkpoint.index
        self.tally.n_checkpoints_loaded += 1
        log.info("checkpoint loaded", index=checkpoint.index, uri=checkpoint.uri)

    def _start(self, holding: Holding, problem: LeasedProblem, slot: Slot) -> None:
        task = self._spawn(self._group(holding, problem, slot))
        self._groups[task] = slot
        holding.groups.add(task)
        task.add_done_callback(self._groups.pop)
        task.add_done_callback(holding.groups.discard)
        task.add_done_callback(lambda _: slot.free())  # a task cancelled before its first step frees nothing itself

    async def _group(self, holding: Holding, problem: LeasedProblem, slot: Slot) -> None:
        messages, sampling = groups.ask(problem, holding.profile, self._options.seed)
        try:
            answers = await self._engine.generate(messages, sampling)
        except EngineDown:
            raise
        except EngineFailure as error:
            log.warning("no answers", problem_id=problem.problem_id, error=str(error))
            rollouts = groups.failed(problem, error)
        else:
            self.tally.n_tokens_generated += sum(answer.n_tokens for answer in answers)
            slot.free()
            rollouts = await groups.grade(self._pool, problem, holding.profile, answers)
        holding.put(
            RolloutGroup(problem_id=problem.problem_id, checkpoint_index=holding.checkpoint.index, rollouts=rollouts)
        )

    async def _pause(self, seconds: float) -> None:
        """Wait to claim again; the end of a lease may make problems due at once."""
        if self._holdings:
            await asyncio.wait(self._holdings, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(seconds)

    async def _wind_down(self) -> None:
        await self._give_back_claim()
        for task, slot in self._groups.items():
            if not slot.is_free:
                task.cancel()
        if self._groups:
            await asyncio.wait(self._groups, timeout=self._options.grace_s)
        for task in self._groups:
            task.cancel()
        for holding in self._holdings.values():
            holding.close()
        if self._holdings:
            await asyncio.wait(self._holdings, timeout=self._options.grace_s)
        for task in list(self._holdings):
            task.cancel()

    async def _give_back_claim(self) -> None:
        if self._claiming is None:
            return
        await asyncio.wait({self._claiming}, timeout=0 if self._line.is_away else self._options.grace_s)
        if not self._claiming.done() or self._claiming.exception() is not None:
            self._claiming.cancel()
            return
        lease = self._claiming.result()
        if lease.lease_id is not None and lease.token is not None:
            release = self._line.call(self._service.release_lease, lease.lease_id, LeaseToken(token=lease.token))
            await asyncio.wait({asyncio.create_task(release)}, timeout=self._options.grace_s)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._note_failure)
        return task

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if not isinstance(error, (EngineFailure, PacedError, LoopFailure)):
            log.error("unexpected failure", exc_info=error)
        if self.tally.failure is None:
            self.tally.failure = str(error) or type(error).__name__
        self._stopped.set()
