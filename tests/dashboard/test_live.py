"""`/live`: what changed, once, and nothing missed by a page that comes back."""

import json
from collections.abc import Iterator

import httpx2

from app.dashboard.store import TOPICS
from tests.app.conftest import MakeWorld


def events(browser: httpx2.Client, address: str = "/live", **headers: str) -> Iterator[tuple[str, str, list[str]]]:
    """(event, id, topics) as they come."""
    with browser.stream("GET", address, headers={"Accept": "text/event-stream", **headers}, timeout=20) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "event" in fields:
                yield fields["event"], fields["id"], json.loads(fields["data"])
                fields = {}


def test_a_page_is_told_what_changed(browser: httpx2.Client, make_world: MakeWorld) -> None:
    world = make_world(8)
    stream = events(browser)
    kind, _, topics = next(stream)
    assert (kind, topics) == ("ready", [])
    world.measure()
    seen: set[str] = set()
    while "observations" not in seen:
        kind, _, topics = next(stream)
        assert kind == "changed"
        seen |= set(topics)
    stream.close()
    assert seen <= set(TOPICS)


def test_a_page_that_comes_back_misses_nothing(browser: httpx2.Client, make_world: MakeWorld) -> None:
    world = make_world(8)
    first = events(browser)
    _, last_id, _ = next(first)
    first.close()
    world.measure()
    world.draw(2)
    for again in (events(browser, **{"Last-Event-ID": last_id}), events(browser, f"/live?last={last_id}")):
        next(again)
        _, _, topics = next(again)
        again.close()
        assert {"observations", "batches", "open_batches"} <= set(topics)


def test_strangers_hear_nothing(open_browser: object, browser: httpx2.Client) -> None:
    with httpx2.Client(base_url=browser.base_url) as stranger:
        assert stranger.get("/live").status_code == 401
