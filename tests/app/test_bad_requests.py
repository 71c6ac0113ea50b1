"""Bad requests answer problem+json with a code of their own; none is a 500."""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from paced import Client
from tests.app.problem_details import assert_problem
from tests.app.world import World, build, group, leased, token, verdict_group
from tests.service import ADMIN_KEY, Service, TestClock, serve

HUGE = 2**63
NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Site:
    """A world, and a bare HTTP client whose paths and bodies name its parts as `{student}` and the like."""

    world: World
    http: httpx2.Client
    names: dict[str, str]

    def send(self, method: str, path: str, body: Any = None, **options: Any) -> httpx2.Response:
        if body is not None:
            text = json.dumps(body)
            for name, value in self.names.items():
                text = text.replace(f"{{{name}}}", value)
            options["content"] = text
            options["headers"] = {"Content-Type": "application/json", **options.get("headers", {})}
        return self.http.request(method, path.format(**self.names), **options)


@pytest.fixture(scope="module")
def site(shared_service: Service, shared_clock: TestClock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with shared_service.client() as client, httpx2.Client(base_url=shared_service.url, headers=headers) as http:
        world = World(shared_service, client, shared_clock, build(client, tmp_path_factory.mktemp("files"), 20))
        lease, batch = world.claim(4), world.draw(4)
        assert lease.lease_id is not None
        curriculum = world.curriculum
        names = {
            "set": curriculum.problem_set,
            "student": curriculum.student,
            "profile": curriculum.profile_id,
            "measurement": curriculum.measurement_id,
            "curriculum": curriculum.curriculum_id,
            "lease": lease.lease_id,
            "token": token(lease).token,
            "leased": str(leased(lease)[0]),
            "batch": batch.batch_id,
        }
        yield Site(world, http, names)


CURRICULUM = {"name": "other", "student": "{student}", "problem_set": "{set}", "profile_id": "{profile}"}
MEASUREMENT = {"student": "{student}", "problem_set": "{set}", "profile_id": "{profile}"}
CLAIM = {"student": "{student}", "worker": "w"}
LEASE = "/v1/rollout-leases/{lease}"
DRAW = "/v1/curricula/{curriculum}/batches"
IMPORT = "/v1/problem-sets/{set}/imports"
ROLLOUT = {"text": "", "verdict": "pass", "n_tokens": 1}
GROUP = {"problem_id": 1, "checkpoint_index": 0, "rollouts": [ROLLOUT]}
OUTCOME = {"problem_id": 1, "checkpoint_index": 0, "n_passed": 1, "n_failed": 1}
POINT = {"step": 0, "stage": "forward_kl", "values": {}}

UNKNOWN_IDS = [
    ("GET", "/v1/problem-sets/nope", None),
    ("GET", "/v1/problem-sets/nope/problems", None),
    ("GET", "/v1/problem-sets/nope/problems/0", None),
    ("GET", "/v1/problem-sets/{set}/problems/999", None),
    ("POST", "/v1/problem-sets/nope/imports?file_name=a.jsonl", None),
    ("GET", "/v1/students/nope", None),
    ("POST", "/v1/students/nope/checkpoints", {"uri": "/x"}),
    ("GET", "/v1/students/nope/checkpoints", None),
    ("GET", "/v1/sampling-profiles/sp_nope", None),
    ("POST", "/v1/measurements", {**MEASUREMENT, "student": "nope"}),
    ("POST", "/v1/measurements", {**MEASUREMENT, "problem_set": "nope"}),
    ("POST", "/v1/measurements", {**MEASUREMENT, "profile_id": "nope"}),
    ("GET", "/v1/measurements/nope", None),
    ("GET", "/v1/measurements/mea_999", None),
    ("GET", "/v1/measurements/mea_99999999999999999999", None),
    ("GET", "/v1/measurements/mea_-1", None),
    ("GET", "/v1/measurements/mea_999/estimates", None),
    ("GET", "/v1/measurements/mea_999/estimates/1", None),
    ("GET", "/v1/measurements/{measurement}/estimates/999999", None),
    ("GET", "/v1/measurements/mea_999/holdout", None),
    ("GET", "/v1/measurements/mea_999/frontier", None),
    ("POST", "/v1/rollout-leases", {**CLAIM, "student": "nope"}),
    ("POST", "/v1/rollout-leases", {**CLAIM, "measurement_id": "mea_999"}),
    ("POST", "/v1/rollout-leases/nope/renew", {"token": "t"}),
    ("POST", "/v1/rollout-leases/nope/report", {"token": "t", "groups": [GROUP]}),
    ("POST", "/v1/rollout-leases/nope/release", {"token": "t"}),
    ("POST", "/v1/curricula", {**CURRICULUM, "student": "nope"}),
    ("GET", "/v1/curricula/nope", None),
    ("PATCH", "/v1/curricula/nope", {"gamma": 1.0}),
    ("POST", "/v1/curricula/nope/batches", {"size": 1}),
    ("GET", "/v1/curricula/nope/batches", None),
    ("POST", DRAW, {"size": 1, "run_id": "run_nope"}),
    ("GET", "/v1/batches/nope", None),
    ("POST", "/v1/batches/nope/ack", {}),
    ("GET", "/v1/batches/nope/explain", None),
    ("POST", "/v1/runs", {"curriculum_id": "nope", "name": "r"}),
    ("GET", "/v1/runs/nope", None),
    ("PATCH", "/v1/runs/nope", {"state": "failed"}),
    ("POST", "/v1/runs/nope/metrics", {"points": [POINT]}),
    ("GET", "/v1/runs/nope/metrics", None),
    ("DELETE", "/v1/keys/nope", None),
]


@pytest.mark.parametrize(("method", "path", "body"), UNKNOWN_IDS)
def test_unknown_ids(site: Site, method: str, path: str, body: Any) -> None:
    assert_problem(site.send(method, path, body), 404, "not_found")


BAD_BODIES = [
    ("POST", DRAW, {"size": -1}, "out_of_range"),
    ("POST", DRAW, {"size": 0}, "out_of_range"),
    ("POST", DRAW, {"size": HUGE}, "out_of_range"),
    ("POST", DRAW, {"size": 10**30}, "out_of_range"),
    ("POST", DRAW, {"size": NAN}, "not_finite"),
    ("POST", DRAW, {"size": 1.5}, "validation_failed"),
    ("POST", DRAW, {"size": "many"}, "validation_failed"),
    ("POST", DRAW, {}, "missing_field"),
    ("POST", DRAW, {"size": 1, "sise": 2}, "unknown_field"),
    ("POST", DRAW, {"size": 1, "\ud800": 2}, "validation_failed"),
    ("POST", DRAW, [1], "validation_failed"),
    ("POST", DRAW, {"size": 65_536}, "batch_larger_than_pool"),
    ("POST", DRAW, {"size": 21}, "batch_larger_than_pool"),
    ("POST", "/v1/curricula", {**CURRICULUM, "kernel": {"alpha": -1}}, "out_of_range"),
    ("POST", "/v1/curricula", {**CURRICULUM, "kernel": {"beta": -1.5}}, "out_of_range"),
    ("POST", "/v1/curricula", {**CURRICULUM, "kernel": {"alpha": INF}}, "not_finite"),
    ("POST", "/v1/curricula", {**CURRICULUM, "gamma": NAN}, "not_finite"),
    ("POST", "/v1/curricula", {**CURRICULUM, "holdout_share": 1.0}, "out_of_range"),
    ("POST", "/v1/curricula", {**CURRICULUM, "seed": HUGE}, "out_of_range"),
    ("POST", "/v1/curricula", {**CURRICULUM, "name": ""}, "validation_failed"),
    ("POST", "/v1/curricula", {**CURRICULUM, "name": "a\u0000"}, "validation_failed"),
    ("POST", "/v1/curricula", {**CURRICULUM, "estimator": {"name": "guess"}}, "validation_failed"),
    ("POST", "/v1/curricula", {**CURRICULUM, "n_rollouts": 3}, "already_exists"),
    ("PATCH", "/v1/curricula/{curriculum}", {"kernel": {"alpha": -1}}, "out_of_range"),
    ("PATCH", "/v1/curricula/{curriculum}", {"schedule": []}, "out_of_range"),
    ("PATCH", "/v1/curricula/{curriculum}", {"schedule": [{"stage": "forward_kl"}] * 2}, "open_stage_inside"),
    ("PATCH", "/v1/curricula/{curriculum}", {"batch_ttl_s": 0}, "out_of_range"),
    ("POST", "/v1/measurements", {**MEASUREMENT, "n_rollouts": -8}, "out_of_range"),
    ("POST", "/v1/measurements", {**MEASUREMENT, "student": "a/b"}, "validation_failed"),
    ("POST", "/v1/students", {"name": "s", "description": "a\u0000b"}, "validation_failed"),
    ("POST", "/v1/students", {"name": "s", "description": "\ud800"}, "validation_failed"),
    ("POST", "/v1/students/{student}/checkpoints", {"uri": ""}, "out_of_range"),
    ("POST", "/v1/students/{student}/checkpoints", {"uri": "/x", "parent_index": 7}, "no_such_parent"),
    ("POST", "/v1/students/{student}/checkpoints", {"uri": "/x", "step": HUGE}, "out_of_range"),
    ("POST", "/v1/students/{student}/checkpoints", {"uri": "\u0000"}, "validation_failed"),
    ("POST", "/v1/sampling-profiles", {"temperature": -0.1}, "out_of_range"),
    ("POST", "/v1/sampling-profiles", {"top_k": HUGE}, "out_of_range"),
    ("POST", "/v1/sampling-profiles", {"prompt_template": "no place"}, "validation_failed"),
    ("POST", "/v1/rollout-leases", {**CLAIM, "max_problems": 0}, "out_of_range"),
    ("POST", "/v1/rollout-leases", {**CLAIM, "ttl_s": -5}, "out_of_range"),
    ("POST", "/v1/rollout-leases", {**CLAIM, "ttl_s": INF}, "not_finite"),
    ("POST", "/v1/rollout-leases", {**CLAIM, "worker": "w\u0000"}, "validation_failed"),
    ("POST", f"{LEASE}/report", {"token": "{token}", "groups": []}, "out_of_range"),
    ("POST", f"{LEASE}/report", {"token": "{token}", "groups": [{**GROUP, "problem_id": HUGE}]}, "out_of_range"),
    ("POST", f"{LEASE}/report", {"token": "{token}", "groups": [{**GROUP, "rollouts": []}]}, "out_of_range"),
    ("POST", f"{LEASE}/report", {"token": "{token}", "groups": [{**GROUP, "problem_id": 10**9}]}, "not_leased"),
    ("POST", f"{LEASE}/report", {"token": "{token}", "groups": [GROUP, GROUP]}, "duplicate_group"),
    ("POST", "/v1/batches/{batch}/ack", {"outcomes": [{**OUTCOME, "problem_id": 10**9}]}, "not_in_batch"),
    ("POST", "/v1/batches/{batch}/ack", {"outcomes": [OUTCOME, OUTCOME]}, "duplicate_group"),
    ("POST", "/v1/batches/{batch}/ack", {"outcomes": [{**OUTCOME, "n_passed": -1}]}, "out_of_range"),
    ("POST", "/v1/batches/{batch}/ack", {"outcomes": [{**OUTCOME, "n_passed": 0, "n_failed": 0}]}, "empty_outcome"),
    ("POST", "/v1/batches/{batch}/ack", {"outcomes": [{**OUTCOME, "checkpoint_index": 9}]}, "unknown_checkpoint"),
    ("POST", "/v1/runs", {"curriculum_id": "{curriculum}", "name": "r", "config": {"lr": NAN}}, "not_finite"),
    (
        "POST",
        "/v1/runs",
        {"curriculum_id": "{curriculum}", "name": "r", "config": {"a": "\udfff"}},
        "validation_failed",
    ),
    ("PUT", "/v1/teacher-references", {"teacher": "t\u0000", "references": []}, "validation_failed"),
    (
        "PUT",
        "/v1/teacher-references",
        {
            "teacher": "t",
            "references": [{"problem_id": 10**9, "text": "", "n_tokens": 0, "finish_reason": "stop"}],
        },
        "unknown_problem",
    ),
    ("POST", "/v1/teacher-references/query", {"teacher": "t", "problem_ids": [-1]}, "out_of_range"),
    ("POST", "/v1/problem-texts/query", {"problem_ids": [-1]}, "out_of_range"),
    ("POST", "/v1/keys", {"name": "k", "scopes": []}, "out_of_range"),
    ("POST", "/v1/keys", {"name": "k", "scopes": ["root"]}, "validation_failed"),
]


@pytest.mark.parametrize(("method", "path", "body", "code"), BAD_BODIES)
def test_bad_bodies(site: Site, method: str, path: str, body: Any, code: str) -> None:
    status = 409 if code == "already_exists" else 422
    assert_problem(site.send(method, path, body), status, code)


BAD_QUERIES = [
    ("/v1/problem-sets?color=red", "unknown_parameter"),
    ("/v1/problem-sets/{set}?verbose=1", "unknown_parameter"),
    ("/v1/problem-sets?limit=0", "out_of_range"),
    ("/v1/problem-sets?limit=-5", "out_of_range"),
    ("/v1/problem-sets?limit=1001", "out_of_range"),
    (f"/v1/problem-sets?limit={10**30}", "out_of_range"),
    ("/v1/problem-sets?limit=x", "validation_failed"),
    ("/v1/problem-sets?cursor=x", "bad_cursor"),
    ("/v1/problem-sets?cursor=%00", "bad_cursor"),
    ("/v1/problem-sets?cursor=NQ==", "bad_cursor"),
    ("/v1/problem-sets?cursor=dHJ1ZQ==", "bad_cursor"),
    ("/v1/problem-sets/{set}/problems?cursor=ImEi", "bad_cursor"),
    ("/v1/problem-sets/{set}/problems?cursor=OTIyMzM3MjAzNjg1NDc3NTgwOA==", "bad_cursor"),
    ("/v1/problem-sets/{set}/problems?search=%00", "validation_failed"),
    ("/v1/problem-sets/{set}/problems?tag=%00", "validation_failed"),
    ("/v1/problem-sets/{set}/problems/-1", "out_of_range"),
    (f"/v1/problem-sets/{{set}}/problems/{HUGE}", "out_of_range"),
    ("/v1/problem-sets/{set}/problems/x", "validation_failed"),
    ("/v1/measurements?student=%00", "validation_failed"),
    ("/v1/measurements/{measurement}/estimates?is_holdout=perhaps", "validation_failed"),
    (f"/v1/measurements/{{measurement}}/estimates/{HUGE}", "out_of_range"),
    ("/v1/curricula?name=%20", "validation_failed"),
    ("/v1/curricula/{curriculum}/batches?state=lost", "validation_failed"),
    ("/v1/batches/{batch}?include=all", "validation_failed"),
    ("/v1/runs?curriculum_id=a%2Fb", "validation_failed"),
]


@pytest.mark.parametrize(("path", "code"), BAD_QUERIES)
def test_bad_queries(site: Site, path: str, code: str) -> None:
    assert_problem(site.send("GET", path), 422, code)


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        (b"{", "application/json", 422, "bad_json"),
        (b"", "application/json", 422, "missing_field"),
        (b"\xff\xfe", "application/json", 422, "bad_json"),
        (b"[" * 100_000, "application/json", 422, "bad_json"),
        (b"1" * 10_000, "application/json", 422, "bad_json"),
        (b'{"size": 1}', "text/plain", 415, "unsupported_media_type"),
        (b"size=1", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b'{"size": 1}', None, 415, "unsupported_media_type"),
    ],
)
def test_bodies_that_are_not_json(site: Site, content: bytes, content_type: str | None, status: int, code: str) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    assert_problem(site.send("POST", DRAW, content=content, headers=headers), status, code)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nope", 404, "no_such_route"),
        ("GET", "/v1/students/", 404, "no_such_route"),
        ("GET", "/v1/students/{student}/", 404, "no_such_route"),
        ("DELETE", "/v1/students", 405, "method_not_allowed"),
        ("PUT", "/v1/batches/{batch}", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
    ],
)
def test_routes_and_methods(site: Site, method: str, path: str, status: int, code: str) -> None:
    response = site.send(method, path)
    assert_problem(response, status, code)
    assert ("allow" in response.headers) == (status == 405)


