"""Stage 4: what is known of a student's pass rates."""

from pydantic import TypeAdapter

from paced import wire
from paced.calls import Call, Pages, at, get, listed, route


class EstimateRoutes:
    """Calls on estimates and the student's progress."""

    @listed
    def estimates(
        self, measurement_id: str, *, is_holdout: bool | None = None, limit: int | None = None
    ) -> Pages[wire.Estimate]:
        """Estimates of a measurement by ordinal, of the hold-out, of the rest, or of all; `limit` a page."""
        query = {"is_holdout": is_holdout, "limit": limit}
        return Pages(at("/v1/measurements/{}/estimates", measurement_id), wire.Estimate, query)

    @route
    def estimate(self, measurement_id: str, problem_id: int) -> Call[wire.ProblemEstimate]:
        """One estimate with its observations."""
        return get(at("/v1/measurements/{}/estimates/{}", measurement_id, problem_id), wire.ProblemEstimate)

    @route
    def holdout(self, measurement_id: str) -> Call[list[wire.HoldoutPoint]]:
        """Hold-out pass rate at each measured checkpoint."""
        read = TypeAdapter(list[wire.HoldoutPoint]).validate_json
        return Call("GET", at("/v1/measurements/{}/holdout", measurement_id), read)

    @route
    def frontier(self, measurement_id: str) -> Call[wire.Frontier]:
        """Histogram of the training problems' newest pass rates."""
        return get(at("/v1/measurements/{}/frontier", measurement_id), wire.Frontier)
