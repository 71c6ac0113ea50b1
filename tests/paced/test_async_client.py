"""The async client: the same routes, retries, pages and errors; and the service inside the test's own process."""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.main import create_app
from app.settings import Settings
from paced import AsyncClient, Client, errors, wire
from paced.routes import Routes
from paced.testing import InProcess, in_process
from tests.app.world import build
from tests.service import ADMIN_KEY, serve

PROBLEM = {"type": "urn:paced:error:busy", "title": "T", "status": 503, "detail": "why", "code": "busy"}
STUDENT = {"name": "s", "description": "", "latest_checkpoint": None, "created_at": "2026-11-25T08:00:00Z"}


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    settings = Settings(data=tmp_path_factory.mktemp("inside") / "data", admin_key=ADMIN_KEY)
    with in_process(create_app(settings)) as service:
        yield service


@pytest.fixture(params=["http", "in process"])
def connect(
    request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[type[Any]], Any]]:
    """Makes either client of the same service: over HTTP, or inside this process."""
    if request.param == "http":
        with serve(tmp_path / "data", None) as service:
            yield lambda kind: kind(service.url, ADMIN_KEY)
        return
    settings = Settings(data=tmp_path_factory.mktemp("inside") / "data", admin_key=ADMIN_KEY)
    with in_process(create_app(settings)) as inside:
        yield lambda kind: kind("http://service", ADMIN_KEY, http_transport=inside)


async def test_both_clients_see_the_same_service(connect: Callable[[type[Any]], Any], tmp_path: Path) -> None:
    with connect(Client) as client:
        curriculum = build(client, tmp_path, 25, holdout_share=0.0)
        async with connect(AsyncClient) as there:
            batch = await there.draw_batch(curriculum.curriculum_id, 5, key="k")
            assert client.draw_batch(curriculum.curriculum_id, 5, key="k") == batch
            assert [p async for p in there.problems("sums", limit=7)] == list(client.problems("sums", limit=7))
            more = tmp_path / "more.jsonl"
            more.write_text('{"prompt": "Compute 900 + 1.", "answer": "901"}\n')
            assert (await there.import_problems("sums", more)).n_imported == 1
            receipt = await there.acknowledge(batch.batch_id)
            assert (receipt.state, client.acknowledge(batch.batch_id).is_replay) == ("acknowledged", True)
            with pytest.raises(errors.NotFound, match="no curriculum"):
                await there.curriculum("cur_none")
            both = await asyncio.gather(*(there.draw_batch(curriculum.curriculum_id, 2) for _ in range(8)))
            assert len({problem_id for drawn in both for problem_id in drawn.problem_id}) == 16


def test_every_route_is_a_method_of_both_with_its_own_words() -> None:
    names = [name for name in dir(Routes) if not name.startswith("_")]
    assert len(names) >= 50
    with Client("http://service") as client:
        for name in names:
            method = getattr(client, name)
            assert method.__name__ == name
            assert method.__doc__
            assert "self" not in inspect.signature(method).parameters
            assert name in dir(AsyncClient)
    assert list(inspect.signature(client.draw_batch).parameters) == [
        "curriculum_id",
        "size",
        "run_id",
        "key",
        "include",
        "replaces",
    ]


def scripted(*answers: httpx2.Response | Exception) -> tuple[AsyncClient, list[httpx2.Request]]:
    left, sent = iter(answers), []

    async def respond(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return AsyncClient("http://service", "secret", retry_s=5, http_transport=httpx2.MockTransport(respond)), sent


async def test_it_waits_without_holding_up_others() -> None:
    busy = httpx2.Response(429, json={**PROBLEM, "status": 429}, headers={"Retry-After": "0.5"})
    client, sent = scripted(busy, httpx2.ReadError("reset"), httpx2.Response(201, json=STUDENT))
    started, ticks = time.monotonic(), 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.02)
            ticks += 1

    other = asyncio.create_task(tick())
    async with client:
        assert (await client.create_student(wire.StudentCreate(name="s"))).name == "s"
    other.cancel()
    assert time.monotonic() - started >= 0.5
    assert ticks > 5
    assert len({request.headers["Idempotency-Key"] for request in sent}) == 1
    assert len(sent) == 3


async def test_errors_are_the_same() -> None:
    client, _ = scripted(*[httpx2.ConnectError("refused")] * 100)
    async with client:
        with pytest.raises(errors.Unreachable, match="no answer from http://service"):
            await client.student("s")
    client, _ = scripted(httpx2.Response(409, json={**PROBLEM, "status": 409, "code": "lease_lost"}))
    async with client:
        with pytest.raises(errors.LeaseLost):
            await client.renew_lease("lea_1", wire.LeaseToken(token="t"))


async def test_an_application_that_does_not_start_says_so() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def gone(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise OSError("disk")

    with pytest.raises(RuntimeError, match="no database"), in_process(broken):
        pass
    with pytest.raises(OSError, match="disk"), in_process(gone):
        pass


def test_a_service_stops_though_the_test_beside_it_fails() -> None:
    heard: list[str] = []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        for _ in range(2):
            heard.append((await receive())["type"])
            await send({"type": f"{heard[-1]}.complete"})

    with pytest.raises(KeyError, match="of the test"), in_process(app):
        raise KeyError("of the test")
    assert heard == ["lifespan.startup", "lifespan.shutdown"]


async def test_pages_are_asked_for_one_by_one(inside: InProcess) -> None:
    async with AsyncClient("http://service", ADMIN_KEY, http_transport=inside) as client:
        for i in range(5):
            await client.create_student(wire.StudentCreate(name=f"s{i}"))
        names: AsyncIterator[wire.Student] = client.students()
        assert (await anext(names)).name == "s0"
        assert [student.name async for student in names] == ["s1", "s2", "s3", "s4"]
