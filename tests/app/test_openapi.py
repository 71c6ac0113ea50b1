"""The OpenAPI document: valid, complete, with examples that hold, and one client method an operation."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator, FormatChecker

from app.flow import STAGES
from app.main import create_app
from app.settings import Settings
from paced import Client, wire

Json = dict[str, Any]
NOT_IN_CLIENT = {"healthz", "metrics"}  # for load balancers and Prometheus


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Json:
    return create_app(Settings(data=tmp_path_factory.mktemp("data"))).openapi()


@pytest.fixture(scope="module")
def validate(document: Json) -> Callable[[Json, Any], None]:
    """Raises when a value does not fit a schema of the document."""

    def check(schema: Json, value: Any) -> None:
        whole = {"components": document["components"], **schema}  # where the references lead
        Draft202012Validator(whole, format_checker=FormatChecker()).validate(value)

    return check


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def resolved(document: Json, schema: Json) -> Json:
    return document["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def example_of(document: Json, media: Json) -> Any:
    """The example of a body: beside its schema, in its schema, or of the items of its list."""
    if "example" in media:
        return media["example"]
    schema = resolved(document, media["schema"])
    if "examples" in schema:
        return schema["examples"][0]
    assert schema.get("type") == "array", f"no example: {schema}"
    return [example_of(document, {"schema": schema["items"]})]


def test_it_is_openapi_3_1(document: Json) -> None:
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version", "summary"} <= set(document["info"])
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for path, method, operation in operations(document):
        assert method in {"get", "post", "put", "patch", "delete"}
        assert operation["description"].strip().endswith(".")
        parameters = operation.get("parameters", [])
        in_path = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
        assert in_path == {part[1:-1] for part in path.split("/") if part.startswith("{")}
        assert all(parameter["required"] for parameter in parameters if parameter["in"] == "path")
        assert any(status.startswith("2") for status in operation["responses"])


def test_every_reference_leads_somewhere(document: Json) -> None:
    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for child in node.values():
                yield from references(child)
        elif isinstance(node, list):
            for child in node:
                yield from references(child)

    found = set(references(document))
    assert found == {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def test_errors_are_problem_details(document: Json) -> None:
    expected = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetail"}}}
    for path, _, operation in operations(document):
        assert operation["responses"]["default"]["content"] == expected, path
        assert set(operation["responses"]) - {"default"} <= {"200", "201", "204"}


def test_keys_are_declared_where_they_are_asked_for(document: Json) -> None:
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    for path, _, operation in operations(document):
        is_public = path in {"/healthz", "/readyz"}
        assert operation.get("security") == (None if is_public else [{"HTTPBearer": []}]), path


def test_every_body_has_an_example_that_fits(document: Json, validate: Callable[[Json, Any], None]) -> None:
    n_checked = 0
    for path, method, operation in operations(document):
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        answers = [answer for status, answer in operation["responses"].items() if status != "204"]
        for content in [body["content"] for body in bodies + answers]:
            for media in content.values():
                shown = example_of(document, media)
                validate(media["schema"], shown)
                n_checked += 1
                assert shown not in ({}, [], {"items": [], "next_cursor": None}), (method, path)
    assert n_checked > 100


def test_tags_follow_the_flow(document: Json) -> None:
    expected = [*(f"{place} {stage}" for place, stage in enumerate(STAGES, 1)), "grading", "keys", "health"]
    assert [tag["name"] for tag in document["tags"]] == expected
    used = [tag for _, _, operation in operations(document) for tag in operation["tags"]]
    assert list(dict.fromkeys(used)) == expected
    assert len(used) == len(list(operations(document)))


def calls(folder: Path) -> dict[str, Callable[[Client], Any]]:
    """For each operation the client call that stands for it."""
    file = folder / "p.jsonl"
    file.write_text("{}")
    token = wire.LeaseToken(token="t")
    rollout = wire.Rollout(text="", verdict=wire.Verdict.PASS, n_tokens=1)
    groups = [wire.RolloutGroup(problem_id=1, checkpoint_index=0, rollouts=[rollout])]
    point = wire.MetricPoint(step=0, stage=wire.Stage.FORWARD_KL, values={"loss": 1.0})
    decision = wire.ProblemDecision(state=wire.ProblemState.EXCLUDED, decided_by="ada")
    regraded = wire.RegradedGroup(observation_id=1, verdicts=[wire.NewVerdict(verdict=wire.Verdict.PASS)])
    review = wire.ReviewCreate(observation_id=1, position=0, is_right=True, decided_by="ada")
    measured = {"student": "s", "problem_set": "p", "profile_id": "sp_1"}
    return {
        "create_problem_set": lambda c: c.create_problem_set(wire.ProblemSetCreate(name="p")),
        "list_problem_sets": lambda c: list(c.problem_sets()),
        "get_problem_set": lambda c: c.problem_set("p"),
        "import_problems": lambda c: c.import_problems("p", file),
        "list_problems": lambda c: list(c.problems("p")),
        "get_problem": lambda c: c.problem("p", 0),
        "query_problem_texts": lambda c: c.problem_texts(wire.ProblemTextsQuery(problem_ids=[41])),
        "decide_problem": lambda c: c.decide("p", 0, decision),
        "list_decisions": lambda c: list(c.decisions("p")),
        "create_student": lambda c: c.create_student(wire.StudentCreate(name="s")),
        "list_students": lambda c: list(c.students()),
        "get_student": lambda c: c.student("s"),
        "register_checkpoint": lambda c: c.register_checkpoint("s", wire.CheckpointCreate(uri="/x")),
        "list_checkpoints": lambda c: list(c.checkpoints("s")),
        "create_profile": lambda c: c.create_profile(wire.ProfileCreate()),
        "list_profiles": lambda c: list(c.profiles()),
        "get_profile": lambda c: c.profile("sp_1"),
        "create_measurement": lambda c: c.create_measurement(wire.MeasurementCreate.model_validate(measured)),
        "list_measurements": lambda c: list(c.measurements()),
        "get_measurement": lambda c: c.measurement("mea_1"),
        "list_leases": lambda c: list(c.leases("mea_1")),
        "get_workers": lambda c: c.workers("mea_1"),
        "claim_lease": lambda c: c.claim_lease(wire.LeaseClaim(student="s", worker="w")),
        "renew_lease": lambda c: c.renew_lease("lea_1", token),
        "report_rollouts": lambda c: c.report_rollouts("lea_1", wire.LeaseReport(token="t", groups=groups)),
        "release_lease": lambda c: c.release_lease("lea_1", token),
        "list_groups": lambda c: list(c.groups("mea_1")),
        "regrade": lambda c: c.regrade("mea_2", [regraded]),
        "list_disputes": lambda c: list(c.disputes("mea_1", wire.DisputeKind.GRADERS_DIFFER)),
        "list_estimates": lambda c: list(c.estimates("mea_1")),
        "get_estimate": lambda c: c.estimate("mea_1", 1),
        "get_holdout": lambda c: c.holdout("mea_1"),
        "get_frontier": lambda c: c.frontier("mea_1"),
        "create_curriculum": lambda c: c.create_curriculum(
            wire.CurriculumCreate.model_validate({"name": "c", **measured})
        ),
        "review_answer": lambda c: c.review("mea_1", review),
        "list_reviews": lambda c: list(c.reviews("mea_1")),
        "count_reviews": lambda c: c.count_reviews("mea_1"),
        "list_curriculum_estimates": lambda c: list(c.estimates(curriculum_id="cur_1", query="sort:-weight")),
        "list_curricula": lambda c: list(c.curricula()),
        "get_curriculum": lambda c: c.curriculum("cur_1"),
        "update_curriculum": lambda c: c.update_curriculum("cur_1", wire.CurriculumUpdate(gamma=1.0)),
        "preview_curriculum": lambda c: c.preview_curriculum("cur_1", wire.CurriculumUpdate(gamma=1.0)),
        "draw_batch": lambda c: c.draw_batch("cur_1", 2),
        "draw_batches": lambda c: c.draw_batches("cur_1", 2, 3),
        "list_batches": lambda c: list(c.batches("cur_1")),
        "get_batch": lambda c: c.batch("bat_1"),
        "acknowledge_batch": lambda c: c.acknowledge("bat_1"),
        "explain_batch": lambda c: c.explain("bat_1"),
        "create_run": lambda c: c.create_run(wire.RunCreate(curriculum_id="cur_1", name="r")),
        "list_runs": lambda c: list(c.runs()),
        "compare_runs": lambda c: c.compare_runs(["run_1", "run_2"], "loss", by="tokens"),
        "get_run": lambda c: c.run("run_1"),
        "update_run": lambda c: c.update_run("run_1", wire.RunState.FINISHED),
        "append_metrics": lambda c: c.append_metrics("run_1", [point]),
        "list_metrics": lambda c: list(c.metrics("run_1")),
        "store_references": lambda c: c.store_references(wire.TeacherReferences(teacher="t", references=[])),
        "query_references": lambda c: c.references("t", [41]),
        "grade": lambda c: c.grade([wire.AnswerToGrade(text="5", answer="5")]),
        "grader_stats": lambda c: c.grader_stats(),
        "create_key": lambda c: c.create_key(wire.KeyCreate(name="k", scopes=[wire.Scope.READ])),
        "list_keys": lambda c: list(c.keys()),
        "revoke_key": lambda c: c.revoke_key("key_1"),
        "list_alarms": lambda c: c.alarms("mea_1"),
        "create_sign_in_link": lambda c: c.create_sign_in_link(),
        "readyz": lambda c: c.ready(),
    }


def test_the_client_covers_every_operation(
    document: Json, validate: Callable[[Json, Any], None], tmp_path: Path
) -> None:
    """Each call goes to its operation with a body that fits, and reads the document's own example."""
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    known = calls(tmp_path)
    assert set(known) | NOT_IN_CLIENT == set(ids)

    by_id = {operation["operationId"]: (path, method, operation) for path, method, operation in operations(document)}
    for operation_id, call in known.items():
        path, method, operation = by_id[operation_id]
        status, answer = next((s, a) for s, a in operation["responses"].items() if s != "default")
        shown = example_of(document, answer["content"]["application/json"]) if "content" in answer else None
        sent: list[httpx2.Request] = []

        def respond(
            request: httpx2.Request, sent: list[httpx2.Request] = sent, status: str = status, shown: Any = shown
        ) -> httpx2.Response:
            request.read()
            sent.append(request)
            return httpx2.Response(int(status), json=shown) if shown is not None else httpx2.Response(int(status))

        with Client("http://service", "key", http_transport=httpx2.MockTransport(respond)) as client:
            read = call(client)
        (request,) = sent
        assert request.method == method.upper()
        assert _matches(path, request.url.path), (operation_id, request.url.path)
        known_query = {p["name"] for p in operation.get("parameters", []) if p["in"] == "query"}
        assert set(request.url.params) <= known_query
        if "application/json" in operation.get("requestBody", {}).get("content", {}):
            validate(operation["requestBody"]["content"]["application/json"]["schema"], json.loads(request.content))
        assert (read is None) == (shown is None or operation_id == "append_metrics")


def _matches(template: str, path: str) -> bool:
    parts, given = template.split("/"), path.split("/")
    return len(parts) == len(given) and all(
        part == value or part.startswith("{") for part, value in zip(parts, given, strict=True)
    )
