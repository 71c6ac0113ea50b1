"""Drawing, reading, acknowledging and explaining batches."""

import datetime as dt
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import structlog

from app.clock import Clock
from app.errors import Invalid
from app.flow.batches import body as wire_body
from app.flow.batches.drawing import Draw, Memory, draw_several
from app.flow.batches.draws import DrawStore, Seen, Stale, new_batch
from app.flow.batches.explaining import terms
from app.flow.batches.law import Law, Recent
from app.flow.batches.store import BatchStore
from app.flow.batches.subsets import pool_of, subsets_of
from app.flow.batches.summaries import BatchSummary, summary
from app.flow.curricula.rule import Rule
from app.flow.curricula.store import CurriculumStore
from app.flow.estimates.columns import FloatArray, IntArray
from app.flow.estimates.pools import Pool
from app.flow.estimates.service import EstimateService
from app.flow.problems.store import ProblemStore
from app.flow.rollouts.groups import Group, from_outcome
from app.flow.students.store import StudentStore
from app.http.idempotency import Idempotency
from paced.wire import (
    BatchAck,
    BatchesRequest,
    BatchExplanation,
    BatchReceipt,
    BatchRequest,
    BatchState,
    DrawRequest,
    ExplainedItem,
    Outcome,
    Stage,
)

log = structlog.get_logger()
N_PLANS = 64


@dataclass(frozen=True, slots=True)
class _Plan:
    """What draws of one curriculum need, for as long as nothing of it changes."""

    curriculum: dict[str, Any]
    seen: Seen
    rule: Rule
    pool: Pool
    subsets: dict[str, IntArray | None]
    memory: Memory


