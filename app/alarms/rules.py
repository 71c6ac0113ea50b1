"""From what is measured to alarms, one function a rule. Pure."""

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.flow.estimates.estimators import FRONTIER
from paced.wire import Alarm, AlarmName, Frontier, HoldoutPoint, Severity, Workers

ENOUGH_ANSWERS = 100  # of an hour
ENOUGH_PROBLEMS = 32
FAILING = (0.05, 0.25)  # share of answers without a verdict on the student: a warning, serious
SILENT = dt.timedelta(minutes=5)  # a lease of the usual length is renewed several times in it
MANY_LOST = 3  # leases an hour
Z = 1.645  # of a central 90 % interval
BEHIND_S = (5.0, 60.0)  # of a process that follows the others'


@dataclass(frozen=True, slots=True)
class Signals:
    """All that the rules look at of one measurement; `holdout` has a point a checkpoint, oldest first."""

    measurement_id: str
    student: str
    problem_set: str
    workers: Workers
    holdout: list[HoldoutPoint]
    frontier: Frontier

    @property
    def place(self) -> str:
        """How sentences call it."""
        return f"{self.student} on {self.problem_set}"


def alarms(signals: Signals) -> list[Alarm]:
    """Every alarm of one measurement, serious ones first."""
    found = [alarm for rule in RULES if (alarm := rule(signals)) is not None]
    return serious_first(found)


def serious_first(found: list[Alarm]) -> list[Alarm]:
    """In the order in which a person should look at them."""
    return sorted(found, key=lambda alarm: alarm.severity != Severity.SERIOUS)


def behind(lag_s: float) -> Iterator[Alarm]:
    """Whether this process draws from what the others no longer believe."""
    severity = _graded(lag_s, BEHIND_S)
    if severity is not None:
        yield Alarm(
            name=AlarmName.PROCESS_BEHIND,
            severity=severity,
            measurement_id=None,
            sentence=f"This process last read what others counted {lag_s:.0f} s ago, so its draws use older estimates.",
            command="paced doctor",
        )


def workers_gone(s: Signals) -> Alarm | None:
    """Work waits, and nobody is there to take it."""
    queue, at = s.workers.queue, s.workers.at
    if not queue.is_wanted or s.workers.n_live or queue.waiting_since is None:
        return None
    seen = max((worker.last_seen_at for worker in s.workers.workers if worker.last_seen_at), default=None)
    silent = at - max(seen or queue.waiting_since, queue.waiting_since)
    if silent < SILENT:
        return None
    who = "no worker has come yet" if seen is None else f"no worker was seen for {_ago(at - seen)}"
    return _alarm(
        s,
        AlarmName.WORKERS_GONE,
        Severity.WARNING if seen is None else Severity.SERIOUS,
        f"Problems of {s.place} wait at checkpoint {queue.checkpoint_index}, which is {_ago(at - queue.waiting_since)} "
        f"old, and {who}.",
        f"paced rollout {s.student} --measurement {s.measurement_id}",
    )


def leases_lost(s: Signals) -> Alarm | None:
    """Workers that take work and do not bring it back."""
    if s.workers.n_lost < MANY_LOST:
        return None
    return _alarm(
        s,
        AlarmName.LEASES_LOST,
        Severity.WARNING,
        f"{s.workers.n_lost} leases of {s.place} ran out within the hour with answers missing: workers die, or cannot "
        "reach the service to renew.",
        f"paced workers {s.measurement_id}",
    )


def grader_failing(s: Signals) -> Alarm | None:
    """Answers that the grader does not judge."""
    return _without_verdict(s, AlarmName.GRADER_FAILING, ("timeout", "grader_error"), "time out or fail in the grader")


def rollouts_failing(s: Signals) -> Alarm | None:
    """Answers that never came to be."""
    return _without_verdict(s, AlarmName.ROLLOUTS_FAILING, ("infrastructure",), "fail before they are judged")


def _without_verdict(s: Signals, name: AlarmName, verdicts: tuple[str, ...], what: str) -> Alarm | None:
    n, n_bad = sum(s.workers.verdicts.values()), sum(s.workers.verdicts.get(verdict, 0) for verdict in verdicts)
    severity = _graded(n_bad / n, FAILING) if n >= ENOUGH_ANSWERS else None
    if severity is None:
        return None
    sentence = f"{n_bad / n:.0%} of {n:,} answers of {s.place} in the last hour {what}."
    return _alarm(s, name, severity, sentence, f"paced workers {s.measurement_id}")


def nothing_to_learn(s: Signals) -> Alarm | None:
    """Every problem is solved always, or never."""
    f = s.frontier
    if f.n_measured < ENOUGH_PROBLEMS or f.frontier_share != 0.0 or f.mean is None:
        return None
    low, high = FRONTIER
    wanted = "harder" if f.mean > (low + high) / 2 else "easier"
    return _alarm(
        s,
        AlarmName.NOTHING_TO_LEARN,
        Severity.SERIOUS,
        f"None of {f.n_measured:,} measured training problems of {s.place} is solved sometimes "
        f"({low:g} < p < {high:g}): their gradients teach next to nothing. Import {wanted} ones.",
        f"paced import {wanted}.jsonl --set {s.problem_set}",
    )


def holdout_falling(s: Signals) -> Alarm | None:
    """The newest checkpoint is worse than the one before it, by more than chance explains."""
    if len(s.holdout) < 2:
        return None
    before, after = s.holdout[-2:]
    is_whole = min(before.n_problems, after.n_problems) * 2 >= before.n_problems
    if before.se is None or after.se is None or not is_whole:
        return None
    fall, bound = before.pass_rate - after.pass_rate, Z * float(before.se**2 + after.se**2) ** 0.5
    if fall <= max(bound, 1e-9):
        return None
    return _alarm(
        s,
        AlarmName.HOLDOUT_FALLING,
        Severity.SERIOUS if fall > 2 * bound else Severity.WARNING,
        f"The hold-out pass rate of {s.place} fell from {before.pass_rate:.3f} at checkpoint "
        f"{before.checkpoint_index} to {after.pass_rate:.3f} at {after.checkpoint_index}, by more than its 90 % "
        f"interval of ±{bound:.3f}.",
        f"paced holdout {s.measurement_id}",
    )


def _alarm(s: Signals, name: AlarmName, severity: Severity, sentence: str, command: str) -> Alarm:
    return Alarm(name=name, severity=severity, measurement_id=s.measurement_id, sentence=sentence, command=command)


def _graded(value: float, bounds: tuple[float, float]) -> Severity | None:
    warning, serious = bounds
    if value < warning:
        return None
    return Severity.SERIOUS if value >= serious else Severity.WARNING


def _ago(passed: dt.timedelta) -> str:
    minutes = int(passed.total_seconds() // 60)
    if minutes < 120:
        return f"{minutes} minutes"
    return f"{minutes // 60} hours"


RULES: tuple[Callable[[Signals], Alarm | None], ...] = (
    workers_gone,
    grader_failing,
    rollouts_failing,
    nothing_to_learn,
    holdout_falling,
    leases_lost,
)
