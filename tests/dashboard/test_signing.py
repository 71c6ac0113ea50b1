"""Signing in and out: by key, by a link that works once; what a session may do, and what it refuses."""

import re
from collections.abc import Callable

import httpx2
import pytest
from typer.testing import CliRunner

from app.auth.sessions import LINK_FOR, SESSION_FOR
from paced import Client, wire
from paced.cli import build
from tests.app.problem_details import assert_problem
from tests.dashboard.conftest import PAGE, OpenBrowser
from tests.service import ADMIN_KEY, Service, TestClock

MakeKey = Callable[..., wire.KeyCreated]


def csrf_of(page: str) -> str:
    found = re.search(r'name="csrf" value="(\w+)"', page)
    assert found is not None
    return found[1]


def test_a_stranger_is_sent_to_sign_in_and_back(open_browser: OpenBrowser) -> None:
    stranger = open_browser(None)
    answer = stranger.get("/overview?measurement=mea_1")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in?next=%2Foverview%3Fmeasurement%3Dmea_1"
    page = stranger.get(answer.headers["location"])
    assert page.status_code == 200
    assert 'name="next" value="/overview?measurement=mea_1"' in page.text
    entered = stranger.post("/sign-in", data={"key": ADMIN_KEY, "next": "/overview?x=1"})
    assert (entered.status_code, entered.headers["location"]) == (303, "/overview?x=1")
    assert stranger.get("/overview").status_code == 200


@pytest.mark.parametrize("next_page", ["//elsewhere.example", "https://elsewhere.example", "/\\elsewhere.example", ""])
def test_nobody_is_sent_elsewhere(open_browser: OpenBrowser, next_page: str) -> None:
    for sent in (next_page, ["/overview?x=1", next_page or "/x"]):
        answer = open_browser(None).post("/sign-in", data={"key": ADMIN_KEY, "next": sent})
        assert answer.headers["location"] == "/overview"


def test_a_wrong_key_is_told_so(open_browser: OpenBrowser) -> None:
    stranger = open_browser(None)
    for given in ({"key": "wrong"}, {}, {"key": "paced.key_1.x"}, {"link": "wrong"}):
        answer = stranger.post("/sign-in", data=given)
        assert answer.status_code == 401
        assert 'role="alert"' in answer.text
    assert stranger.get("/overview").status_code == 303


def test_the_cookie_is_kept_from_scripts_and_holds_no_secret(
    open_browser: OpenBrowser, shared_service: Service
) -> None:
    answer = open_browser(None).post("/sign-in", data={"key": ADMIN_KEY})
    given = answer.headers["set-cookie"]
    assert "HttpOnly" in given
    assert "SameSite=lax" in given
    assert "Path=/" in given
    assert "Secure" not in given, "the test's service has no TLS"
    assert ADMIN_KEY not in given


def test_a_cookie_is_of_no_use_to_the_api(browser: httpx2.Client) -> None:
    for path in ("/v1/students", "/metrics", "/v1/nope"):
        assert_problem(browser.get(path), 401, "unauthenticated")
    assert_problem(browser.post("/v1/students", json={"name": "x"}), 401, "unauthenticated")


def test_a_changed_cookie_is_none(open_browser: OpenBrowser, browser: httpx2.Client) -> None:
    (name,) = browser.cookies
    value = browser.cookies[name]
    key_id, expires, text, signature = value.split(".")
    later = f"{key_id}.{int(expires) + 1}.{text}.{signature}"
    statuses = {
        given: open_browser(None).get("/overview", headers={"Cookie": f"{name}={given}"}).status_code
        for given in (value, later, f"{value}0", f"..{text}.{signature}", "x", "x.y", "")
    }
    assert statuses.pop(value) == 200
    assert set(statuses.values()) == {303}


def test_a_session_ends(browser: httpx2.Client, shared_clock: TestClock) -> None:
    shared_clock.advance(SESSION_FOR.total_seconds() - 60)
    assert browser.get("/overview").status_code == 200
    shared_clock.advance(120)
    assert browser.get("/overview").status_code == 303


def test_a_revoked_key_ends_its_sessions(open_browser: OpenBrowser, shared_client: Client, key_of: MakeKey) -> None:
    key = key_of(wire.Scope.READ)
    reader = open_browser(key.secret)
    assert reader.get("/overview").status_code == 200
    shared_client.revoke_key(key.key_id)
    assert reader.get("/overview").status_code == 303


def test_signing_out_needs_the_form(browser: httpx2.Client) -> None:
    assert browser.post("/sign-out").status_code == 403
    assert browser.post("/sign-out", data={"csrf": "0" * 64}).status_code == 403
    token = csrf_of(browser.get("/overview").text)
    foreign = browser.post("/sign-out", data={"csrf": token}, headers={"Sec-Fetch-Site": "cross-site"})
    assert foreign.status_code == 403
    assert browser.get("/overview").status_code == 200
    assert browser.post("/sign-out", data={"csrf": token}).status_code == 303
    assert browser.get("/overview").status_code == 303


