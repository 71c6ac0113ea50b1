"""Stage 7: runs, their metrics, and the teacher's stored texts."""

from collections.abc import Sequence

from paced import wire
from paced.calls import Call, Pages, at, get, listed, nothing, patch, post, route, send


class TrainingRoutes:
    """Calls of a training job about itself."""

    @route
    def create_run(self, body: wire.RunCreate) -> Call[wire.Run]:
        """Register a training job; the same name on the same curriculum is returned."""
        return post("/v1/runs", body, wire.Run)

    @route
    def run(self, run_id: str) -> Call[wire.Run]:
        """One training job."""
        return get(at("/v1/runs/{}", run_id), wire.Run)

    @listed
    def runs(self, curriculum_id: str | None = None) -> Pages[wire.Run]:
        """All training jobs, of one curriculum or of all."""
        return Pages("/v1/runs", wire.Run, {"curriculum_id": curriculum_id})

    @route
    def update_run(self, run_id: str, state: wire.RunState) -> Call[wire.Run]:
        """Say how a run ended."""
        return patch(at("/v1/runs/{}", run_id), wire.RunUpdate(state=state), wire.Run)

    @route
    def append_metrics(self, run_id: str, points: Sequence[wire.MetricPoint]) -> Call[None]:
        """Store metrics; a step sent again replaces the former."""
        return send("POST", at("/v1/runs/{}/metrics", run_id), wire.Metrics(points=list(points)), nothing)

    @listed
    def metrics(self, run_id: str) -> Pages[wire.MetricPoint]:
        """Metrics of a run by step."""
        return Pages(at("/v1/runs/{}/metrics", run_id), wire.MetricPoint)

    @route
    def compare_runs(
        self,
        run_ids: Sequence[str],
        metric: str = "loss",
        *,
        by: wire.Axis | str = "step",
        n_buckets: int | None = None,
        smooth: int | None = None,
    ) -> Call[wire.RunComparison]:
        """One metric of several runs laid over each other, with the pooled interval of those that differ in seeds."""
        query = {"run_id": list(run_ids), "metric": metric, "by": by, "n_buckets": n_buckets, "smooth": smooth}
        return get("/v1/runs/compare", wire.RunComparison, **query)

    @route
    def store_references(self, body: wire.TeacherReferences) -> Call[None]:
        """Store teacher texts, one a problem."""
        return send("PUT", "/v1/teacher-references", body, nothing)

    @route
    def references(self, teacher: str, problem_ids: Sequence[int]) -> Call[dict[int, wire.TeacherReference]]:
        """Stored teacher texts by problem id; problems without one are left out."""
        body = wire.TeacherReferencesQuery(teacher=teacher, problem_ids=list(problem_ids))
        return send("POST", "/v1/teacher-references/query", body, _by_problem)


def _by_problem(body: bytes) -> dict[int, wire.TeacherReference]:
    found = wire.TeacherReferences.model_validate_json(body)
    return {reference.problem_id: reference for reference in found.references}
