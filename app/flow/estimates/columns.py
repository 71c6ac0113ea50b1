"""The flat posterior columns, in memory and in the database, and how an observation moves them. Pure."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

DISCOUNT = 0.5  # λ of the discounted Beta posterior: what a new group leaves of all older ones (method of MoPPS)
UNFITTED = 0.5  # both parameters of the Beta prior until it can be fitted (Jeffreys)
AUDITS = ("audit_n", "audit_sum", "audit_square", "audit_noise")  # of a skill: groups, sums of k/n, (k/n)², 1/n
# A group fades by 31/32 with each later one of its skill: the mean of the last 63 or so is known to 0.04, and counting
# in groups instead of checkpoints, a skill that is seldom audited does not lose its prior.
KEPT = 1 - 1 / 32
ENOUGH = 24.0  # faded groups of a measurement from which priors are fitted
SHRINK = 8.0  # groups of the whole measurement that every skill gets beside its own
STRENGTH = (0.5, 8.0)  # bounds of a + b: no prior outweighs a group of eight answers
EDGE = 0.02  # least distance of a prior's mean from 0 and 1


class _Column:
    """A field of the records, read as a view and written in place."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self.dtype = dtype

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, columns: "Columns", owner: type) -> npt.NDArray[Any]:
        view: npt.NDArray[Any] = columns.records[self._name]
        return view

    def __set__(self, columns: "Columns", values: npt.ArrayLike) -> None:
        columns.records[self._name] = values


class Columns:
    """One entry a problem, by ordinal: the first group, the newest group, discounted counts, a logit belief.

    `discounted_passed` and `discounted_failed` exclude any prior, so that a prior can change without a
    rebuild: a = prior_a + discounted_passed is the recursion a <- λa + (1-λ)prior_a + k solved for it.
    `logit_mean` to `belief_index` are the drift filter's, zero until the first counted group (see filters.py);
    `alone_mean` and `alone_variance` are the logit filter's, at the same checkpoint.
    In memory only: `skill`, the place of each problem's skill in `levels`, which holds the abilities as they are now,
    and in `audits`, which holds the sums of `AUDITS` (skills × 4); and `now_index`, the checkpoint of now (one for all,
    or one a problem).

    All that is known of a problem lies together in one record: a draw reads few problems of many, and waits for
    memory once a problem instead of once a column.
    """

    first_passed = _Column(np.int32)
    first_counted = _Column(np.int32)
    last_passed = _Column(np.int32)
    last_counted = _Column(np.int32)
    discounted_passed = _Column(np.float64)
    discounted_failed = _Column(np.float64)
    logit_mean = _Column(np.float64)
    logit_variance = _Column(np.float64)
    ability_seen = _Column(np.float64)
    belief_index = _Column(np.int32)
    alone_mean = _Column(np.float64)
    alone_variance = _Column(np.float64)
    skill = _Column(np.int32)

    def __init__(
        self, records: npt.NDArray[Any], levels: FloatArray, audits: FloatArray, now_index: IntArray | int = 0
    ) -> None:
        self.records = records
        self.levels = levels
        self.audits = audits
        self.now_index = now_index

    @classmethod
    def zeros(cls, n: int) -> Self:
        """Columns of problems never measured, with room for audits of as many skills."""
        return cls(np.zeros(n, RECORD), np.zeros(1), np.zeros((max(n, 1), len(AUDITS))))

    def __len__(self) -> int:
        """Number of problems."""
        return len(self.records)

    def take(self, rows: IntArray) -> "Columns":
        """Some rows, copied."""
        now = self.now_index
        return Columns(self.records.take(rows), self.levels, self.audits, now if isinstance(now, int) else now[rows])

    @property
    def ability(self) -> FloatArray:
        """The level of each problem's skill now."""
        levels: FloatArray = self.levels[self.skill]
        return levels

    def put(self, row: int, values: dict[str, Any]) -> None:
        """Overwrite what is stored of one row."""
        self.records[row] = (*(values[name] for name in NAMES), self.records[row]["skill"])

    @classmethod
    def of_rows(cls, rows: Sequence[dict[str, Any]]) -> Self:
        """Columns of estimate rows as the database gives them."""
        return cls.stored({name: np.array([row[name] for row in rows], RECORD[name]) for name in NAMES})

    @classmethod
    def stored(cls, arrays: dict[str, Any]) -> Self:
        """Columns from arrays of what is stored, and `skill` if it is there; abilities start at 0."""
        records = np.zeros(len(arrays[NAMES[0]]), RECORD)
        for name in RECORD.names or ():
            if name in arrays:
                records[name] = arrays[name]
        n_skills = int(records["skill"].max(initial=0)) + 1
        return cls(records, np.zeros(n_skills), np.zeros((n_skills, len(AUDITS))))


RECORD = np.dtype([(name, column.dtype) for name, column in vars(Columns).items() if isinstance(column, _Column)])
NAMES = tuple(name for name in RECORD.names or () if name != "skill")  # those that are stored


def observed(row: dict[str, Any], n_passed: int, n_counted: int) -> dict[str, Any]:
    """The counted columns of one problem after a group of `n_counted` answers of which `n_passed` passed.

    A group without counted answers changes nothing. The belief is not touched: it moves with its skill's ability.
    """
    if n_counted == 0:
        return {}
    is_first = row["first_counted"] == 0
    return {
        "first_passed": n_passed if is_first else row["first_passed"],
        "first_counted": n_counted if is_first else row["first_counted"],
        "last_passed": n_passed,
        "last_counted": n_counted,
        "discounted_passed": DISCOUNT * row["discounted_passed"] + n_passed,
        "discounted_failed": DISCOUNT * row["discounted_failed"] + n_counted - n_passed,
    }


def audited(
    sums: FloatArray, skills: IntArray, is_audit: BoolArray, n_passed: FloatArray, n_counted: FloatArray
) -> FloatArray:
    """The sums of `AUDITS` (skills × 4) after a report's groups, of which only those chosen uniformly count."""
    rate = n_passed / n_counted
    terms = (np.ones(len(rate)), rate, rate * rate, 1 / n_counted)
    added = np.stack([np.bincount(skills, is_audit * term, minlength=len(sums)) for term in terms], axis=1)
    return np.asarray(sums * KEPT ** added[:, :1] + added, np.float64)


def fitted_prior(sums: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Parameters a and b of each skill's Beta prior, from its sums of `AUDITS` (skills × 4) shrunk to the whole's.

    By moments: Var[k/n] = Var[p] (1 - E[1/n]) + μ(1-μ) E[1/n], of which the second term is binomial noise. Groups of
    one answer say nothing of Var[p]: then only the mean is fitted. Beta(1/2, 1/2) until there are `ENOUGH` groups.
    """
    whole = sums.sum(axis=0)
    if whole[0] < ENOUGH:
        return np.full(len(sums), UNFITTED), np.full(len(sums), UNFITTED)
    n, total, square, inverse = (sums + SHRINK * whole / whole[0]).T
    mean, inverse = total / n, inverse / n
    spread = (square / n - mean**2) * n / (n - 1)
    is_plural = inverse < 1 - EDGE
    variance = (spread - mean * (1 - mean) * inverse) / np.where(is_plural, 1 - inverse, 1.0)
    mean = np.clip(mean, EDGE, 1 - EDGE)
    strength = np.clip(mean * (1 - mean) / np.maximum(variance, 1e-9) - 1, *STRENGTH)
    strength = np.where(is_plural, strength, 2 * UNFITTED)
    return mean * strength, (1 - mean) * strength