def test_a_nul_in_a_path_is_not_found_or_unstorable(site: Site) -> None:
    response = site.send("GET", "/v1/students/%00")
    assert response.json()["code"] in {"not_found", "unstorable_value"}
    assert_problem(response, response.status_code, response.json()["code"])


def test_a_curriculum_of_a_name_with_other_settings(site: Site) -> None:
    body = {**CURRICULUM, "name": site.world.curriculum.name, "gamma": 3.0}
    response = site.send("POST", "/v1/curricula", body)
    assert_problem(response, 409, "already_exists")
    assert response.json()["curriculum_id"] == site.world.curriculum.curriculum_id


@pytest.mark.parametrize(
    ("path", "body", "changed"),
    [
        (DRAW, {"size": 2}, {"size": 3}),
        ("/v1/students/{student}/checkpoints", {"uri": "/a"}, {"uri": "/b"}),
        ("/v1/rollout-leases", CLAIM, {**CLAIM, "max_problems": 3}),
    ],
)
def test_an_idempotency_key_is_for_one_body(site: Site, path: str, body: Any, changed: Any) -> None:
    headers = {"Idempotency-Key": f"key of {path}"}
    first = site.send("POST", path, body, headers=headers)
    assert first.status_code == 201
    assert site.send("POST", path, body, headers=headers).json() == first.json()
    assert_problem(site.send("POST", path, changed, headers=headers), 422, "idempotency_key_reused")
    assert_problem(site.send("POST", path, body, headers={"Idempotency-Key": "k" * 201}), 422, "out_of_range")


