"""What every route shares: ETags, links between pages, health, metrics, and a database that goes away."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import psycopg
import pytest
from sqlalchemy import make_url
from starlette.types import Receive, Scope, Send

from app.http.etag import EtagMiddleware
from paced import Client, __version__, wire
from paced.errors import Unavailable
from tests.app.problem_details import assert_problem
from tests.app.world import at_once, build
from tests.service import ADMIN_KEY, Service, postgres_databases, postgres_server, serve


@pytest.fixture
def http(lite_service: Service) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with httpx2.Client(base_url=lite_service.url, headers=headers) as made:
        yield made


def test_an_etag_saves_what_is_known(http: httpx2.Client) -> None:
    name = "/v1/students/tagged"
    http.post("/v1/students", json={"name": "tagged"})
    first = http.get(name)
    tag = first.headers["etag"]
    for wanted in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        known = http.get(name, headers={"If-None-Match": wanted})
        assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)
        assert "content-length" not in known.headers
    assert http.get(name, headers={"If-None-Match": '"other"'}).json() == first.json()
    http.post(f"{name}/checkpoints", json={"uri": "/new"})
    changed = http.get(name, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag
    assert "etag" not in http.get("/v1/students/nobody").headers
    assert "etag" not in http.post("/v1/students", json={"name": "tagged"}).headers
    assert "etag" in http.get("/openapi.json").headers


async def test_a_streamed_answer_passes_untouched() -> None:
    async def parts(_scope: Scope, _receive: Receive, send: Send) -> None:
        head = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"[1,", "more_body": True})
        await send({"type": "http.response.body", "body": b"2]"})

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(EtagMiddleware(parts)), base_url="http://x") as http:
        answer = await http.get("/", headers={"If-None-Match": "*"})
    assert (answer.status_code, answer.json(), answer.headers.get("etag")) == (200, [1, 2], None)


def test_links_lead_from_page_to_page(http: httpx2.Client) -> None:
    for i in range(5):
        http.post("/v1/problem-sets", json={"name": f"page-{i}"})
    seen, url = [], "/v1/problem-sets?limit=2"
    for _ in range(3):
        answer = http.get(url)
        seen += [item["name"] for item in answer.json()["items"]]
        assert ("next" in answer.links) == (answer.json()["next_cursor"] is not None)
        url = answer.links.get("next", {}).get("url", "")
    assert seen == [f"page-{i}" for i in range(5)]
    assert url == ""
    assert "limit=2" in http.get("/v1/problem-sets?limit=2").links["next"]["url"]


def test_health_and_readiness(service: Service) -> None:
    assert httpx2.get(f"{service.url}/healthz").json() == {"status": "ok"}
    database = "sqlite" if service.settings.database is None else "postgresql"
    expected = {"status": "ready", "version": __version__, "schema": "0001", "database": database}
    assert httpx2.get(f"{service.url}/readyz").json() == expected
    with service.client(None) as client:
        assert client.ready() == expected


def test_metrics_count_requests_under_their_routes_template(http: httpx2.Client) -> None:
    http.get("/v1/students/someone")
    http.get("/v1/students/else")
    http.get("/v1/no-such-route")
    answer = http.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    counted = 'paced_http_requests_total{method="GET",route="/v1/students/{name}",status="404"}'
    assert any(line.startswith(counted) and float(line.split()[-1]) >= 2 for line in lines)
    assert any('route="none",status="404"' in line for line in lines)
    assert any(line.startswith("paced_http_request_seconds_bucket{") for line in lines)
    assert "someone" not in answer.text


def test_a_database_that_is_away_is_a_503(tmp_path: Path) -> None:
    with postgres_databases() as url, serve(tmp_path / "data", url) as service, service.client() as client:
        build(client, tmp_path, 3)
        name = make_url(url).database
        with psycopg.connect(postgres_server(), autocommit=True) as conn:
            conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
            answer = httpx2.get(f"{service.url}/readyz")
            assert_problem(answer, 503, "no_database")
            assert answer.headers["retry-after"] == "1"
            with pytest.raises(Unavailable, match="no_database"):
                client.create_student(wire.StudentCreate(name="other"))
            conn.execute(f'CREATE DATABASE "{name}"')


def test_the_pool_is_too_small_for_a_while(tmp_path: Path) -> None:
    """Readers queue for connections; none is refused."""
    with serve(tmp_path / "data", None, pool_size=1) as service, service.client() as client:
        build(client, tmp_path, 3)
        found: list[list[wire.Problem]] = []

        def read(_: int) -> None:
            with Client(service.url, ADMIN_KEY, retry_s=0) as reader:
                found.append(list(reader.problems("sums")))

        at_once(8, read)
        assert [len(problems) for problems in found] == [3] * 8
