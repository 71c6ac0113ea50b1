"""What is known of a pool: the service's own columns, moved by its own functions as answers are counted. Pure."""

import numpy as np

from app.flow.estimates.columns import AUDITS, NAMES, BoolArray, Columns, FloatArray, IntArray, audited, observed
from app.flow.estimates.filters import Abilities, Beliefs, LoneBeliefs, observe, observe_alone
from app.flow.estimates.pools import Pool
from app.flow.rollouts.reroll import AUDIT_SHARE


class Known:
    """An in-memory pool of problems, none of them held out, by the number of their skill."""

    def __init__(self, skills: IntArray, n_skills: int) -> None:
        n = len(skills)
        self._skills = skills
        self._abilities = Abilities.prior(n_skills)
        self._measured_at = np.full(n, -1)
        columns = Columns.zeros(n)
        columns.audits, columns.levels, columns.skill = np.zeros((n_skills, len(AUDITS))), np.zeros(n_skills), skills
        self.pool = Pool(
            problem_ids=np.arange(n),
            holdout_keys=np.full(n, 65_535),
            is_ready=np.ones(n, np.bool_),
            n_groups=np.zeros(n, np.int64),
            quarantined_until=np.zeros(n),
            columns=columns,
            skills=[str(number) for number in range(n_skills)],
            watermark=0,
            state_version=0,
        )

    def due(self, size: int, rng: np.random.Generator) -> tuple[IntArray, BoolArray]:
        """Up to `size` rows to measure next, a quarter uniformly (the second array says which), others oldest."""
        n_audit = int(size * AUDIT_SHARE)
        age = self._measured_at + 0.5 * rng.random(len(self._measured_at))
        oldest = np.argpartition(age, size - n_audit)[: size - n_audit]
        audit = rng.choice(len(age), n_audit, replace=False)
        rows = np.unique(np.concatenate([oldest, audit]))
        return rows, np.isin(rows, audit)

    def count(self, rows: IntArray, is_audit: BoolArray, n_passed: FloatArray, n_answers: int, checkpoint: int) -> None:
        """Take up one group of answers of each row, all written by one checkpoint."""
        columns, skills = self.pool.columns, self._skills[rows]
        before, n = columns.take(rows), np.full(len(rows), float(n_answers))
        alone_mean, alone_variance = observe_alone(LoneBeliefs.of(before), n_passed, n, checkpoint)
        found, self._abilities = observe(Beliefs.of(before), self._abilities, skills, n_passed, n, checkpoint)
        for row, k in zip(rows.tolist(), n_passed.astype(int).tolist(), strict=True):
            values = {name: getattr(columns, name)[row] for name in NAMES}
            columns.put(row, {**values, **observed(values, k, n_answers)})
        columns.audits = audited(columns.audits, skills, is_audit, n_passed, n)
        columns.logit_mean[rows], columns.logit_variance[rows] = found.mean, found.variance
        columns.ability_seen[rows], columns.belief_index[rows] = found.ability_seen, found.index
        columns.alone_mean[rows], columns.alone_variance[rows] = alone_mean, alone_variance
        columns.levels, columns.now_index = self._abilities.level, checkpoint
        self._measured_at[rows] = checkpoint
        self.pool.n_groups[rows] += 1
        self.pool.n_moves += 1