def test_reports_that_contradict_their_lease(make_world: Any, site: Site) -> None:
    world: World = make_world()
    lease = world.claim(4)
    path = f"/v1/rollout-leases/{lease.lease_id}"
    problem_id = leased(lease)[0]

    def report(lease_token: str, *groups: Any) -> httpx2.Response:
        body = {"token": lease_token, "groups": [item.model_dump(mode="json") for item in groups]}
        return site.send("POST", f"{path}/report", body)

    right = token(lease).token
    assert_problem(report("wrong", group(problem_id, 3)), 409, "lease_lost")
    assert_problem(report(right, group(problem_id, 3, n=7)), 422, "wrong_group_size")
    assert_problem(report(right, group(problem_id, 3, checkpoint=1)), 422, "unknown_checkpoint")
    for action in ("renew", "release"):
        assert_problem(site.send("POST", f"{path}/{action}", {"token": "wrong"}), 409, "lease_lost")
    other = {"student": "{student}", "worker": "w", "measurement_id": world.curriculum.measurement_id}
    assert_problem(site.send("POST", "/v1/rollout-leases", other), 422, "measurement_of_other_student")
    world.clock.advance(121)
    for action, body in (("renew", {}), ("release", {}), ("report", {"groups": [GROUP]})):
        assert_problem(site.send("POST", f"{path}/{action}", {"token": right, **body}), 409, "lease_lost")
    assert world.estimate(problem_id).n_groups == 0


