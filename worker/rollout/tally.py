"""What a worker has done so far."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from paced.wire import RolloutGroup


@dataclass(slots=True)
class Tally:
    """Counters of one run; groups, rollouts, tokens and verdicts are those that the service took."""

    n_leases: int = 0
    n_leases_lost: int = 0
    n_leases_released: int = 0
    n_groups: int = 0
    n_groups_lost: int = 0
    n_rollouts: int = 0
    n_tokens: int = 0
    n_tokens_generated: int = 0
    n_checkpoints_loaded: int = 0
    n_in_flight: int = 0
    checkpoint_index: int | None = None
    verdicts: Counter[str] = field(default_factory=Counter)
    failure: str | None = None
    grading: dict[str, Any] = field(default_factory=dict)  # the grader pool's own counts, at the end
    started_at: float = field(default_factory=time.monotonic)
    _busy_s: float = 0.0
    _busy_since: float | None = None

    def count_reported(self, group: RolloutGroup) -> None:
        """The service took this group."""
        self.n_groups += 1
        self.n_rollouts += len(group.rollouts)
        self.n_tokens += sum(rollout.n_tokens for rollout in group.rollouts)
        self.verdicts.update(rollout.verdict.value for rollout in group.rollouts)

    def enter(self) -> None:
        """A prompt goes to the engine."""
        if self.n_in_flight == 0:
            self._busy_since = time.monotonic()
        self.n_in_flight += 1

    def leave(self) -> None:
        """A prompt comes back from the engine."""
        self.n_in_flight -= 1
        if self.n_in_flight == 0 and self._busy_since is not None:
            self._busy_s += time.monotonic() - self._busy_since
            self._busy_since = None

    @property
    def busy_s(self) -> float:
        """Seconds with at least one prompt in the engine."""
        return self._busy_s + (0.0 if self._busy_since is None else time.monotonic() - self._busy_since)

    @property
    def tokens_per_s(self) -> float:
        """Tokens generated a busy second."""
        return self.n_tokens_generated / self.busy_s if self.busy_s > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Everything, for `--json` and log lines."""
        return {
            "n_leases": self.n_leases,
            "n_leases_lost": self.n_leases_lost,
            "n_leases_released": self.n_leases_released,
            "n_groups": self.n_groups,
            "n_groups_lost": self.n_groups_lost,
            "n_rollouts": self.n_rollouts,
            "n_tokens": self.n_tokens,
            "n_checkpoints_loaded": self.n_checkpoints_loaded,
            "checkpoint_index": self.checkpoint_index,
            "verdicts": dict(self.verdicts),
            "tokens_per_s": round(self.tokens_per_s, 1),
            "elapsed_s": round(time.monotonic() - self.started_at, 2),
            "grading": self.grading,
            "failure": self.failure,
        }
