"""The whole distribution of a rule's draws on the present estimates, by the law that draws follow. Pure."""

from dataclasses import dataclass

import numpy as np

from app.flow.batches.drawing import REST, Subsets, weighed
from app.flow.batches.law import Law, Terms
from app.flow.batches.samplers import top
from app.flow.curricula.weighting import loss_weights
from app.flow.estimates.columns import BoolArray, FloatArray, IntArray
from app.flow.estimates.estimators import is_settled
from paced.wire import PreviewSide, Selection, TagShare

N_BINS = 20
N_TAGS = 20
N_SIMULATED = 16  # batches by which Thompson sampling, without a closed form, is estimated
NARROW = 2  # effective problems for each in a batch
USUAL_SIZE = 64  # of a batch, where the curriculum has none yet
PIECE = 8_192  # rows
ROUNDING = 1e-9  # of shares that add up to 1
EDGES = np.linspace(0.0, 1.0, N_BINS + 1)


@dataclass(frozen=True, slots=True)
class Spread:
    """By row of the pool: the estimate (NaN unknown), the chance of the first draw, and that times the loss weight."""

    pass_rate: FloatArray
    draw: FloatArray
    loss: FloatArray
    is_admitted: BoolArray

    @property
    def drawn(self) -> FloatArray:
        """Chances that add up to 1 though a stratum may be empty; all 0 where nothing can be drawn."""
        total = self.draw.sum()
        return self.draw / total if total > 0.0 else self.draw


def candidates(law: Law) -> Terms:
    """Terms of every row that may be drawn, open and cooling batches left out of account. O(N)."""
    rows = np.arange(len(law.pool))
    is_free = law.is_trained(rows)
    is_free[law.quarantined] = False
    free = rows[is_free]
    free = free[law.is_wanted(free)]
    # in pieces: arrays that fit a processor's cache are computed several times as fast
    return Terms.concatenated([law.terms(piece) for piece in np.array_split(free, len(free) // PIECE + 1)])


def spread(law: Law, terms: Terms, subsets: Subsets, batch_size: int, seed: int) -> Spread:
    """Chances of every row under a law that nobody has entered, from the terms of its candidates.

    Each stratum has its share of the chance. O(N).
    """
    n = len(law.pool)
    found = Spread(np.full(n, np.nan), np.zeros(n), np.zeros(n), np.zeros(n, np.bool_))
    found.pass_rate[terms.rows] = terms.pass_rate
    left = 1.0 - sum(stratum.share for stratum in law.rule.strata)
    parts = {**{stratum.tag: stratum.share for stratum in law.rule.strata}, REST: max(left, 0.0)}
    for name, share in parts.items():
        subset = subsets[name]
        mine = terms if subset is None else terms.take(np.isin(terms.rows, subset))
        if name == REST:
            found.is_admitted[mine.rows] = True
        if share > ROUNDING:
            _add(found, law, mine, share, batch_size, seed)
    return found


def _add(found: Spread, law: Law, terms: Terms, share: float, batch_size: int, seed: int) -> None:
    """Give these terms their share of the chance; nothing where none of them has weight."""
    if law.rule.selection == Selection.THOMPSON:
        chance = _simulated(law, terms.rows, batch_size, seed)
        found.draw[terms.rows] += share * chance
        found.loss[terms.rows] += share * chance
        return
    terms, weights, totals = weighed(law.rule, terms)
    terms, weights = terms.take(weights > 0.0), weights[weights > 0.0]
    chance = weights / weights.sum()
    found.draw[terms.rows] += share * chance
    found.loss[terms.rows] += share * chance * loss_weights(law.rule, terms.weight, chance, totals)


def _simulated(law: Law, rows: IntArray, batch_size: int, seed: int) -> FloatArray:
    rng = np.random.default_rng(seed)
    counts = np.zeros(len(rows))
    for _ in range(N_SIMULATED):
        counts[top(law.sampled_weight(rows, rng), batch_size)] += 1.0
    share: FloatArray = counts / max(float(counts.sum()), 1.0)
    return share


def side(law: Law, found: Spread, batch_size: int, warnings: list[str]) -> PreviewSide:
    """What a reader wants to know of a distribution."""
    p, drawn = found.pass_rate, found.drawn
    n_drawable = int((drawn > 0.0).sum())
    is_known = ~np.isnan(p)
    effective = float(1.0 / (drawn**2).sum()) if n_drawable else None
    return PreviewSide(
        n_admitted=int(found.is_admitted.sum()),
        n_drawable=n_drawable,
        effective_problems=effective,
        frontier_share=float(drawn[is_known & ~is_settled(p)].sum()) if n_drawable else None,
        mean_pass_rate=float((drawn[is_known] * p[is_known]).sum()) if n_drawable else None,
        draw_shares=binned(p, drawn),
        loss_shares=binned(p, found.loss),
        tags=_tags(law, drawn),
        warnings=warnings + _notes(law, found, effective, n_drawable, batch_size),
    )


def binned(pass_rate: FloatArray, mass: FloatArray) -> list[float]:
    """Shares of a mass by bin of the pass rate; all 0 where there is none."""
    is_known = ~np.isnan(pass_rate)
    counts, _ = np.histogram(pass_rate[is_known], bins=EDGES, weights=mass[is_known])
    total = counts.sum()
    shares: list[float] = (counts / total if total > 0.0 else counts).tolist()
    return shares


def _tags(law: Law, drawn: FloatArray) -> list[TagShare]:
    pool = law.pool
    skill = pool.columns.skill
    mass = np.bincount(skill, drawn, minlength=len(pool.skills))
    n_problems = np.bincount(skill, drawn > 0.0, minlength=len(pool.skills))
    largest = np.argsort(-mass, kind="stable")[:N_TAGS]
    return [
        TagShare(tag=pool.skills[place], share=float(mass[place]), n_problems=int(n_problems[place]))
        for place in largest.tolist()
        if mass[place] > 0.0
    ]


def _notes(law: Law, found: Spread, effective: float | None, n_drawable: int, size: int) -> list[str]:
    if effective is None:
        return ["nothing can be drawn: no problem inside the filters has weight; widen the band, or measure more"]
    notes = []
    if n_drawable < size:
        notes.append(f"only {n_drawable} problems have a chance: a batch of {size} will fall short")
    elif effective < NARROW * size:
        notes.append(
            f"the draw is as narrow as {effective:.0f} problems drawn evenly, and batches of {size} will repeat them; "
            "lower gamma, or make alpha and beta smaller"
        )
    empty = 1.0 - float(found.draw.sum())
    if empty > ROUNDING:
        notes.append(f"{empty:.0%} of every batch stays empty: no problem with a tag that has a share can be drawn")
    if law.rule.selection == Selection.THOMPSON:
        notes.append(f"Thompson sampling has no closed form: these are the shares of {N_SIMULATED} batches of {size}")
    return notes
