"""The client: it retries what may be retried, says plainly what went wrong, and reads pages to the end."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from paced import Client, errors, wire

Answer = httpx2.Response | Exception
STUDENT = {"name": "s", "description": "", "latest_checkpoint": None, "created_at": "2026-11-25T08:00:00Z"}


class Script:
    """A transport that gives scripted answers in turn and keeps the requests."""

    def __init__(self, *answers: Answer) -> None:
        self._answers: Iterator[Answer] = iter(answers)
        self.requests: list[httpx2.Request] = []
        self.bodies: list[bytes] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.bodies.append(request.read())
        self.requests.append(request)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, retry_s: float = 10.0) -> Client:
        return Client("http://service/", "secret", retry_s=retry_s, http_transport=httpx2.MockTransport(self))


def ok(body: object = STUDENT) -> httpx2.Response:
    return httpx2.Response(200, json=body)


def problem(status: int, code: str, headers: dict[str, str] | None = None, **members: object) -> httpx2.Response:
    body = {"type": f"urn:paced:error:{code}", "title": "T", "status": status, "detail": "why", "code": code}
    return httpx2.Response(status, json={**body, **members}, headers=headers)


@pytest.mark.parametrize(
    "failure",
    [
        problem(503, "busy"),
        problem(429, "slow_down", {"Retry-After": "0"}),
        problem(503, "busy", {"Retry-After": "Wed, 25 Nov 2026 08:00:00 GMT"}),
        problem(503, "busy", {"Retry-After": "soon"}),
        problem(500, "internal"),
        httpx2.Response(502, text="<html>bad gateway</html>"),
        httpx2.Response(504),
        httpx2.ConnectError("refused"),
        httpx2.ReadError("reset by peer"),
        httpx2.RemoteProtocolError("server disconnected"),
        httpx2.ReadTimeout("slow"),
    ],
    ids=repr,
)
def test_what_may_pass_is_tried_again_with_the_same_key(failure: Answer) -> None:
    script = Script(failure, ok())
    with script.client() as client:
        assert client.create_student(wire.StudentCreate(name="s")).name == "s"
    first, second = script.requests
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert script.bodies[0] == script.bodies[1] == b'{"name":"s","description":""}'
    assert first.headers["Authorization"] == "Bearer secret"


def test_it_waits_as_long_as_it_is_told() -> None:
    script = Script(problem(503, "busy", {"Retry-After": "0.6"}), ok())
    started = time.monotonic()
    with script.client() as client:
        client.student("s")
    assert 0.6 <= time.monotonic() - started < 2


def test_two_calls_have_two_keys_and_a_given_key_is_kept() -> None:
    checkpoint = {"student": "s", "index": 0, "uri": "/x", "parent_index": None, "run_id": None, "step": None}
    script = Script(*[ok({**checkpoint, "created_at": "2026-11-25T08:00:00Z"}) for _ in range(3)])
    with script.client() as client:
        for key in (None, None, "mine"):
            client.register_checkpoint("s", wire.CheckpointCreate(uri="/x"), key)
    keys = [request.headers["Idempotency-Key"] for request in script.requests]
    assert keys[2] == "mine"
    assert len(set(keys)) == 3


def test_it_gives_up_in_time_and_says_what_to_check() -> None:
    script = Script(*[httpx2.ConnectError("refused")] * 100)
    started = time.monotonic()
    with script.client(retry_s=0.5) as client, pytest.raises(errors.Unreachable) as caught:
        client.student("s")
    assert time.monotonic() - started < 3
    assert len(script.requests) > 1
    assert str(caught.value) == (
        "no answer from http://service (ConnectError: refused). Is `paced serve` running there? `paced doctor` checks."
    )


def test_a_busy_service_is_named_after_the_last_try() -> None:
    script = Script(*[problem(503, "busy")] * 100)
    with script.client(retry_s=0.3) as client, pytest.raises(errors.Unavailable, match=r"why \[busy, HTTP 503\]"):
        client.student("s")


def test_without_retries_there_is_one_try() -> None:
    script = Script(problem(503, "busy"), ok())
    with script.client(retry_s=0.0) as client, pytest.raises(errors.Unavailable):
        client.student("s")
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "client_gone", errors.BadRequest),
        (401, "unauthenticated", errors.NotAllowed),
        (403, "forbidden", errors.NotAllowed),
        (404, "not_found", errors.NotFound),
        (409, "already_exists", errors.Conflict),
        (409, "lease_lost", errors.LeaseLost),
        (409, "batch_expired", errors.BatchExpired),
        (409, "no_eligible_problems", errors.NothingEligible),
        (409, "schedule_complete", errors.ScheduleComplete),
        (413, "body_too_large", errors.BadRequest),
        (422, "out_of_range", errors.BadRequest),
        (501, "not_there", errors.Unavailable),
    ],
)
def test_errors_have_types(status: int, code: str, kind: type[errors.ApiError]) -> None:
    script = Script(problem(status, code, hint=7))
    with script.client() as client, pytest.raises(errors.ApiError) as caught:
        client.student("s")
    found = caught.value
    assert type(found) is kind
    assert (found.status, found.code, found.detail, found.members["hint"]) == (status, code, "why", 7)
    assert len(script.requests) == 1


@pytest.mark.parametrize("answer", [httpx2.Response(500, text="<html>"), httpx2.Response(500, json=[1])], ids=repr)
def test_an_answer_that_is_no_problem_detail_is_still_an_error(answer: httpx2.Response) -> None:
    with Script(answer).client(retry_s=0.0) as client, pytest.raises(errors.Unavailable, match="HTTP 500"):
        client.student("s")


def test_pages_are_read_to_the_end() -> None:
    def pages(request: httpx2.Request) -> httpx2.Response:
        cursor = int(request.url.params.get("cursor", "0"))
        items = [{**STUDENT, "name": f"s{cursor + i}"} for i in range(2)]
        return ok({"items": items, "next_cursor": str(cursor + 2) if cursor < 4 else None})

    with Client("http://service", http_transport=httpx2.MockTransport(pages)) as client:
        assert [student.name for student in client.students()] == [f"s{i}" for i in range(6)]
        assert next(client.students()).name == "s0"


def test_filters_left_out_are_not_sent() -> None:
    script = Script(*[ok({"items": [], "next_cursor": None})] * 2)
    with script.client() as client:
        list(client.measurements())
        list(client.problems("p", tag="a b", search=None, limit=5))
    assert [dict(request.url.params) for request in script.requests] == [{}, {"tag": "a b", "limit": "5"}]


def test_an_upload_starts_from_the_beginning_at_each_try(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_bytes(b"x" * 3_000_000)
    report = {
        "import_id": "imp_1",
        "problem_set": "p",
        "file": "p.jsonl",
        "format": "jsonl",
        "shape": "plain",
        "n_rows": 0,
        "n_imported": 0,
        "n_twins": 0,
        "n_refused": 0,
        "refusals": [],
        "is_refusals_cut": False,
        "duration_s": 0.1,
    }
    script = Script(httpx2.ReadError("reset"), problem(503, "busy", {"Retry-After": "0"}), ok(report))
    with script.client() as client:
        assert client.import_problems("p", file, prompt_field="q", answer_field=None).import_id == "imp_1"
    assert [len(body) for body in script.bodies] == [3_000_000] * 3
    assert dict(script.requests[0].url.params) == {"file_name": "p.jsonl", "prompt_field": "q"}


def test_unknown_fields_of_a_newer_service_are_passed_over() -> None:
    with Script(ok({**STUDENT, "mood": "new"})).client() as client:
        assert not hasattr(client.student("s"), "mood")


@pytest.mark.parametrize(
    ("environment", "given", "expected"),
    [
        ({}, (None, None), ("http://127.0.0.1:8420", None)),
        ({"PACED_URL": "http://far:1", "PACED_KEY": "k"}, (None, None), ("http://far:1", "k")),
        ({"PACED_URL": "http://far:1", "PACED_KEY": "k"}, ("http://near:2", "j"), ("http://near:2", "j")),
        ({"PACED_DATA": "{folder}"}, (None, None), ("http://127.0.0.1:8420", "of-the-file")),
        ({"PACED_DATA": "{folder}"}, ("http://far:1", None), ("http://far:1", None)),
    ],
)
def test_where_address_and_key_come_from(
    environment: dict[str, str],
    given: tuple[str | None, str | None],
    expected: tuple[str, str | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "admin.key").write_text("of-the-file\n")
    monkeypatch.chdir("/")
    for name in ("PACED_URL", "PACED_KEY", "PACED_DATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(folder=tmp_path))
    with Client(*given) as client:
        assert (client.url, client.key) == expected


def test_a_key_never_stands_in_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[Callable[[Client], object]] = [lambda c: c.student("s"), lambda c: list(c.runs())]
    for call in calls:
        script = Script(*[httpx2.ConnectError("refused")] * 50)
        with script.client(retry_s=0.2) as client, pytest.raises(errors.Unreachable) as caught:
            call(client)
        assert "secret" not in json.dumps([str(caught.value), *capsys.readouterr()])


def test_what_is_given_wrongly_is_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"begins with http:// or https://, which '127\.0\.0\.1:8420' does not"):
        Client("127.0.0.1:8420")
    with Client("http://service", "secret") as client, pytest.raises(TypeError, match=r"takes a model of paced\.wire"):
        client.create_student({"name": "s"})  # type: ignore[arg-type]


def test_a_client_without_a_key_is_told_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PACED_KEY", raising=False)
    line = httpx2.MockTransport(lambda _request: problem(401, "unauthenticated"))
    with Client("http://service", retry_s=0.0, http_transport=line) as client:
        with pytest.raises(
            errors.NotAllowed, match="why; this client has no key: give `key`, or set PACED_KEY"
        ) as raised:
            client.student("s")
        assert (raised.value.status, raised.value.code) == (401, "unauthenticated")
