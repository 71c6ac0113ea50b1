"""Stage 4: what is known of a student's pass rates."""

from pydantic import TypeAdapter

from paced import wire
from paced.calls import Call, Pages, at, get, listed, route
from paced.errors import PacedError


class EstimateRoutes:
    """Calls on estimates and the student's progress."""

    @listed
    def estimates(
        self,
        measurement_id: str | None = None,
        *,
        curriculum_id: str | None = None,
        query: str | None = None,
        is_holdout: bool | None = None,
        with_problems: bool | None = None,
        limit: int | None = None,
    ) -> Pages[wire.ListedEstimate]:
        """Estimates by ordinal, or those that a `query` selects in its order, of a measurement or of a curriculum.

        A curriculum's have their weights, and its queries may name `weight`. `limit` a page.
        """
        asked = _asked(query, is_holdout, with_problems, limit)
        return Pages(_list_of(measurement_id, curriculum_id), wire.ListedEstimate, asked)

    @route
    def estimate_page(
        self,
        measurement_id: str | None = None,
        *,
        curriculum_id: str | None = None,
        query: str | None = None,
        is_holdout: bool | None = None,
        with_problems: bool | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Call[wire.EstimatePage]:
        """One page of the same, with the number of matches on all pages (`n_matches`)."""
        asked = {**_asked(query, is_holdout, with_problems, limit), "cursor": cursor}
        return get(_list_of(measurement_id, curriculum_id), wire.EstimatePage, **asked)

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

    @route
    def count_reviews(self, measurement_id: str) -> Call[wire.ReviewsCounted]:
        """Put the verdicts of reviews into the log, and make the estimates again from it."""
        path = at("/v1/measurements/{}/reviews/count", measurement_id)
        return Call("POST", path, wire.ReviewsCounted.model_validate_json)


def _list_of(measurement_id: str | None, curriculum_id: str | None) -> str:
    if (measurement_id is None) == (curriculum_id is None):
        raise PacedError("name either a measurement or a curriculum whose estimates are wanted")
    if curriculum_id is not None:
        return at("/v1/curricula/{}/estimates", curriculum_id)
    return at("/v1/measurements/{}/estimates", measurement_id)


def _asked(
    query: str | None, is_holdout: bool | None, with_problems: bool | None, limit: int | None
) -> dict[str, str | bool | int | None]:
    return {"query": query or None, "is_holdout": is_holdout, "with_problems": with_problems, "limit": limit}
