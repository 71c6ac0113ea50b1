"""The review queue without scripts: one dispute at a time, right, wrong or skip; counted at the press of a button."""

import html
import re

import httpx2
import pytest

from paced import wire
from tests.app.conftest import MakeWorld
from tests.app.world import World, misjudge
from tests.dashboard.conftest import OpenBrowser
from tests.dashboard.test_problems import MakeKey
from tests.dashboard.test_signing import csrf_of


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    made = make_world(12, holdout_share=0.0)
    misjudge(made.client, made.curriculum.student, 4)
    return made


def queue(browser: httpx2.Client, world: World, **params: object) -> httpx2.Response:
    return browser.get("/disputes", params={"measurement": world.curriculum.measurement_id, **params})


def press(browser: httpx2.Client, page: str, word: str) -> httpx2.Response:
    """Send the form of a button, as a browser would."""
    form = next(found for found in re.findall(r"<form.*?</form>", page, re.DOTALL) if f">{word}" in found)
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))
    action = re.search(r'action="([^"]+)"', form)
    assert action is not None
    return browser.post(html.unescape(action[1]), data=fields)


def test_disputes_are_decided_one_by_one_and_counted(open_browser: OpenBrowser, key_of: MakeKey, world: World) -> None:
    browser = open_browser(key_of(wire.Scope.READ, wire.Scope.IMPORT).secret)
    first = world.client.disputes(world.curriculum.measurement_id, wire.DisputeKind.REFERENCE_IN_ANSWER)
    disputes = list(first)
    page = queue(browser, world).text
    assert f"Problem {disputes[0].ordinal}</a>, answer 1" in page
    assert f"<mark>{disputes[0].answer}</mark> units" in page
    effect = re.findall(r"<dd>(0\.\d+) → <strong>(0\.\d+)</strong>", page)
    before = world.estimate(disputes[0].problem_id)
    assert before.pass_rate is not None
    assert effect[0][0] == effect[1][0] == effect[1][1] == f"{before.pass_rate:.3f}"

    done = press(browser, page, "Right")
    assert done.status_code == 303
    page = browser.get(done.headers["location"]).text
    assert f"Problem {disputes[1].ordinal}</a>, answer 1" in page
    assert "fail → pass" in page
    skip = re.search(r'href="([^"]+)" data-key="S"', page)
    assert skip is not None
    page = browser.get(html.unescape(skip[1])).text
    assert f"Problem {disputes[2].ordinal}</a>, answer 1" in page
    page = browser.get(press(browser, page, "Wrong").headers["location"]).text
    page = browser.get(press(browser, page, "Right").headers["location"]).text
    assert "No more disputes" in page
    assert f"Problem {disputes[1].ordinal}</a>, answer 1" in queue(browser, world).text, "skipped, not decided"

    assert press(browser, page, "Count them now").status_code == 303
    after = world.estimate(disputes[0].problem_id)
    assert f"{after.pass_rate:.3f}" == effect[0][1]
    kept = list(world.client.reviews(world.curriculum.measurement_id))
    assert [(one.decided_by, one.verdict_after) for one in kept] == [
        ("someone", "pass"),
        ("someone", "fail"),
        ("someone", "pass"),
    ]
    assert all(one.counted_at for one in kept)


def test_a_reader_sees_the_queue_and_decides_nothing(open_browser: OpenBrowser, key_of: MakeKey, world: World) -> None:
    reader = open_browser(key_of(wire.Scope.READ).secret)
    page = queue(reader, world).text
    assert "sign in with a key of the scope import" in page
    assert 'data-key="R"' not in page
    url = f"/disputes?measurement={world.curriculum.measurement_id}"
    fields = {"dispute_id": 1, "observation_id": 1, "position": 0, "is_right": "true", "kind": "graders_differ"}
    assert reader.post(url, data={**fields, "csrf": csrf_of(page)}).status_code == 403
    assert reader.post(url, data=fields).status_code == 403
    assert list(world.client.reviews(world.curriculum.measurement_id)) == []


def test_each_kind_says_when_it_is_empty(browser: httpx2.Client, world: World) -> None:
    page = queue(browser, world, kind="graders_differ").text
    assert "No dispute" in page
    assert f"paced regrade {world.curriculum.measurement_id}" in page
    rows = queue(browser, world).url.copy_with(path="/disputes.json")
    assert len(browser.get(rows).json()["rows"]) == 4
