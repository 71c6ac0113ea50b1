"""Looking again at what was answered: new verdicts on stored answers, and the verdicts in doubt."""

from collections.abc import Sequence

import structlog

from app.clock import Clock
from app.flow.rollouts.disputes import DisputeStore
from app.flow.rollouts.regrading import RegradingStore
from app.flow.rollouts.reviews import ReviewStore
from paced.wire import (
    Dispute,
    DisputeKind,
    RegradeReceipt,
    RegradeReport,
    Review,
    ReviewCreate,
    StoredGroup,
    StoredRollout,
)

log = structlog.get_logger()


class ReviewService:
    """Stage 3 of the flow, on stored answers."""

    def __init__(self, regrading: RegradingStore, disputes: DisputeStore, reviews: ReviewStore, clock: Clock) -> None:
        self._regrading = regrading
        self._reviews = reviews
        self._disputes = disputes
        self._clock = clock

    async def groups(
        self, measurement_id: int, missing_in: int | None, after: int | None, limit: int
    ) -> list[StoredGroup]:
        """Stored answers, oldest first."""
        return await self._regrading.page(measurement_id, missing_in, -1 if after is None else after, limit)

    async def answers(self, observation_ids: Sequence[int]) -> dict[int, list[StoredRollout]]:
        """Stored answers of some observations, each in its order; those without any are left out."""
        return await self._regrading.answers(observation_ids)

    async def regrade(self, measurement_id: int, body: RegradeReport) -> RegradeReceipt:
        """Count regraded groups, each once."""
        receipt = await self._regrading.take(measurement_id, body.groups, self._clock())
        log.info("regraded", **receipt.model_dump())
        return receipt

    async def disputes(self, measurement_id: int, kind: DisputeKind, after: int | None, limit: int) -> list[Dispute]:
        """Verdicts in doubt."""
        return await self._disputes.page(measurement_id, kind, -1 if after is None else after, limit)

    async def review(self, measurement_id: int, body: ReviewCreate) -> Review:
        """Keep what someone says of a stored answer."""
        made = await self._reviews.add(measurement_id, body, self._clock())
        log.info("reviewed", observation_id=made.observation_id, position=made.position, by=made.decided_by)
        return made

    async def reviews(self, measurement_id: int, after: int | None, limit: int) -> list[Review]:
        """Reviews, oldest first."""
        return await self._reviews.page(measurement_id, -1 if after is None else after, limit)

    async def newest_reviews(self, measurement_id: int, limit: int) -> list[Review]:
        """The reviews made last, newest first."""
        return await self._reviews.newest(measurement_id, limit)

    async def n_waiting(self, measurement_id: int) -> tuple[int, int]:
        """Reviews that are not counted yet, and all."""
        return await self._reviews.n_waiting(measurement_id)
