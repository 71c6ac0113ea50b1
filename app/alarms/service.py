"""Gathers what the rules look at; nothing of it is stored."""

from app.alarms.rules import Signals, alarms, behind, serious_first
from app.flow.estimates.following import Follower
from app.flow.estimates.service import EstimateService
from app.flow.rollouts.measurements import measurement_number
from app.flow.rollouts.service import RolloutService
from paced.wire import Alarm

N_CHECKPOINTS = 4  # back from the newest, among which the last two with a measured hold-out are sought


class AlarmService:
    """Beside the flow: looks at every stage."""

    def __init__(self, rollouts: RolloutService, estimates: EstimateService, follower: Follower | None) -> None:
        self._rollouts = rollouts
        self._estimates = estimates
        self._follower = follower

    async def check(self, measurement_id: str | None = None) -> list[Alarm]:
        """Alarms of one measurement, or of all on which someone worked within a day; serious ones first."""
        found = [] if self._follower is None or measurement_id is not None else list(behind(self._follower.lag_s))
        for active in await self._rollouts.active():
            if measurement_id in (None, active.measurement_id):
                found += alarms(await self._signals(active.measurement_id, active.student, active.problem_set))
        return serious_first(found)

    async def _signals(self, measurement_id: str, student: str, problem_set: str) -> Signals:
        number = measurement_number(measurement_id)
        workers = await self._rollouts.workers(measurement_id)
        newest = workers.queue.checkpoint_index or 0
        return Signals(
            measurement_id=measurement_id,
            student=student,
            problem_set=problem_set,
            workers=workers,
            holdout=await self._estimates.holdout(number, max(0, newest - N_CHECKPOINTS)),
            frontier=await self._estimates.frontier(number),
        )