def test_a_batch_acknowledged_after_its_time(make_world: Any, site: Site) -> None:
    world: World = make_world(batch_ttl_s=60)
    batch = world.draw(4)
    world.clock.advance(61)
    assert_problem(site.send("POST", f"/v1/batches/{batch.batch_id}/ack", {}), 409, "batch_expired")


def test_model_text_with_nul_is_kept_with_a_mark(make_world: Any) -> None:
    world: World = make_world()
    lease = world.claim(1)
    made = verdict_group(leased(lease)[0], ["pass"] * 8)
    answers = [answer.model_copy(update={"text": "a\x00b", "detail": "\x00"}) for answer in made.rollouts]
    receipt = world.report(lease, [made.model_copy(update={"rollouts": answers})])
    assert (receipt.n_accepted, receipt.state) == (1, "done")


@pytest.mark.parametrize(
    ("path", "content", "code"),
    [
        (f"{IMPORT}?file_name=a.jsonl", b"", "empty_file"),
        (f"{IMPORT}?file_name=a.bin", b"PK\x03\x04", "unknown_format"),
        (f"{IMPORT}?file_name=a.parquet", b"{}", "bad_parquet"),
        (f"{IMPORT}?file_name=a.jsonl", b"\xff\xfea", "bad_encoding"),
        (f"{IMPORT}?file_name=a.jsonl&prompt_template=%7B%7B", b"{}", "bad_template"),
        (f"{IMPORT}?file_name=a.jsonl&near_twins=perhaps", b"{}", "validation_failed"),
        (IMPORT, b"{}", "missing_field"),
        (f"{IMPORT}?file_name=%00", b"{}", "validation_failed"),
        (f"{IMPORT}?file_name=a&grader=math", b"{}", "unknown_parameter"),
    ],
)
def test_files_that_cannot_be_imported(site: Site, path: str, content: bytes, code: str) -> None:
    assert_problem(site.send("POST", path, content=content), 422, code)


