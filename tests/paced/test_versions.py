"""Client and service of other versions: said in one line that names both and what to do."""

import httpx2
import pytest

from paced import Client, __version__, doctor, wire
from paced.errors import BadRequest, NotFound, VersionMismatch
from paced.transport import VERSION_HEADER, is_compatible
from tests.service import ADMIN_KEY, Service

STUDENT = {"name": "s", "description": "", "latest_checkpoint": None, "created_at": "2026-11-25T08:00:00Z"}


def client_of(response: httpx2.Response, version: str | None) -> Client:
    if version is not None:
        response.headers[VERSION_HEADER] = version
    return Client("http://service", retry_s=0.0, http_transport=httpx2.MockTransport(lambda _: response))


def refusal(status: int, code: str) -> httpx2.Response:
    return httpx2.Response(status, json={"type": "t", "title": "T", "status": status, "detail": "why", "code": code})


def test_an_answer_that_cannot_be_read_names_both_versions() -> None:
    with (
        client_of(httpx2.Response(200, json={"title": "s"}), "9.1.0") as client,
        pytest.raises(VersionMismatch) as caught,
    ):
        client.student("s")
    assert str(caught.value) == (
        f"GET /v1/students/s: client {__version__} and service 9.1.0 do not understand each other "
        f"(name: Field required); install `paced==9.1.0` here, or bring the service to {__version__}"
    )
    assert caught.value.service_version == "9.1.0"


@pytest.mark.parametrize(
    "response", [httpx2.Response(200, text="<html>hello</html>"), httpx2.Response(200, json=[])], ids=repr
)
def test_another_server_is_not_taken_for_the_service(response: httpx2.Response) -> None:
    with (
        client_of(response, None) as client,
        pytest.raises(VersionMismatch, match="http://service does not answer as a PACED service does"),
    ):
        client.student("s")


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "no_such_route"), (405, "method_not_allowed"), (422, "unknown_field"), (422, "unknown_parameter")],
)
def test_what_an_older_service_does_not_know(status: int, code: str) -> None:
    with (
        client_of(refusal(status, code), "0.0.1") as client,
        pytest.raises(VersionMismatch, match=r"service 0\.0\.1 do not understand each other \(why\)"),
    ):
        client.create_student(wire.StudentCreate(name="s"))


@pytest.mark.parametrize("version", [__version__, None])
def test_the_same_refusals_of_the_same_version_stay_what_they_are(version: str | None) -> None:
    with client_of(refusal(422, "unknown_field"), version) as client, pytest.raises(BadRequest):
        client.student("s")
    with client_of(refusal(404, "no_such_route"), version) as client, pytest.raises(NotFound):
        client.student("s")


def test_a_newer_service_that_can_be_read_is_no_error() -> None:
    with client_of(httpx2.Response(200, json={**STUDENT, "mood": "new"}), "9.1.0") as client:
        assert client.student("s").name == "s"


@pytest.mark.parametrize(
    ("theirs", "ours", "is_same"),
    [
        ("0.1.0", "0.1.9", True),
        ("0.2.0", "0.1.9", False),
        ("1.2.0", "1.9.0", True),
        ("2.0.0", "1.9.0", False),
        ("1", "1.0.0", True),
        ("0.1", "0.1.3", True),
        ("1.0.0rc1", "1.0.0", True),
        ("unknown", "0.1.0", False),
    ],
)
def test_which_versions_fit(theirs: str, ours: str, is_same: bool) -> None:
    assert is_compatible(theirs, ours) == is_same


@pytest.mark.parametrize("path", ["/healthz", "/v1/students", "/v1/nothing", "/v1/students/none"])
@pytest.mark.parametrize("database", [None])
def test_every_answer_of_the_service_has_its_version(service: Service, path: str) -> None:
    for headers in ({}, {"Authorization": f"Bearer {ADMIN_KEY}"}):
        assert httpx2.get(f"{service.url}{path}", headers=headers).headers[VERSION_HEADER] == __version__


@pytest.mark.parametrize(("theirs", "level"), [(__version__, "ok"), ("9.1.0", "fault")])
def test_the_doctor_compares_versions(theirs: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = {"status": "ready", "version": theirs, "schema": "0001", "database": "sqlite"}
    response = httpx2.Response(200, json=ready)
    monkeypatch.setattr(doctor, "Client", lambda *_, **__: client_of(response, theirs))
    (found,) = [finding for finding in doctor._service(None, None) if finding.check == "service"][:1]
    assert (found.level, theirs in found.found) == (level, True)
    assert (f"`paced=={theirs}`" in found.advice) == (level == "fault")
