"""Batches: the list in pages, and a draw with the terms of each item as the API explains them."""

import csv
import io
import re

import httpx2
import pytest

from paced import wire
from tests.app.conftest import MakeWorld
from tests.app.world import World


def address(world: World, suffix: str = "", **query: object) -> str:
    more = "".join(f"&{name}={value}" for name, value in query.items())
    return f"/batches{suffix}?curriculum={world.curriculum.curriculum_id}{more}"


def test_nothing_drawn_yet(browser: httpx2.Client, make_world: MakeWorld) -> None:
    page = browser.get(address(make_world(4))).text
    assert "Nothing has been drawn yet" in page
    assert "paced distill --curriculum" in page


def test_the_list_in_pages(browser: httpx2.Client, make_world: MakeWorld) -> None:
    world = make_world(40)
    world.measure()
    run = world.client.create_run(wire.RunCreate(curriculum_id=world.curriculum.curriculum_id, name="first"))
    drawn = [world.draw(4) for _ in range(3)] + [world.draw(4, run_id=run.run_id)]
    world.client.acknowledge(drawn[0].batch_id)

    first = browser.get(address(world, ".json", limit=3)).json()
    assert [row["batch_id"] for row in first["rows"]] == [batch.batch_id for batch in drawn[:0:-1]]
    assert first["next_below"] == 1
    rest = browser.get(address(world, ".json", limit=3, below=1)).json()
    assert [row["batch_id"] for row in rest["rows"]] == [drawn[0].batch_id]
    assert rest["next_below"] is None
    assert rest["rows"][0]["state"] == "acknowledged"
    of_run = browser.get(address(world, ".json", run=run.run_id)).json()
    assert [row["batch_id"] for row in of_run["rows"]] == [drawn[3].batch_id]

    page = browser.get(address(world, limit=3)).text
    assert re.findall(r'href="/batches/(bat_[\w-]+)"', page) == [row["batch_id"] for row in first["rows"]]
    (older,) = re.findall(r'href="([^"]+)" rel="next"', page)
    assert drawn[0].batch_id in browser.get(older.replace("&amp;", "&")).text
    assert "No batch matches" in browser.get(address(world, run="run_other")).text

    table = list(csv.DictReader(io.StringIO(browser.get(address(world, ".csv")).text)))
    assert [row["batch_id"] for row in table] == [batch.batch_id for batch in reversed(drawn)]
    assert table[0]["run_id"] == run.run_id
    assert table[1]["run_id"] == ""


@pytest.mark.parametrize("preset", [wire.Preset.DEFAULT, wire.Preset.PAPER])
def test_a_draw_is_explained_as_the_api_does(
    browser: httpx2.Client, make_world: MakeWorld, preset: wire.Preset
) -> None:
    world = make_world(40, preset=preset)
    world.measure()
    batch = world.draw(6)
    known = world.client.explain(batch.batch_id)
    found = browser.get(f"/batches/{batch.batch_id}.json").json()
    assert len(found["rows"]) == 6
    for row, item in zip(found["rows"], known.items, strict=True):
        assert (row["ordinal"], row["weight"], row["loss_weight"]) == (item.ordinal, item.weight, item.loss_weight)
        assert (row["low"], row["high"]) == item.interval
        assert row["belief"] == item.posterior
        assert row["prompt"] == f"Compute {item.ordinal} + {item.ordinal + 1}."
        assert item.draw_probability is not None
        assert row["times_uniform"] == pytest.approx(item.draw_probability * known.n_eligible)
    table = list(csv.DictReader(io.StringIO(browser.get(f"/batches/{batch.batch_id}.csv").text)))
    assert [int(row["ordinal"]) for row in table] == [item.ordinal for item in known.items]
    page = browser.get(f"/batches/{batch.batch_id}")
    assert page.status_code == 200
    for item in known.items:
        assert f"Compute {item.ordinal} + {item.ordinal + 1}." in page.text


def test_a_draw_without_closed_form(browser: httpx2.Client, make_world: MakeWorld) -> None:
    world = make_world(20, selection="thompson")
    world.measure()
    batch = world.draw(3)
    page = browser.get(f"/batches/{batch.batch_id}")
    assert page.status_code == 200
    assert browser.get(f"/batches/{batch.batch_id}.json").json()["rows"][0]["times_uniform"] is None


def test_a_batch_that_is_not_there(browser: httpx2.Client) -> None:
    answer = browser.get("/batches/bat_nope")
    assert answer.status_code == 404
    assert "bat_nope" in answer.text
