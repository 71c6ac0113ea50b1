"""Draws from a large pool by looking at proposed problems only: one draw in rounds, or several in one round. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from app.flow.batches.law import N_CENSUS, Law, Tally, Terms
from app.flow.batches.samplers import distinct, n_proposals, rejection
from app.flow.curricula.weighting import loss_weights, retest_bonus
from app.flow.estimates.columns import FloatArray, IntArray
from app.flow.estimates.estimators import is_inside, is_settled

AT_ONCE = 16_384  # proposals weighed together: beyond, temporaries cost more than calls do


@dataclass(frozen=True, slots=True)
class Pick:
    """Problems of one stratum of a draw, in draw order, and what they were picked from."""

    terms: Terms
    draw_probability: FloatArray
    loss_weight: FloatArray
    n_eligible: int
    n_hard_filter: int


class Proposals:
    """Rows proposed uniformly from `n` candidates (None: the whole pool), taken in proportion to their weight."""

    def __init__(self, law: Law, candidates: IntArray | None, n: int, tally: Tally) -> None:
        self._law = law
        self._candidates = candidates
        self._n = n
        self._tally = tally
        self._taken: list[Terms] = []
        if tally.n_seen == 0.0 or tally.totals(n)[0].w <= 0.0:  # nothing had a weight yet: look again
            self._look(np.random.default_rng(n).integers(0, n, N_CENSUS))
        self._totals, self._n_inside = tally.totals(n)
        self._bonus = retest_bonus(law.rule, self._totals)
        self._mass = self._totals.power + self._bonus * self._totals.n_settled

    def pick(self, size: int, rng: np.random.Generator) -> Pick | None:
        """One draw, or None where too few of the proposed are taken."""
        if self._totals.w <= 0.0:
            return None
        found = rejection(self._n, size, self._accept, rng, self._chance)
        if found is None:
            return None
        terms = Terms.concatenated(self._taken).take(found)
        (pick,) = self._picks(terms, size)
        return pick

    def picks(self, size: int, rngs: Sequence[np.random.Generator]) -> list[Pick]:
        """Draws one after the other, each by its generator, up to the first that would need a second round.

        They are those that `pick` gives one by one, with each draw's problems set aside for the next; the marks are
        as before at the end.
        """
        if self._totals.w <= 0.0:
            return []
        each = n_proposals(size, self._chance)
        rngs = rngs[: max(1, AT_ONCE // each)]
        both = np.concatenate([rng.random(each) for rng in rngs]) * self._n
        rows = both.astype(np.int64)
        places = self._accept(rows, both - rows)
        terms = self._taken[-1]
        chosen: list[IntArray] = []
        for start, end in pairwise(np.searchsorted(places, np.arange(len(rngs) + 1) * each).tolist()):
            is_free = np.flatnonzero(~self._law.is_aside(terms.rows[start:end]))
            first = distinct(terms.rows[start:end][is_free])
            if len(first) < size:
                break
            chosen.append(start + is_free[first[:size]])
            self._law.set_aside(terms.rows[chosen[-1]])
        if not chosen:
            return []
        together = terms.take(np.concatenate(chosen))
        self._law.put_back(together.rows)
        return self._picks(together, size)

    @property
    def _chance(self) -> float:
        return self._mass / (self._n * (1.0 + self._bonus))

    def _look(self, places: IntArray) -> tuple[IntArray, Terms]:
        rows = places if self._candidates is None else self._candidates[places]
        is_open = np.flatnonzero(self._law.is_open(rows))
        terms = self._law.terms(rows[is_open])
        self._tally.add(len(rows), terms)
        return is_open, terms

    def _accept(self, places: IntArray, numbers: FloatArray) -> IntArray:
        is_open, terms = self._look(places)
        is_taken = np.flatnonzero(numbers[is_open] * (1.0 + self._bonus) < self._likely(terms))
        self._taken.append(terms.take(is_taken))
        return is_open[is_taken]

    def _likely(self, terms: Terms) -> FloatArray:
        """What the chance of each is a share of."""
        return terms.power + self._bonus * is_settled(terms.pass_rate) if self._bonus else terms.power

    def _picks(self, terms: Terms, size: int) -> list[Pick]:
        """Consecutive draws; what one takes is no part of what the next is picked from."""
        likely, picks = self._likely(terms), []
        mass, totals, n_inside = self._mass, self._totals, self._n_inside
        for start in range(0, len(terms.rows), size):
            part = terms.take(slice(start, start + size))
            chance = likely[start : start + size] / mass
            factors = loss_weights(self._law.rule, part.weight, chance, totals)
            picks.append(Pick(part, chance, factors, round(totals.n), n_inside))
            n_inside -= int(is_inside(part.pass_rate).sum())
            mass -= float(likely[start : start + size].sum())
            totals = replace(totals, w=totals.w - float(part.weight.sum()), n=totals.n - size)
        return picks
