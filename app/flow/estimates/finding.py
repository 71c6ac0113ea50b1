"""Lists of estimates: a query over the pool in memory, one page of it from the database."""

import asyncio
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from app.clock import Clock
from app.errors import Invalid
from app.flow.estimates.columns import BoolArray, Columns, IntArray
from app.flow.estimates.pools import Pool, Pools
from app.flow.estimates.query import BadQuery
from app.flow.estimates.selecting import SHOWN, Readings, Weighing, needs_totals, select, words_in_sql
from app.flow.estimates.served import Served
from app.flow.estimates.store import EstimateStore, verdict_counts
from app.flow.estimates.terms import Query, Term, Words
from paced.wire import ListedEstimate

FEW = 20_000  # rows that are sifted on the event loop
MAX_KEPT = 64  # words whose rows a pool keeps
WHOLE = Query()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which page of which list. `after` is what `Found.last` said of the page before."""

    query: Query = WHOLE
    is_holdout: bool | None = None
    after: Sequence[Any] | None = None
    limit: int = 100
    with_problems: bool = False

    @property
    def whole(self) -> Query:
        """The query with the hold-out as one of its terms."""
        if self.is_holdout is None:
            return self.query
        term: Term = Words("is", ("holdout",), is_negated=not self.is_holdout)
        return replace(self.query, terms=(*self.query.terms, term))


@dataclass(frozen=True, slots=True)
class Found:
    """A page's items, how many there are on all pages, and the place where this one ends if another follows."""

    items: list[ListedEstimate]
    n_matches: int
    last: list[Any] | None


class Finder:
    """Answers queries over a measurement's problems."""

    def __init__(self, store: EstimateStore, pools: Pools, served: Served, clock: Clock) -> None:
        self._store = store
        self._pools = pools
        self._served = served
        self._clock = clock

    async def find(self, measurement_id: int, wanted: Wanted, weighing: Weighing | None = None) -> Found:
        """One page; raises BadQuery where the query asks for a weight that the list does not have."""
        _check_weight(wanted.query, weighing)
        if wanted.whole == WHOLE and weighing is None:
            return await self._plain(measurement_id, wanted)
        head = await self._store.head(measurement_id)
        pool = await self._pools.get(measurement_id, head["n_problems"], head["state_version"], head["fork_index"])
        readings = await self._readings(measurement_id, pool, head, wanted.whole, weighing)
        if len(pool) <= FEW:
            selected = select(wanted.whole, readings)
        else:
            selected = await asyncio.to_thread(select, wanted.whole, readings)
        digest = _digest(wanted.whole, weighing)
        ordinals, keys = selected.page(_place(wanted.after, digest), wanted.limit + 1)
        kept = ordinals[: wanted.limit]
        weights = None if weighing is None else weighing.weights(pool, kept)
        items = await self._items(await self._store.at(measurement_id, kept.tolist()), readings.served, wanted, weights)
        is_last = len(ordinals) <= wanted.limit
        return Found(items, len(selected.rows), None if is_last else _last(digest, keys[wanted.limit - 1], kept[-1]))

    async def _plain(self, measurement_id: int, wanted: Wanted) -> Found:
        """All problems by ordinal, straight from the database."""
        head = await self._store.head(measurement_id)
        digest = _digest(wanted.query, None)
        place = _place(wanted.after, digest)
        rows = await self._store.page(measurement_id, -1 if place is None else place[1], wanted.limit + 1)
        n_rows = max(head["n_rows"], rows[-1]["ordinal"] + 1 if rows else 0)  # an import may have added some meanwhile
        served = await self._served.counts(measurement_id, n_rows)
        items = await self._items(rows[: wanted.limit], served, wanted, None)
        is_last = len(rows) <= wanted.limit
        ordinal = items[-1].ordinal if items else 0
        return Found(items, head["n_rows"], None if is_last else _last(digest, ordinal, ordinal))

    async def _readings(
        self, measurement_id: int, pool: Pool, head: dict[str, Any], query: Query, weighing: Weighing | None
    ) -> Readings:
        found = {
            (field, value): await self._word(pool, head["problem_set"], field, value)
            for field, value in sorted(words_in_sql(query))
        }
        return Readings(
            pool=pool,
            holdout_share=head["holdout_share"],
            now=self._clock(),
            found=found,
            totals=await self._pools.totals(measurement_id, pool) if needs_totals(query) else None,
            served=await self._served.counts(
                measurement_id, len(pool), None if weighing is None else weighing.curriculum_id
            ),
            weighing=weighing,
        )

    async def _word(self, pool: Pool, problem_set: str, field: str, value: str) -> BoolArray:
        """Which rows of a pool have a word; kept for as long as no problem is added or changes its state."""
        key = (field, value)
        if key not in pool.words:
            rows = await self._store.rows_of_word(problem_set, field, value)
            if len(pool.words) >= MAX_KEPT:
                pool.words.clear()
            has_word = np.zeros(len(pool), np.bool_)
            has_word[rows[rows < len(pool)]] = True
            pool.words[key] = has_word
        return pool.words[key]

    async def _items(
        self, rows: list[dict[str, Any]], served: IntArray | None, wanted: Wanted, weights: Any
    ) -> list[ListedEstimate]:
        ids = [row["problem_id"] for row in rows]
        problems = await self._store.problems(ids) if wanted.with_problems else {}
        return [
            ListedEstimate.model_validate(
                {
                    **fields,
                    "weight": None if weights is None else float(weights[i]),
                    "n_served": 0 if served is None else int(served[fields["ordinal"]]),
                    "problem": problems.get(fields["problem_id"]),
                }
            )
            for i, fields in enumerate(described(rows))
        ]


def described(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fields of an Estimate for each estimate row."""
    columns = Columns.of_rows(rows)
    rates = SHOWN.pass_rate(columns)
    low, high = SHOWN.interval(*SHOWN.posterior(columns))
    return [
        {
            **row,
            "pass_rate": float(rates[i]) if row["first_counted"] else None,
            "interval": (float(low[i]), float(high[i])) if row["first_counted"] else None,
            "checkpoint_index": None if row["checkpoint_index"] < 0 else row["checkpoint_index"],
            "verdicts": verdict_counts(row),
        }
        for i, row in enumerate(rows)
    ]


def _check_weight(query: Query, weighing: Weighing | None) -> None:
    if weighing is None and "weight" in query.fields:
        place = next((term.place for term in query.terms if term.name == "weight"), query.sort.place)
        raise BadQuery(
            "weight is a curriculum's: ask for its list, GET /v1/curricula/{id}/estimates or --curriculum ID", place, 6
        )


def _digest(query: Query, weighing: Weighing | None) -> str:
    asked = f"{query} {weighing.curriculum_id if weighing else ''}"
    return hashlib.blake2b(asked.encode(), digest_size=6).hexdigest()


def _last(digest: str, key: float, ordinal: int) -> list[Any]:
    return [digest, float(key) if math.isfinite(key) else None, int(ordinal)]


def _place(after: Sequence[Any] | None, digest: str) -> tuple[float, int] | None:
    match after:
        case None:
            return None
        case [str() as of, None | int() | float() as key, int() as ordinal] if of == digest and 0 <= ordinal < 2**31:
            return (math.inf if key is None else float(key)), ordinal
    raise Invalid("the cursor is of another query; start again without it", code="bad_cursor")
