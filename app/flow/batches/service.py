"""Drawing, reading, acknowledging and explaining batches."""

import datetime as dt
import itertools
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import structlog

from app.clock import Clock
from app.errors import Invalid
from app.flow.batches import body as wire_body
from app.flow.batches.drawing import REST, Draw, Memory, draw
from app.flow.batches.explaining import terms
from app.flow.batches.law import Law, Recent
from app.flow.batches.store import BatchStore, Seen, Stale, new_batch
from app.flow.curricula.rule import Rule
from app.flow.curricula.store import CurriculumStore
from app.flow.estimates.columns import IntArray
from app.flow.estimates.pools import Pool
from app.flow.estimates.service import EstimateService
from app.flow.rollouts.groups import Group, from_outcome
from app.flow.students.store import StudentStore
from app.http.idempotency import Idempotency
from paced.wire import (
    BatchAck,
    BatchExplanation,
    BatchReceipt,
    BatchRequest,
    BatchState,
    ExplainedItem,
    Outcome,
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
        curricula: CurriculumStore,
        estimates: EstimateService,
        students: StudentStore,
        clock: Clock,
    ) -> None:
        self._store = store
        self._curricula = curricula
        self._estimates = estimates
        self._students = students
        self._clock = clock
        self._plans: OrderedDict[str, _Plan] = OrderedDict()

    async def draw(self, curriculum_id: str, request: BatchRequest, identity: Idempotency) -> dict[str, Any]:
        """Draw a batch; it is stored before this returns, and the same key returns it again."""
        now = self._clock()
        for attempt in itertools.count():
            plan = self._plans.get(curriculum_id)
            if plan is None or not self._estimates.is_current(plan.curriculum["measurement_id"], plan.pool):
                plan = await self._planned(curriculum_id)
            try:
                # planned anew for this request, a set that an import keeps growing must not hold it up for ever
                row = await self._draw(plan, replace(plan.seen, may_grow=attempt > 0), request, identity, now)
                break
            except Stale:
                self._plans.pop(curriculum_id, None)
        return await self._public(row, now, with_problems=request.include == "problems")

    async def _planned(self, curriculum_id: str) -> _Plan:
        curriculum = await self._curricula.get(curriculum_id)
        rule = Rule.model_validate(curriculum["rule"])
        number, f = curriculum["measurement_id"], rule.filters
        versions = curriculum["state_version"], curriculum["fork_index"]
        pool = await self._estimates.pool(number, curriculum["n_problems"], *versions)
        admitted = await self._estimates.subset(number, pool, f.tags, f.sources)
        subsets: dict[str, IntArray | None] = {REST: admitted}
        for stratum in rule.strata:
            rows = await self._estimates.subset(number, pool, [stratum.tag], f.sources)
            subsets[stratum.tag] = _both(rows, admitted)
        plan = _Plan(curriculum, Seen.of(curriculum), rule, pool, subsets, Memory())
        self._plans[curriculum_id] = plan
        while len(self._plans) > N_PLANS:
            self._plans.popitem(last=False)
        return plan

    async def _draw(
        self, plan: _Plan, seen: Seen, request: BatchRequest, identity: Idempotency, now: dt.datetime
    ) -> dict[str, Any]:
        curriculum, pool, rule = plan.curriculum, plan.pool, plan.rule
        share, seed = curriculum["holdout_share"], curriculum["seed"]
        n_trained = pool.n_trained(share)

        def compose(seq: int, recent: Recent) -> Draw:
            if request.size > n_trained:
                raise _too_large(request.size, curriculum["problem_set"], len(pool), n_trained)
            law = Law(pool, rule, share, recent, now)
            return draw(law, plan.subsets, request.size, seed, seq, plan.memory)

        values = new_batch(curriculum, request.run_id, request.size, rule.batch_ttl_s, now)
        row = await self._store.draw(values, identity, seen, rule, compose)
        log.info("drawn", batch_id=row["batch_id"], curriculum_id=row["curriculum_id"], size=row["size"])
        return row

    async def get(self, batch_id: str, *, with_problems: bool) -> dict[str, Any]:
        """One batch as it was drawn."""
        return await self._public(await self._store.get(batch_id), self._clock(), with_problems=with_problems)

    async def page(
        self, curriculum_id: str, run_id: str | None, state: BatchState | None, after: int | None, limit: int
    ) -> list[dict[str, Any]]:
        """Batches of a curriculum, oldest first, each with its draw number `seq`."""
        await self._curricula.get(curriculum_id)
        rows = await self._store.page(curriculum_id, run_id, state, -1 if after is None else after, limit)
        now = self._clock()
        return [{**wire_body.fields(row, now, None), "seq": row["seq"]} for row in rows]

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

    async def explain(self, batch_id: str) -> BatchExplanation:
        """The rule and terms behind each item, from what was stored at the draw."""
        row = await self._store.get(batch_id)
        rule = await self._curricula.rule_at(row["curriculum_id"], row["version"])
        curriculum = await self._curricula.get(row["curriculum_id"])
        ids = wire_body.unpacked(row, "problem_ids").tolist()
        seen = await self._estimates.observations(curriculum["measurement_id"], ids, row["watermark"])
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

    async def _public(self, row: dict[str, Any], now: dt.datetime, *, with_problems: bool) -> dict[str, Any]:
        problems = None
        if with_problems:
            problems = await self._store.problems(wire_body.unpacked(row, "problem_ids").tolist())
        return wire_body.fields(row, now, problems)


def _both(rows: IntArray | None, others: IntArray | None) -> IntArray | None:
    if rows is None or others is None:
        return others if rows is None else rows
    return np.intersect1d(rows, others)


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
