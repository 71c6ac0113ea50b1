"""The overview: its figures hold the numbers of the API, its twins agree, and it is whole without scripts."""

import csv
import html
import io
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import plotly.graph_objects as go
import pytest

from app.dashboard.rendering import number
from paced import wire
from tests.app.conftest import MakeWorld, shared_clock, shared_service  # noqa: F401
from tests.app.world import World, build, group, leased
from tests.service import Service, TestClock

BLOCK = re.compile(r'data-figure="(\w+)".*?<script type="application/json">(.*?)</script>', re.DOTALL)


@pytest.fixture(scope="module")
def learning(
    shared_service: Service,  # noqa: F811
    shared_clock: TestClock,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """A student better at its second checkpoint, three batches drawn."""
    with shared_service.client() as client:
        made = build(client, tmp_path_factory.mktemp("problems"), 60, suffix="-learning", holdout_share=0.3)
        world = World(shared_service, client, shared_clock, made)
        world.measure(lambda i: i % 5)
        world.new_checkpoint()
        world.measure(lambda i: 2 + i % 7)
        for _ in range(3):
            world.draw(8)
        yield world


def complete(browser: httpx2.Client, world: World) -> dict[str, Any]:
    """The JSON once old checkpoints are counted."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        found: dict[str, Any] = browser.get(address(world, ".json")).json()
        if found["is_complete"]:
            return found
    raise AssertionError("the checkpoints were never all counted")


def address(world: World, suffix: str = "") -> str:
    return f"/overview{suffix}?measurement={world.curriculum.measurement_id}"


def drawn(page: str) -> dict[str, Any]:
    return {name: json.loads(html.unescape(block)) for name, block in BLOCK.findall(page)}


def test_an_empty_service_says_what_to_do(browser: httpx2.Client) -> None:  # before any world is made
    page = browser.get("/overview")
    assert page.status_code == 200
    assert "Nothing is measured yet" in page.text
    assert "paced import" in page.text


def test_a_measurement_without_a_curriculum(browser: httpx2.Client, make_world: MakeWorld) -> None:
    world = make_world(4)
    profile = world.client.create_profile(wire.ProfileCreate(max_tokens=17))
    body = wire.MeasurementCreate(
        student=world.curriculum.student, problem_set=world.curriculum.problem_set, profile_id=profile.profile_id
    )
    made = world.client.create_measurement(body)
    page = browser.get(f"/overview?measurement={made.measurement_id}")
    assert page.status_code == 200
    assert "No curriculum draws from these problems yet" in page.text
    assert browser.get(f"/overview.json?measurement={made.measurement_id}").json()["law"] is None


def test_numbers_are_those_of_the_api(browser: httpx2.Client, learning: World) -> None:
    world = learning
    found = complete(browser, world)
    measurement = world.curriculum.measurement_id
    points = [wire.HoldoutPoint.model_validate(spread["holdout"]) for spread in found["spreads"]]
    for point, known in zip(points, world.client.holdout(measurement), strict=True):
        assert point.model_copy(update={"se": None}) == known.model_copy(update={"se": None})
        assert point.se is not None
        assert known.se is not None
        assert abs(point.se - known.se) < 1e-12
    assert wire.Frontier.model_validate(found["frontier"]) == world.client.frontier(measurement)
    for spread in found["spreads"]:
        assert sum(spread["counts"]) == spread["n_groups"] == 60
        assert len(spread["counts"]) == 9
    assert [batch["seq"] for batch in found["batches"]] == [2, 1, 0]
    counts = {row["stage"]: row["count"] for row in found["rows"]}
    assert counts == {
        "problems": 60,
        "students": 2,
        "rollouts": 120,
        "estimates": 60,
        "curricula": 1,
        "batches": 3,
        "training": 0,
    }


def test_the_csv_has_the_rows_of_the_json(browser: httpx2.Client, learning: World) -> None:
    world = learning
    rows = browser.get(address(world, ".json")).json()["rows"]
    table = list(csv.DictReader(io.StringIO(browser.get(address(world, ".csv")).text)))
    assert [(row["stage"], row["count"], row["what"]) for row in table] == [
        (row["stage"], str(row["count"]), row["what"]) for row in rows
    ]


def test_figures_hold_the_numbers_of_the_json_and_are_plotlys(browser: httpx2.Client, learning: World) -> None:
    world = learning
    found = complete(browser, world)
    page = browser.get(address(world)).text
    plots = drawn(page)
    assert set(plots) == {"histogram", "heat", "holdout", "rollouts", "draws", "tags"}
    for plot in plots.values():
        text = re.sub(r'"\$[\w-]+"', '"#123456"', json.dumps(plot))  # colours of the style sheet
        go.Figure(json.loads(text))  # raises where Plotly knows no such attribute
    bars, draws, _kernel = plots["histogram"]["data"]
    assert bars["y"] == found["law"]["problem_shares"]
    assert draws["y"] == found["law"]["present"]["draw_shares"]
    columns = list(zip(*plots["heat"]["data"][0]["z"], strict=True))
    assert [sum(column) for column in columns] == [1.0, 1.0]
    assert plots["holdout"]["data"][2]["y"] == [spread["holdout"]["pass_rate"] for spread in found["spreads"]]


def test_every_figure_has_its_table_without_scripts(browser: httpx2.Client, learning: World) -> None:
    world = learning
    page = browser.get(address(world)).text
    assert page.count("<figure") == page.count('<details class="numbers">') == 6
    assert "style=" not in page
    assert re.search(r"<script(?![^>]*(src=|application/json))", page) is None


def test_the_page_of_a_measurement_that_is_not_there(browser: httpx2.Client) -> None:
    answer = browser.get("/overview?measurement=mea_999999")
    assert answer.status_code == 404
    assert "mea_999999" in answer.text
    assert browser.get("/overview.json?measurement=mea_999999", headers={"Accept": "application/json"}).json()[
        "code"
    ] == ("not_found")


def test_what_nothing_was_drawn_from_has_no_figure_but_says_so(browser: httpx2.Client, make_world: MakeWorld) -> None:
    world = make_world(4)
    page = browser.get(address(world)).text
    assert "Nothing to draw yet." in page


def test_names_of_students_are_escaped(browser: httpx2.Client, make_world: MakeWorld) -> None:
    world = make_world(4)
    answer = browser.get(f"/overview?measurement={world.curriculum.measurement_id}&curriculum=<script>x</script>")
    assert answer.status_code == 404
    assert "<script>x" not in answer.text


def test_a_hold_out_that_is_measured_in_part_is_no_newest_point(browser: httpx2.Client, make_world: MakeWorld) -> None:
    world = make_world(60, holdout_share=0.3)
    world.measure(lambda i: i % 5)
    before = world.client.holdout(world.curriculum.measurement_id)
    world.new_checkpoint()
    lease = world.claim(3)
    world.report(lease, [group(i, 8, checkpoint=1) for i in leased(lease)])
    found = complete(browser, world)
    newest = found["spreads"][-1]["holdout"]
    assert (newest["pass_rate"], newest["n_problems"] < before[-1].n_problems) == (1.0, True)
    page = browser.get(address(world)).text
    assert f"{100 * before[-1].pass_rate:.1f} %" in page
    assert "100.0 %" not in page


@pytest.mark.parametrize(
    ("value", "text"), [(999.6, "1,000"), (99.949, "99.9"), (0.57, "0.57"), (1234567.8, "1,234,568"), (None, "–")]
)
def test_numbers_are_for_reading(value: float | None, text: str) -> None:
    assert number(value) == text