GARBAGE = ["nope", "%00", "%FF", "..%2f", "-1", str(10**40), "'; DROP TABLE keys; --", "é" * 100]


def test_no_route_breaks_on_garbage(site: Site) -> None:
    """Every operation of the OpenAPI document, with garbage for its path parameters and for its body."""
    document = site.http.get("/openapi.json").json()
    bodies: list[Any] = [None, [], {}, "x", 10**40, NAN, {"size": []}, {"\ud800": "\u0000"}, [[[[]]]]]
    n_sent = 0
    for path, operations in document["paths"].items():
        for method in operations:
            for garbage in GARBAGE if "{" in path else GARBAGE[:1]:
                filled = path
                for parameter in operations[method].get("parameters", []):
                    filled = filled.replace(f"{{{parameter['name']}}}", garbage)
                for body in bodies if method != "get" else bodies[:1]:
                    content = b"" if body is None else json.dumps(body).encode()
                    headers = {"Content-Type": "application/json"}
                    answer = site.http.request(method, filled, content=content, headers=headers)
                    n_sent += 1
                    if answer.is_success:
                        continue
                    assert_problem(answer, answer.status_code, answer.json()["code"])
                    assert answer.status_code < 500, (method, filled, body)
    assert n_sent > 500


# -- sizes; the database has no part in them


