"""Gathers what the rules look at; nothing of it is stored."""

from app.alarms.rules import Signals, alarms, behind, serious_first
from app.flow.estimates.following import Follower
from app.flow.estimates.history import History
from app.flow.estimates.service import EstimateService
from app.flow.rollouts.measurements import measurement_number
from app.flow.rollouts.service import RolloutService
from app.flow.rollouts.workers import Active
from paced.wire import Alarm, Workers

PATIENCE_S = 10.0  # for counts of old checkpoints, which are kept; those of the newest come first


class AlarmService:
    """Beside the flow: looks at every stage."""

    def __init__(
        self, rollouts: RolloutService, estimates: EstimateService, history: History, follower: Follower | None
    ) -> None:
        self._rollouts = rollouts
        self._estimates = estimates
        self._history = history
        self._follower = follower

    async def is_watched(self, measurement_id: str) -> bool:
        """Whether the rules look at it: someone worked on it, or made a checkpoint of its student, within a day."""
        return any(active.measurement_id == measurement_id for active in await self._rollouts.active())

    async def check(
        self, measurement_id: str | None = None, *, workers: Workers | None = None, patience_s: float = PATIENCE_S
    ) -> list[Alarm]:
        """Alarms of one measurement, or of all on which someone worked within a day; serious ones first.

        `workers` are those of the one measurement, where they are known already.
        """
        found = [] if self._follower is None or measurement_id is not None else list(behind(self._follower.lag_s))
        for active in await self._rollouts.active():
            if measurement_id in (None, active.measurement_id):
                seen = workers or await self._rollouts.workers(active.measurement_id, is_timed=False)
                found += alarms(await self._signals(active, seen, patience_s))
        return serious_first(found)

    async def _signals(self, active: Active, workers: Workers, patience_s: float) -> Signals:
        number = measurement_number(active.measurement_id)
        spreads, _ = await self._history.spreads(number, patience_s)
        return Signals(
            measurement_id=active.measurement_id,
            student=active.student,
            problem_set=active.problem_set,
            workers=workers,
            holdout=[spread.holdout for spread in spreads if spread.holdout is not None],
            frontier=await self._estimates.frontier(number),
        )
