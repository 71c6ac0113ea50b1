"""Stage 6: batches, drawn, read, acknowledged and explained."""

from collections.abc import Sequence
from typing import Literal

from paced import wire
from paced.calls import Call, Pages, at, get, listed, post, route, send

Include = Literal["ids", "problems"]


class BatchRoutes:
    """Calls on batches."""

    @route
    def draw_batch(
        self,
        curriculum_id: str,
        size: int,
        *,
        run_id: str | None = None,
        key: str | None = None,
        include: Include = "problems",
        replaces: str | None = None,
    ) -> Call[wire.Batch]:
        """Draw a weighted batch; the same `key` (Idempotency-Key) returns the same batch.

        `replaces`: a batch that expired unused, whose step of the run this one takes. Raises NothingEligible and
        ScheduleComplete.
        """
        body = wire.BatchRequest(size=size, run_id=run_id, include=include, replaces=replaces)
        return post(at("/v1/curricula/{}/batches", curriculum_id), body, wire.Batch, key)

    @route
    def draw_batches(
        self,
        curriculum_id: str,
        size: int,
        count: int,
        *,
        run_id: str | None = None,
        key: str | None = None,
        include: Include = "problems",
    ) -> Call[list[wire.Batch]]:
        """Draw up to `count` batches in one request, to fetch ahead: see `draw_batch`.

        Fewer come where the schedule or the problems end; the next call then raises.
        """
        body = wire.BatchesRequest(size=size, count=count, run_id=run_id, include=include)
        path = at("/v1/curricula/{}/draws", curriculum_id)
        return send("POST", path, body, lambda content: wire.Batches.model_validate_json(content).items, key)

    @route
    def preview_curriculum(self, curriculum_id: str, body: wire.CurriculumUpdate) -> Call[wire.CurriculumPreview]:
        """What a change of a curriculum would do to its draws on the present estimates; nothing is stored."""
        return post(at("/v1/curricula/{}/preview", curriculum_id), body, wire.CurriculumPreview)

    @route
    def batch(self, batch_id: str, *, include: Include = "problems") -> Call[wire.Batch]:
        """One batch as it was drawn."""
        return get(at("/v1/batches/{}", batch_id), wire.Batch, include=include)

    @listed
    def batches(
        self,
        curriculum_id: str,
        *,
        run_id: str | None = None,
        state: wire.BatchState | str | None = None,
        limit: int | None = None,
    ) -> Pages[wire.Batch]:
        """Batches of a curriculum, oldest first, ids only: all, those of a run, or those in a state; `limit` a page."""
        query = {"run_id": run_id, "state": state, "limit": limit}
        return Pages(at("/v1/curricula/{}/batches", curriculum_id), wire.Batch, query)

    @route
    def acknowledge(self, batch_id: str, outcomes: Sequence[wire.Outcome] = ()) -> Call[wire.BatchReceipt]:
        """Say that the optimiser step on a batch is done; raises BatchExpired when it came too late."""
        body = wire.BatchAck(outcomes=list(outcomes))
        return post(at("/v1/batches/{}/ack", batch_id), body, wire.BatchReceipt)

    @route
    def explain(self, batch_id: str) -> Call[wire.BatchExplanation]:
        """Why each problem of a batch was drawn."""
        return get(at("/v1/batches/{}/explain", batch_id), wire.BatchExplanation)