class BatchService:
    """Stage 6 of the flow."""

    def __init__(
        self,
        store: BatchStore,
        draws: DrawStore,
        problems: ProblemStore,
        curricula: CurriculumStore,
        estimates: EstimateService,
        students: StudentStore,
        clock: Clock,
    ) -> None:
        self._store = store
        self._draws = draws
        self._problems = problems
        self._curricula = curricula
        self._estimates = estimates
        self._students = students
        self._clock = clock
        self._plans: OrderedDict[str, _Plan] = OrderedDict()

    async def draw(self, curriculum_id: str, request: BatchRequest, identity: Idempotency) -> dict[str, Any]:
        """Draw a batch; it is stored before this returns, and the same key returns it again."""
        (batch,) = await self._draw(curriculum_id, request, identity, [identity.key])
        return batch

    async def draw_several(
        self, curriculum_id: str, request: BatchesRequest, identity: Idempotency
    ) -> list[dict[str, Any]]:
        """Draw batches one after the other, in one transaction; fewer where no more can be drawn, at least one."""
        keys = [identity.key and f"{identity.key}/{place}" for place in range(request.count)]
        return await self._draw(curriculum_id, request, identity, keys)

    async def _draw(
        self, curriculum_id: str, request: DrawRequest, identity: Idempotency, keys: list[str | None]
    ) -> list[dict[str, Any]]:
        now = self._clock()
        for attempt in itertools.count():
            plan = self._plans.get(curriculum_id)
            if plan is None or not self._estimates.is_current(plan.curriculum["measurement_id"], plan.pool):
                plan = await self._planned(curriculum_id)
            try:
                # planned anew for this request, a set that an import keeps growing must not hold it up for ever
                seen = replace(plan.seen, may_grow=attempt > 0)
                rows = await self._draw_by(plan, seen, request, identity, keys, now)
                break
            except Stale:
                self._plans.pop(curriculum_id, None)
        return await self._public(rows, now, with_problems=request.include == "problems")

    async def _planned(self, curriculum_id: str) -> _Plan:
        curriculum = await self._curricula.get(curriculum_id)
        rule = Rule.model_validate(curriculum["rule"])
        pool = await pool_of(self._estimates, curriculum)
        subsets = await subsets_of(self._estimates, curriculum["measurement_id"], pool, rule)
        plan = _Plan(curriculum, Seen.of(curriculum), rule, pool, subsets, Memory())
        self._plans[curriculum_id] = plan
        while len(self._plans) > N_PLANS:
            self._plans.popitem(last=False)
        return plan

    async def _draw_by(
        self,
        plan: _Plan,
        seen: Seen,
        request: DrawRequest,
        identity: Idempotency,
        keys: list[str | None],
        now: dt.datetime,
    ) -> list[dict[str, Any]]:
        curriculum, pool, rule = plan.curriculum, plan.pool, plan.rule
        share, seed = curriculum["holdout_share"], curriculum["seed"]
        n_trained = pool.n_trained(share)

        @contextmanager
        def drawing() -> Iterator[Callable[[int, Recent, int], list[Draw]]]:
            def draw_next(seq: int, recent: Recent, count: int) -> list[Draw]:
                if request.size > n_trained:
                    raise _too_large(request.size, curriculum["problem_set"], len(pool), n_trained)
                law.follow(recent)
                return draw_several(law, plan.subsets, request.size, count, seed, seq, plan.memory)

            with Law(pool, rule, share, now) as law:
                yield draw_next

        made = [new_batch(curriculum, request.run_id, key, rule.batch_ttl_s, now) for key in keys]
        replaces = request.replaces if isinstance(request, BatchRequest) else None
        rows = await self._draws.draw(made, identity, seen, rule, drawing, replaces)
        for row in rows:
            log.info("drawn", batch_id=row["batch_id"], curriculum_id=row["curriculum_id"], size=row["size"])
        return rows

    async def get(self, batch_id: str, *, with_problems: bool) -> dict[str, Any]:
        """One batch as it was drawn."""
        row = await self._store.get(batch_id)
        (batch,) = await self._public([row], self._clock(), with_problems=with_problems)
        return batch

    async def page(
        self, curriculum_id: str, run_id: str | None, state: BatchState | None, after: int | None, limit: int
    ) -> list[dict[str, Any]]:
        """Batches of a curriculum, oldest first, each with its draw number `seq`."""
        await self._curricula.get(curriculum_id)
        rows = await self._store.page(curriculum_id, run_id, state, -1 if after is None else after, limit)
        now = self._clock()
        return [{**wire_body.fields(row, now, None), "seq": row["seq"]} for row in rows]

    async def newest(
        self, curriculum_id: str, below: int | None, limit: int, run_id: str | None = None
    ) -> list[BatchSummary]:
        """Batches of a curriculum (and run) below a draw number, newest first."""
        rows = await self._store.newest(curriculum_id, below, limit, run_id)
        now = self._clock()
        return [summary(row, now) for row in rows]

    async def loss_weights(self, run_id: str, limit: int) -> list[tuple[int, Stage, FloatArray]]:
        """(step, stage, loss weights) of the newest batches of a run, the newest first."""
        return await self._store.loss_weights(run_id, limit)

    async def acknowledge(self, batch_id: str, ack: BatchAck) -> BatchReceipt:
        """Close a batch; its outcomes are counted once."""
        row = await self._store.get(batch_id)
        curriculum = await self._curricula.get(row["curriculum_id"])
        profile = await self._students.profile(curriculum["profile_id"])
        latest = (await self._students.get(curriculum["student"])).latest_checkpoint
        _check_outcomes(ack.outcomes, -1 if latest is None else latest.index)
        groups: list[Group] = [
            from_outcome(outcome, batch_id, is_truncated_fail=profile.is_truncated_fail) for outcome in ack.outcomes
        ]
        is_replay = await self._store.acknowledge(batch_id, curriculum["measurement_id"], groups, self._clock())
        n_outcomes = 0 if is_replay else len(groups)
        return BatchReceipt(
            batch_id=batch_id, state=BatchState.ACKNOWLEDGED, n_outcomes=n_outcomes, is_replay=is_replay
        )

    async def summary(self, batch_id: str) -> BatchSummary:
        """One batch in a line."""
        return summary(await self._store.get(batch_id), self._clock())

    async def explain(self, batch_id: str, *, with_observations: bool = True) -> BatchExplanation:
        """The rule and terms behind each item, from what was stored at the draw."""
        row = await self._store.get(batch_id)
        rule = await self._curricula.rule_at(row["curriculum_id"], row["version"])
        curriculum = await self._curricula.get(row["curriculum_id"])
        ids = wire_body.unpacked(row, "problem_ids").tolist()
        number, known = curriculum["measurement_id"], ids if with_observations else []
        seen = await self._estimates.observations(number, known, row["watermark"])
        items = [
            ExplainedItem(**fields, observations=seen.get(fields["problem_id"], [])) for fields in terms(row, rule)
        ]
        return BatchExplanation(
            batch_id=batch_id,
            curriculum_id=row["curriculum_id"],
            curriculum_version=row["version"],
            estimator=rule.estimator,
            kernel=rule.kernel,
            gamma=rule.gamma,
            mode=rule.mode,
            n_eligible=row["n_eligible"],
            n_hard_filter=row["n_hard_filter"],
            items=items,
        )

    async def _public(
        self, rows: list[dict[str, Any]], now: dt.datetime, *, with_problems: bool
    ) -> list[dict[str, Any]]:
        if not with_problems:
            return [wire_body.fields(row, now, None) for row in rows]
        ids = [wire_body.unpacked(row, "problem_ids").tolist() for row in rows]
        texts = {text["problem_id"]: text for text in await self._problems.by_id([i for mine in ids for i in mine])}
        return [
            wire_body.fields(row, now, [texts[problem_id] for problem_id in mine])
            for row, mine in zip(rows, ids, strict=True)
        ]


def _too_large(size: int, problem_set: str, n_problems: int, n_trained: int) -> Invalid:
    return Invalid(
        f"a batch of {size} is larger than the pool: set {problem_set!r} has {n_problems} problems, "
        f"{n_problems - n_trained} of them held out or flagged; ask for at most {n_trained}",
        code="batch_larger_than_pool",
        n_trained=n_trained,
    )


def _check_outcomes(outcomes: list[Outcome], latest_index: int) -> None:
    ids = [outcome.problem_id for outcome in outcomes]
    if len(set(ids)) < len(ids):
        raise Invalid("a problem stands twice in the outcomes; add its counts up", code="duplicate_group")
    for outcome in outcomes:
        if outcome.n_passed + outcome.n_failed + outcome.n_truncated == 0:
            raise Invalid(f"the outcome of problem {outcome.problem_id} counts no answers", code="empty_outcome")
        if outcome.checkpoint_index > latest_index:
            raise Invalid(
                f"the outcome of problem {outcome.problem_id} names checkpoint {outcome.checkpoint_index}, the newest "
                f"is {latest_index}; register the weights that answered, or name the ones they came from",
                code="unknown_checkpoint",
            )