def test_the_token_of_another_session_is_refused(open_browser: OpenBrowser) -> None:
    one, other = open_browser(), open_browser()
    token = csrf_of(other.get("/overview").text)
    assert one.post("/sign-out", data={"csrf": token}).status_code == 403


def test_a_key_without_reading_sees_no_page(open_browser: OpenBrowser, key_of: MakeKey) -> None:
    worker = open_browser(key_of(wire.Scope.ROLLOUT).secret)
    answer = worker.get("/overview")
    assert answer.status_code == 403
    assert "lacks the scope" in answer.text
    assert answer.headers["content-type"].startswith("text/html")


def test_another_site_cannot_sign_a_browser_in(open_browser: OpenBrowser) -> None:
    stranger = open_browser(None)
    answer = stranger.post("/sign-in", data={"key": ADMIN_KEY}, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert not stranger.cookies


def test_pages_can_load_nothing_from_elsewhere(browser: httpx2.Client) -> None:
    for path in ("/overview", "/sign-in", "/no-such-page"):
        policy = browser.get(path).headers["content-security-policy"]
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == rules["connect-src"] == "'self'"
        assert rules["frame-ancestors"] == "'none'"
        assert "unsafe-inline" not in policy


def test_programs_read_the_twins_with_a_key(shared_service: Service) -> None:
    with httpx2.Client(base_url=shared_service.url, headers={"Authorization": f"Bearer {ADMIN_KEY}"}) as program:
        assert program.get("/overview.json").json()["choice"] is not None
        assert program.get("/overview", headers=PAGE).status_code == 200
    assert_problem(httpx2.get(f"{shared_service.url}/overview.json"), 401, "unauthenticated")


def test_files_are_kept_for_good(browser: httpx2.Client) -> None:
    addresses = set(re.findall(r'(?:href|src|data-plotly)="(/static/[^"]+)"', browser.get("/overview").text))
    assert len(addresses) == 5
    for address in addresses:
        plain = browser.get(address, headers={"Accept-Encoding": "identity"})
        assert plain.status_code == 200
        assert "immutable" in plain.headers["cache-control"]
        assert browser.get(address, headers={"Accept-Encoding": "gzip"}).content == plain.content
    assert browser.get("/static/x/nothing.js").status_code == 404


def test_a_link_signs_in_once_with_what_its_key_may_do(
    open_browser: OpenBrowser, shared_service: Service, key_of: MakeKey
) -> None:
    key = key_of(wire.Scope.READ)
    with shared_service.client(key.secret) as client:
        path = client.create_sign_in_link().path
    first, second = open_browser(None), open_browser(None)
    for _ in range(2):  # looking at it uses nothing up
        page = first.get(path)
        assert page.status_code == 200
    (text,) = re.findall(r'name="link" value="([^"]+)"', page.text)
    assert path.endswith(text)
    assert first.post("/sign-in", data={"link": text}).headers["location"] == "/overview"
    assert first.get("/overview").status_code == 200
    again = second.post("/sign-in", data={"link": text})
    assert again.status_code == 401
    assert "paced dashboard" in again.text


def test_a_link_ends(open_browser: OpenBrowser, shared_client: Client, shared_clock: TestClock) -> None:
    text = shared_client.create_sign_in_link().path.rpartition("/")[2]
    shared_clock.advance(LINK_FOR.total_seconds() + 1)
    assert open_browser(None).post("/sign-in", data={"link": text}).status_code == 401


def test_a_link_of_a_revoked_key_is_of_no_use(
    open_browser: OpenBrowser, shared_service: Service, shared_client: Client, key_of: MakeKey
) -> None:
    key = key_of(wire.Scope.READ)
    with shared_service.client(key.secret) as client:
        text = client.create_sign_in_link().path.rpartition("/")[2]
    shared_client.revoke_key(key.key_id)
    assert open_browser(None).post("/sign-in", data={"link": text}).status_code == 401


def test_the_command_line_prints_a_link(shared_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACED_URL", shared_service.url)
    monkeypatch.setenv("PACED_KEY", ADMIN_KEY)
    answer = CliRunner().invoke(build(), ["dashboard"])
    assert answer.exit_code == 0
    assert httpx2.get(answer.stdout.strip(), headers=PAGE).status_code == 200


def test_an_unexpected_error_is_a_page_in_a_browser_and_a_problem_elsewhere(
    shared_service: Service, open_browser: OpenBrowser, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = open_browser(), open_browser()  # uvicorn closes the connection afterwards
    monkeypatch.setattr(shared_service.app.state, "rollouts", None)
    page = one.get("/overview")
    assert page.status_code == 500
    assert "Internal error" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert_problem(other.get("/overview.json", headers={"Accept": "application/json"}), 500, "internal")
