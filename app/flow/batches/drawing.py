"""One draw: which problems may come, which do, with what weights, and why fewer came than were asked for. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from app.flow.batches.law import Law, Tally, Terms
from app.flow.batches.proposing import Pick, Proposals
from app.flow.batches.samplers import exponential_keys, generator, top
from app.flow.curricula.rule import Rule
from app.flow.curricula.weighting import Totals, loss_weights, power, retest_bonus
from app.flow.estimates.columns import FloatArray, IntArray
from app.flow.estimates.estimators import is_inside, is_settled
from paced.wire import Selection, Shortfall

LARGE = 20_000  # candidates up to which a draw looks at all of them
MIN_ROOM = 4  # candidates for each problem asked for, or a full pass is faster
REST = ""  # the stratum of whatever the shares leave open

Subsets = Mapping[str, IntArray | None]  # sorted rows that each stratum's tag admits; None is every row


@dataclass(frozen=True, slots=True)
class Draw:
    """Aligned arrays in draw order, and the shortfall if fewer came than were asked for.

    `draw_probabilities` are NaN where the selection has no closed form (Thompson); of a pool above `LARGE` their
    normaliser is estimated, with a standard error of half a per cent; it lags where much of the pool goes into open
    batches at once.
    """

    ordinals: IntArray
    problem_ids: IntArray
    pass_rates: FloatArray
    weights: FloatArray
    draw_probabilities: FloatArray
    loss_weights: FloatArray
    posteriors: FloatArray  # (size, 2)
    n_eligible: int
    n_hard_filter: int
    watermark: int
    shortfall: Shortfall | None


@dataclass(slots=True)
class Memory:
    """What draws of one pool under one rule remember, by stratum: all terms of a small one, totals of a large one."""

    terms: dict[str, tuple[int, Terms]] = field(default_factory=dict)  # as of the pool's `n_moves`
    tallies: dict[str, Tally] = field(default_factory=dict)


def draw(law: Law, subsets: Subsets, size: int, seed: int, seq: int, memory: Memory) -> Draw:
    """Draw up to `size` distinct problems: each stratum its share of them, the rest from all."""
    rng = generator(seed, seq)
    picks: list[Pick] = []
    for name, n in shares(law, size).items():
        picks.append(_pick(law, name, subsets[name], n, rng, memory))
        law.set_aside(picks[-1].terms.rows)
    terms = Terms.concatenated([pick.terms for pick in picks])
    law.put_back(terms.rows)
    pick = Pick(
        terms,
        np.concatenate([pick.draw_probability for pick in picks]),
        np.concatenate([pick.loss_weight for pick in picks]),
        picks[-1].n_eligible,
        picks[-1].n_hard_filter,
    )
    shortfall = _shortfall(law, subsets, size, terms.rows) if len(terms.rows) < size else None
    return _drawn(law, pick, law.posteriors(terms.rows), shortfall)


def draw_several(law: Law, subsets: Subsets, size: int, count: int, seed: int, seq: int, memory: Memory) -> list[Draw]:
    """The next draws in turn, from number `seq` on: those that one look at the pool gives, at most `count`, never none.

    What is drawn is what `draw` gives one by one, each draw's problems being in flight for the next.
    """
    rest, rule = subsets[REST], law.rule
    n = len(law.pool) if rest is None else len(rest)
    if count > 1 and rule.selection != Selection.THOMPSON and not rule.strata and _is_large(n, size * count):
        proposals = Proposals(law, rest, n, memory.tallies.setdefault(REST, Tally()))
        picks = proposals.picks(size, [generator(seed, seq + place) for place in range(count)])
        if picks:
            posteriors = law.posteriors(np.concatenate([pick.terms.rows for pick in picks]))
            parts = posteriors.reshape(len(picks), size, -1)
            return [_drawn(law, pick, part, None) for pick, part in zip(picks, parts, strict=True)]
    return [draw(law, subsets, size, seed, seq, memory)]


def _drawn(law: Law, pick: Pick, posteriors: FloatArray, shortfall: Shortfall | None) -> Draw:
    rows = pick.terms.rows
    return Draw(
        ordinals=rows,
        problem_ids=law.pool.problem_ids[rows],
        pass_rates=pick.terms.pass_rate,
        weights=pick.terms.weight,
        draw_probabilities=pick.draw_probability,
        loss_weights=pick.loss_weight,
        posteriors=posteriors,
        n_eligible=pick.n_eligible,
        n_hard_filter=pick.n_hard_filter,
        watermark=law.pool.watermark,
        shortfall=shortfall,
    )


def _is_large(n: int, size: int) -> bool:
    """Whether proposing is faster than looking at all."""
    return n > LARGE and n >= MIN_ROOM * size > 0


def shares(law: Law, size: int) -> dict[str, int]:
    """How many problems each stratum gives, by largest remainder; what shares leave open comes from all, last."""
    exact = {stratum.tag: stratum.share * size for stratum in law.rule.strata}
    exact[REST] = size - sum(exact.values())
    counts = {name: math.floor(wanted + 1e-9) for name, wanted in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: size - sum(counts.values())]:
        counts[name] += 1
    return counts


def _pick(
    law: Law, name: str, candidates: IntArray | None, size: int, rng: np.random.Generator, memory: Memory
) -> Pick:
    n = len(law.pool) if candidates is None else len(candidates)
    if law.rule.selection == Selection.THOMPSON:
        return _thompson(law, _all_rows(law, candidates), size, rng)
    if _is_large(n, size):
        found = Proposals(law, candidates, n, memory.tallies.setdefault(name, Tally())).pick(size, rng)
        if found is not None:
            return found
    return _full_pass(law, name, candidates, size, rng, memory)


def _full_pass(
    law: Law, name: str, candidates: IntArray | None, size: int, rng: np.random.Generator, memory: Memory
) -> Pick:
    known = memory.terms.get(name)
    if known is None or known[0] != law.pool.n_moves:
        rows = _all_rows(law, candidates)
        rows = rows[law.is_trained(rows)]
        known = law.pool.n_moves, law.terms(rows[law.is_wanted(rows)])
        memory.terms[name] = known
    terms, weights, totals = weighed(law.rule, known[1].take(~law.is_aside(known[1].rows)))
    places = exponential_keys(weights, size, rng)
    chance = weights[places] / weights.sum() if len(places) else np.empty(0)
    chosen = terms.take(places)
    n_inside = int((is_inside(terms.pass_rate) & (weights > 0.0)).sum())
    factors = loss_weights(law.rule, chosen.weight, chance, totals)
    return Pick(chosen, chance, factors, int((weights > 0.0).sum()), n_inside)


def weighed(rule: Rule, terms: Terms) -> tuple[Terms, FloatArray, Totals]:
    """Those of the terms that may be drawn, what the chance of each is a share of, and the totals over them."""
    terms = terms.take(terms.power > 0.0) if rule.retest_share == 0.0 else terms
    settled = is_settled(terms.pass_rate)
    largest = float(terms.weight.max(initial=0.0))
    powered = np.where(terms.power > 0.0, power(rule, terms.weight, largest or 1.0), 0.0)
    totals = Totals.of(terms.weight, powered, settled)
    weights = powered + retest_bonus(rule, totals) * settled
    if totals.w <= 0.0 and rule.retest_share == 0.0:
        weights = np.zeros(len(weights))  # no weight at all is said, never turned into a uniform draw
    return terms, weights, totals


def _thompson(law: Law, rows: IntArray, size: int, rng: np.random.Generator) -> Pick:
    rows = rows[law.is_open(rows)]
    terms = law.terms(rows)
    best = terms.take(top(law.sampled_weight(rows, rng), size))
    n_inside = int(is_inside(terms.pass_rate).sum())
    return Pick(best, np.full(len(best.rows), np.nan), np.ones(len(best.rows)), len(rows), n_inside)


def _all_rows(law: Law, candidates: IntArray | None) -> IntArray:
    return np.arange(len(law.pool)) if candidates is None else candidates


def _shortfall(law: Law, subsets: Subsets, size: int, drawn: IntArray) -> Shortfall:
    """Count each problem under the first reason that sets it aside."""
    pool, rows = law.pool, np.arange(len(law.pool))
    is_left = np.ones(len(rows), np.bool_)

    def count(is_reason: object) -> int:
        nonlocal is_left
        hit = is_left & np.asarray(is_reason, np.bool_)
        is_left = is_left & ~hit
        return int(hit.sum())

    rest = subsets[REST]
    terms = law.terms(rows)
    is_known = law.is_known(rows)
    return Shortfall(
        n_requested=size,
        n_returned=count(np.isin(rows, drawn)),
        n_problems=len(rows),
        n_flagged=count(~pool.is_ready),
        n_holdout=count(~law.is_trained(rows)),
        n_quarantined=count(np.isin(rows, law.quarantined)),
        n_in_flight=count(np.isin(rows, np.concatenate([_NO_ROWS, *law.recent.in_flight]))),
        n_cooling=count(np.isin(rows, np.concatenate([_NO_ROWS, *law.recent.cooling]))),
        n_unmeasured=count(~is_known),
        n_filtered=count(~law.is_wanted(rows) | (False if rest is None else ~np.isin(rows, rest))),
        n_zero_weight=count(terms.power <= 0.0 if law.rule.mode == "sample" else terms.weight <= 0.0),
        n_other_strata=int(is_left.sum()),
    )


_NO_ROWS = np.empty(0, np.int64)
