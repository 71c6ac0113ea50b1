"""Groups of graded answers, and what of them counts for the pass rate. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from paced.wire import ObservationSource, Outcome, Rollout, Verdict


@dataclass(frozen=True, slots=True)
class Group:
    """One measured group, ready to be counted: `n_passed` of `n_counted`, and every verdict's count."""

    problem_id: int
    checkpoint_index: int
    source: ObservationSource
    n_passed: int
    n_counted: int
    verdicts: Counter[Verdict]
    lease_id: str | None = None
    batch_id: str | None = None
    regraded_from: int | None = None

    @property
    def is_failure(self) -> bool:
        """True when no answer got a verdict on the student: nothing was learnt of the problem."""
        return self.n_counted == 0 and self.verdicts[Verdict.TRUNCATED] == 0

    @property
    def failure_reason(self) -> str:
        """Which verdicts stood in the way."""
        return ", ".join(f"{n} × {verdict.value}" for verdict, n in self.verdicts.most_common() if n)


def counted(verdicts: Counter[Verdict], *, is_truncated_fail: bool) -> tuple[int, int]:
    """(passed, counted): only pass and fail move p, and truncated as fail where the profile says so."""
    n_failed = verdicts[Verdict.FAIL] + (verdicts[Verdict.TRUNCATED] if is_truncated_fail else 0)
    return verdicts[Verdict.PASS], verdicts[Verdict.PASS] + n_failed


def from_rollouts(
    problem_id: int,
    checkpoint_index: int,
    rollouts: Sequence[Rollout],
    source: ObservationSource,
    lease_id: str,
    *,
    is_truncated_fail: bool,
) -> Group:
    """A group that a rollout worker reports."""
    verdicts = Counter(rollout.verdict for rollout in rollouts)
    n_passed, n_counted = counted(verdicts, is_truncated_fail=is_truncated_fail)
    return Group(problem_id, checkpoint_index, source, n_passed, n_counted, verdicts, lease_id=lease_id)


def from_outcome(outcome: Outcome, batch_id: str, *, is_truncated_fail: bool) -> Group:
    """A group that a trainer reports with its acknowledgement."""
    verdicts = Counter(
        {
            Verdict.PASS: outcome.n_passed,
            Verdict.FAIL: outcome.n_failed,
            Verdict.TRUNCATED: outcome.n_truncated,
        }
    )
    n_passed, n_counted = counted(verdicts, is_truncated_fail=is_truncated_fail)
    source = ObservationSource.TRAINER
    return Group(outcome.problem_id, outcome.checkpoint_index, source, n_passed, n_counted, verdicts, batch_id=batch_id)


def holdout_threshold(share: float) -> int:
    """Problems with a hold-out key (uniform on 0..65535) below this are held out."""
    return round(share * 65_536)