@pytest.fixture
def small(tmp_path: Any) -> Iterator[Client]:
    with serve(tmp_path / "data", None, max_body_mb=1.0, max_import_mb=2.0) as running, running.client() as client:
        yield client


def _answer_to(client: Client, path: str, size: str, sent: bytes) -> httpx2.Response:
    """The answer to a body of which no more than `sent` is sent; the header `size` declares it."""
    url = httpx2.URL(client.url)
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {ADMIN_KEY}", "Content-Type: application/json"]
    with socket.create_connection((url.host, url.port), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, size, "", ""]).encode() + sent)
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65_536)
    top, _, body = answer.partition(b"\r\n\r\n")
    status, *headers = top.decode().split("\r\n")
    pairs = [(name, value) for name, _, value in (line.partition(": ") for line in headers)]
    return httpx2.Response(int(status.split()[1]), headers=pairs, content=body)


@pytest.mark.parametrize(
    ("path", "limit_mb"),
    [("/v1/students", 1), ("/v1/curricula/imports", 1), ("/v1/problem-sets/s/imports?file_name=f", 2)],
)
def test_a_body_of_100_mb_is_refused_before_it_is_read(small: Client, path: str, limit_mb: int) -> None:
    declared = _answer_to(small, path, "Content-Length: 100000000", b"{")
    assert_problem(declared, 413, "body_too_large")
    assert declared.json()["limit_mb"] == limit_mb


@pytest.mark.parametrize(("path", "limit_mb"), [("/v1/students", 1), ("/v1/problem-sets/sums/imports?file_name=f", 2)])
def test_a_chunked_body_is_refused_at_the_limit(small: Client, path: str, limit_mb: int, tmp_path: Any) -> None:
    build(small, tmp_path, 3)
    chunk = b"%x\r\n" % 500_001 + b" " * 500_001 + b"\r\n"
    chunked = _answer_to(small, path, "Transfer-Encoding: chunked", chunk * (2 * limit_mb))
    assert_problem(chunked, 413, "body_too_large")
    assert chunked.json()["limit_mb"] == limit_mb
    assert small.problem_set("sums").n_rows == 3
