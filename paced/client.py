"""The sync client: one method a route, wire models in and out."""

import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self, TypeVar, cast
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, TypeAdapter

from paced import wire
from paced.transport import Transport

DEFAULT_URL = "http://127.0.0.1:8420"
M = TypeVar("M", bound=BaseModel)


class Client:
    """Talks to one service; use it as a context manager, share it between threads.

    `url` falls back to PACED_URL, `key` to PACED_KEY, then to the first admin key of a service on this
    machine (`admin.key` in PACED_DATA, or in ./data). Calls raise the errors of `paced.errors`.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 60.0,
        retry_s: float = 120.0,
        http_transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._transport = Transport(
            url := url or os.environ.get("PACED_URL", DEFAULT_URL),
            key or os.environ.get("PACED_KEY") or _local_key(url),
            timeout_s=timeout_s,
            retry_s=retry_s,
            http_transport=http_transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the pooled connections."""
        self._transport.close()

    @property
    def url(self) -> str:
        """Where the service is."""
        return self._transport.url

    @property
    def key(self) -> str | None:
        """The API key in use."""
        return self._transport.key

    # -- 1 problems

    def create_problem_set(self, body: wire.ProblemSetCreate) -> wire.ProblemSet:
        """Create a problem set; the same one again is returned."""
        return self._post("/v1/problem-sets", body, wire.ProblemSet)

    def problem_set(self, name: str) -> wire.ProblemSet:
        """One problem set."""
        return self._get(f"/v1/problem-sets/{quote(name)}", wire.ProblemSet)

    def problem_sets(self) -> Iterator[wire.ProblemSet]:
        """All problem sets."""
        return self._paged("/v1/problem-sets", wire.ProblemSet)

    def problems(self, problem_set: str, **filters: Any) -> Iterator[wire.Problem]:
        """Problems of a set by ordinal; filters `tag`, `search` and `state`."""
        return self._paged(f"/v1/problem-sets/{quote(problem_set)}/problems", wire.Problem, **filters)

    def problem(self, problem_set: str, ordinal: int) -> wire.Problem:
        """One problem by its place in the set."""
        return self._get(f"/v1/problem-sets/{quote(problem_set)}/problems/{ordinal}", wire.Problem)

    def import_problems(
        self, problem_set: str, path: Path, **options: str | bool | Sequence[str] | None
    ) -> wire.ImportReport:
        """Stream a file (JSONL, JSON, CSV, Parquet, Arrow; plain, gzip or zstandard) into a set.

        Options: `prompt_field`, `answer_field`, `tags_field`, `prompt_template`, `answer_template` (Jinja), `source`,
        `allow_no_answer`, `dry_run`, `near_twins` (report, merge, keep, off), and `exclude_overlap` and
        `report_overlap` (names of benchmark sets). Rows already there are twins.
        """
        query = {name: value for name, value in options.items() if value is not None}
        with path.open("rb") as file:
            response = self._transport.exchange(
                "POST",
                f"/v1/problem-sets/{quote(problem_set)}/imports",
                params={"file_name": path.name, **query},
                content=_rewound(file),
                headers={"Content-Type": "application/octet-stream"},
                timeout=httpx2.Timeout(60.0, read=3600.0, write=3600.0),
            )
        return wire.ImportReport.model_validate_json(response.content)

    def decide(self, problem_set: str, ordinal: int, body: wire.ProblemDecision) -> wire.Problem:
        """Serve, set aside or leave out a problem; leases and draws follow."""
        path = f"/v1/problem-sets/{quote(problem_set)}/problems/{ordinal}"
        return wire.Problem.model_validate_json(self._exchange_json("PATCH", path, body).content)

    def decisions(self, problem_set: str) -> Iterator[wire.Decision]:
        """Who decided what about the problems of a set, oldest first."""
        return self._paged(f"/v1/problem-sets/{quote(problem_set)}/decisions", wire.Decision)

    # -- 2 students

    def create_student(self, body: wire.StudentCreate) -> wire.Student:
        """Create a student; the same one again is returned."""
        return self._post("/v1/students", body, wire.Student)

    def student(self, name: str) -> wire.Student:
        """One student with its newest checkpoint."""
        return self._get(f"/v1/students/{quote(name)}", wire.Student)

    def students(self) -> Iterator[wire.Student]:
        """All students."""
        return self._paged("/v1/students", wire.Student)

    def register_checkpoint(self, student: str, body: wire.CheckpointCreate, key: str | None = None) -> wire.Checkpoint:
        """Register new weights; rollout workers load them next."""
        return self._post(f"/v1/students/{quote(student)}/checkpoints", body, wire.Checkpoint, key)

    def checkpoints(self, student: str) -> Iterator[wire.Checkpoint]:
        """All checkpoints of a student, oldest first."""
        return self._paged(f"/v1/students/{quote(student)}/checkpoints", wire.Checkpoint)

    def create_profile(self, body: wire.ProfileCreate) -> wire.Profile:
        """Store a sampling profile; the same content has the same id."""
        return self._post("/v1/sampling-profiles", body, wire.Profile)

    def profile(self, profile_id: str) -> wire.Profile:
        """One sampling profile."""
        return self._get(f"/v1/sampling-profiles/{quote(profile_id)}", wire.Profile)

    def profiles(self) -> Iterator[wire.Profile]:
        """All sampling profiles."""
        return self._paged("/v1/sampling-profiles", wire.Profile)

    # -- 3 rollouts

    def create_measurement(self, body: wire.MeasurementCreate) -> wire.Measurement:
        """Keep pass rates of a student on a set under a profile; the same one again is returned."""
        return self._post("/v1/measurements", body, wire.Measurement)

    def measurement(self, measurement_id: str) -> wire.Measurement:
        """How far a measurement is."""
        return self._get(f"/v1/measurements/{quote(measurement_id)}", wire.Measurement)

    def measurements(self, student: str | None = None) -> Iterator[wire.Measurement]:
        """All measurements, of one student or of all."""
        return self._paged("/v1/measurements", wire.Measurement, student=student)

    def claim_lease(self, body: wire.LeaseClaim, key: str | None = None) -> wire.Lease:
        """Lease problems to roll out; empty when nothing is due."""
        return self._post("/v1/rollout-leases", body, wire.Lease, key)

    def leases(self, measurement_id: str) -> Iterator[wire.LeaseStatus]:
        """Leases that are not over, each with the problems that it still owes."""
        return self._paged(f"/v1/measurements/{quote(measurement_id)}/leases", wire.LeaseStatus)

    def renew_lease(self, lease_id: str, body: wire.LeaseToken) -> wire.ReportReceipt:
        """Hold a lease for longer; raises LeaseLost when it is gone."""
        return self._post(f"/v1/rollout-leases/{quote(lease_id)}/renew", body, wire.ReportReceipt)

    def report_rollouts(self, lease_id: str, body: wire.LeaseReport) -> wire.ReportReceipt:
        """Report finished groups; raises LeaseLost when the lease is gone."""
        return self._post(f"/v1/rollout-leases/{quote(lease_id)}/report", body, wire.ReportReceipt)

    def release_lease(self, lease_id: str, body: wire.LeaseToken) -> wire.ReportReceipt:
        """Hand the unreported problems of a lease back."""
        return self._post(f"/v1/rollout-leases/{quote(lease_id)}/release", body, wire.ReportReceipt)

    def groups(self, measurement_id: str, **filters: Any) -> Iterator[wire.StoredGroup]:
        """Stored answers by observation, oldest first; filter `missing_in` names a measurement to regrade into."""
        return self._paged(f"/v1/measurements/{quote(measurement_id)}/groups", wire.StoredGroup, **filters)

    def regrade(self, measurement_id: str, groups: Sequence[wire.RegradedGroup]) -> wire.RegradeReceipt:
        """Count stored answers of another measurement under new verdicts, each once."""
        body = wire.RegradeReport(groups=list(groups))
        return self._post(f"/v1/measurements/{quote(measurement_id)}/regrades", body, wire.RegradeReceipt)

    def disputes(self, measurement_id: str, kind: wire.DisputeKind) -> Iterator[wire.Dispute]:
        """Verdicts in doubt."""
        return self._paged(f"/v1/measurements/{quote(measurement_id)}/disputes", wire.Dispute, kind=kind.value)

    # -- 4 estimates

    def estimates(self, measurement_id: str, **filters: Any) -> Iterator[wire.Estimate]:
        """Estimates of a measurement by ordinal."""
        return self._paged(f"/v1/measurements/{quote(measurement_id)}/estimates", wire.Estimate, **filters)

    def estimate(self, measurement_id: str, problem_id: int) -> wire.ProblemEstimate:
        """One estimate with its observations."""
        return self._get(f"/v1/measurements/{quote(measurement_id)}/estimates/{problem_id}", wire.ProblemEstimate)

    def holdout(self, measurement_id: str) -> list[wire.HoldoutPoint]:
        """Hold-out pass rate at each measured checkpoint."""
        response = self._transport.exchange("GET", f"/v1/measurements/{quote(measurement_id)}/holdout")
        return TypeAdapter(list[wire.HoldoutPoint]).validate_json(response.content)

    def frontier(self, measurement_id: str) -> wire.Frontier:
        """Histogram of the training problems' newest pass rates."""
        return self._get(f"/v1/measurements/{quote(measurement_id)}/frontier", wire.Frontier)

    # -- 5 curricula

    def create_curriculum(self, body: wire.CurriculumCreate) -> wire.Curriculum:
        """Create a curriculum and the measurement it needs; the same one again is returned."""
        return self._post("/v1/curricula", body, wire.Curriculum)

    def curriculum(self, curriculum_id: str) -> wire.Curriculum:
        """One curriculum, in its newest version."""
        return self._get(f"/v1/curricula/{quote(curriculum_id)}", wire.Curriculum)

    def curricula(self, **filters: Any) -> Iterator[wire.Curriculum]:
        """All curricula; filters `student` and `name`."""
        return self._paged("/v1/curricula", wire.Curriculum, **filters)

    def update_curriculum(self, curriculum_id: str, body: wire.CurriculumUpdate) -> wire.Curriculum:
        """Change a running curriculum; the next draw follows."""
        response = self._exchange_json("PATCH", f"/v1/curricula/{quote(curriculum_id)}", body)
        return wire.Curriculum.model_validate_json(response.content)

    # -- 6 batches

    def draw_batch(
        self,
        curriculum_id: str,
        size: int,
        *,
        run_id: str | None = None,
        key: str | None = None,
        include: Literal["ids", "problems"] = "problems",
    ) -> wire.Batch:
        """Draw a weighted batch; the same `key` (Idempotency-Key) returns the same batch.

        Raises NothingEligible and ScheduleComplete.
        """
        body = wire.BatchRequest(size=size, run_id=run_id, include=include)
        return self._post(f"/v1/curricula/{quote(curriculum_id)}/batches", body, wire.Batch, key)

    def draw_batches(
        self,
        curriculum_id: str,
        size: int,
        count: int,
        *,
        run_id: str | None = None,
        key: str | None = None,
        include: Literal["ids", "problems"] = "problems",
    ) -> list[wire.Batch]:
        """Draw up to `count` batches in one request, to fetch ahead: see `draw_batch`.

        Fewer come where the schedule or the problems end; the next call then raises.
        """
        body = wire.BatchesRequest(size=size, count=count, run_id=run_id, include=include)
        return self._post(f"/v1/curricula/{quote(curriculum_id)}/draws", body, wire.Batches, key).items

    def batch(self, batch_id: str, *, include: Literal["ids", "problems"] = "problems") -> wire.Batch:
        """One batch as it was drawn."""
        return self._get(f"/v1/batches/{quote(batch_id)}", wire.Batch, include=include)

    def batches(self, curriculum_id: str, **filters: Any) -> Iterator[wire.Batch]:
        """Batches of a curriculum, oldest first, ids only; filters `run_id` and `state`."""
        return self._paged(f"/v1/curricula/{quote(curriculum_id)}/batches", wire.Batch, **filters)

    def acknowledge(self, batch_id: str, outcomes: Sequence[wire.Outcome] = ()) -> wire.BatchReceipt:
        """Say that the optimiser step on a batch is done; raises BatchExpired when it came too late."""
        return self._post(
            f"/v1/batches/{quote(batch_id)}/ack", wire.BatchAck(outcomes=list(outcomes)), wire.BatchReceipt
        )

    def explain(self, batch_id: str) -> wire.BatchExplanation:
        """Why each problem of a batch was drawn."""
        return self._get(f"/v1/batches/{quote(batch_id)}/explain", wire.BatchExplanation)

    # -- 7 training

    def create_run(self, body: wire.RunCreate) -> wire.Run:
        """Register a training job; the same name on the same curriculum is returned."""
        return self._post("/v1/runs", body, wire.Run)

    def run(self, run_id: str) -> wire.Run:
        """One training job."""
        return self._get(f"/v1/runs/{quote(run_id)}", wire.Run)

    def runs(self, curriculum_id: str | None = None) -> Iterator[wire.Run]:
        """All training jobs, of one curriculum or of all."""
        return self._paged("/v1/runs", wire.Run, curriculum_id=curriculum_id)

    def update_run(self, run_id: str, state: wire.RunState) -> wire.Run:
        """Say how a run ended."""
        response = self._exchange_json("PATCH", f"/v1/runs/{quote(run_id)}", wire.RunUpdate(state=state))
        return wire.Run.model_validate_json(response.content)

    def append_metrics(self, run_id: str, points: Sequence[wire.MetricPoint]) -> None:
        """Store metrics; a step sent again replaces the former."""
        self._post(f"/v1/runs/{quote(run_id)}/metrics", wire.Metrics(points=list(points)), wire.Run)

    def metrics(self, run_id: str) -> Iterator[wire.MetricPoint]:
        """Metrics of a run by step."""
        return self._paged(f"/v1/runs/{quote(run_id)}/metrics", wire.MetricPoint)

    def store_references(self, body: wire.TeacherReferences) -> None:
        """Store teacher texts, one a problem."""
        self._exchange_json("PUT", "/v1/teacher-references", body)

    def references(self, teacher: str, problem_ids: Sequence[int]) -> dict[int, wire.TeacherReference]:
        """Stored teacher texts by problem id; problems without one are left out."""
        body = wire.TeacherReferencesQuery(teacher=teacher, problem_ids=list(problem_ids))
        found = self._post("/v1/teacher-references/query", body, wire.TeacherReferences)
        return {reference.problem_id: reference for reference in found.references}

    # -- grading

    def grade(self, answers: Sequence[wire.AnswerToGrade]) -> wire.Grades:
        """Verdicts on answers that the caller brings, in order; nothing is stored."""
        return self._post("/v1/grade", wire.GradeRequest(answers=list(answers)), wire.Grades)

    def grader_stats(self) -> wire.GraderStats:
        """What the service's graders have done since it started."""
        return self._get("/v1/grade/stats", wire.GraderStats)

    # -- keys and health

    def create_key(self, body: wire.KeyCreate) -> wire.KeyCreated:
        """Make an API key; its secret is shown this once."""
        return self._post("/v1/keys", body, wire.KeyCreated)

    def keys(self) -> Iterator[wire.Key]:
        """All API keys, without secrets."""
        return self._paged("/v1/keys", wire.Key)

    def revoke_key(self, key_id: str) -> None:
        """Make an API key useless."""
        self._transport.exchange("DELETE", f"/v1/keys/{quote(key_id)}")

    def ready(self) -> dict[str, Any]:
        """What the service says of itself (version, database, schema)."""
        return cast("dict[str, Any]", self._transport.exchange("GET", "/readyz").json())

    # -- shared

    def _get(self, path: str, model: type[M], **query: Any) -> M:
        response = self._transport.exchange("GET", path, params=_present(query))
        return model.model_validate_json(response.content)

    def _post(self, path: str, body: BaseModel, model: type[M], key: str | None = None) -> M:
        return model.model_validate_json(self._exchange_json("POST", path, body, key).content)

    def _exchange_json(self, method: str, path: str, body: BaseModel, key: str | None = None) -> httpx2.Response:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key or uuid.uuid4().hex}
        return self._transport.exchange(method, path, content=body.model_dump_json(exclude_none=True), headers=headers)

    def _paged(self, path: str, model: type[M], **query: Any) -> Iterator[M]:
        page_type = TypeAdapter(wire.Page[model])  # type: ignore[valid-type]
        cursor: str | None = None
        while True:
            response = self._transport.exchange("GET", path, params=_present({**query, "cursor": cursor}))
            page = page_type.validate_json(response.content)
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return


def _local_key(url: str) -> str | None:
    file = Path(os.environ.get("PACED_DATA", "data")) / "admin.key"
    is_local = httpx2.URL(url).host in {"127.0.0.1", "localhost", "::1"}
    return file.read_text().strip() if is_local and os.access(file, os.R_OK) else None


def _present(query: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


class _rewound:  # noqa: N801 - used like a function
    """A file body that starts from the beginning at each try."""

    def __init__(self, file: BinaryIO, chunk_bytes: int = 1 << 20) -> None:
        self._file = file
        self._chunk_bytes = chunk_bytes

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        while chunk := self._file.read(self._chunk_bytes):
            yield chunk
