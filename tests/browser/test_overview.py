"""The overview in Chromium: signing in by a link, and the histogram that moves while answers arrive."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, expect

from docs import screenshots
from paced import wire
from tests.app.conftest import MakeWorld
from tests.app.world import World
from tests.browser.conftest import OpenPage
from tests.browser.training import add_runs

pytestmark = pytest.mark.timeout(120)
# A browser without a window never hides a page: the page is told by the two things that it listens to.
SEEN = """(isSeen) => {
  Object.defineProperty(document, "hidden", {value: !isSeen, configurable: true});
  document.dispatchEvent(new Event("visibilitychange"));
}"""
COUNTS = "JSON.stringify(document.querySelector('#figure-{}').querySelector('.plot').data?.[0].{} ?? null)"


def test_the_histogram_moves_while_answers_arrive(make_world: MakeWorld, open_page: OpenPage) -> None:
    world: World = make_world(60, holdout_share=0.2)
    world.measure(lambda _id: 1)
    seen = open_page(key=None)
    page = seen.page
    seen.open(world.client.create_sign_in_link().path)
    page.get_by_role("button", name="Open the dashboard").click()
    seen.open(f"/overview?curriculum={world.curriculum.curriculum_id}")
    seen.wait_for_figures()
    expect(page.locator("#live-status")).to_have_text("Live")
    bars, heat = COUNTS.format("histogram", "y"), COUNTS.format("heat", "x")
    before = page.evaluate(bars)
    assert page.evaluate(heat) == "[0]"

    world.new_checkpoint()
    world.measure(lambda _id: 7)
    seen.wait_until(f"({bars}) !== {before!r}")
    seen.wait_until(f"({heat}) === '[0,1]'")
    expect(page.locator("#live-at")).to_contain_text("updated")
    expect(page.locator("#stages")).to_contain_text("120 groups")
    figure = page.locator("#figure-histogram")
    figure.locator("summary").click()
    expect(figure.locator("tbody tr")).to_have_count(20)
    with page.expect_download() as saved:
        figure.get_by_role("button", name="PNG").click()
    assert saved.value.suggested_filename == "histogram.png"
    assert saved.value.path().read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("shared_service", ["sqlite"], indirect=True, scope="module")
def test_a_hidden_page_asks_for_nothing_and_catches_up(make_world: MakeWorld, open_page: OpenPage) -> None:
    world: World = make_world(30, holdout_share=0.2)
    world.measure(lambda _id: 1)
    seen = open_page()
    page, status = seen.page, seen.page.locator("#live-status")
    seen.open(f"/overview?curriculum={world.curriculum.curriculum_id}")
    seen.wait_for_figures()
    expect(status).to_have_text("Live")

    page.evaluate(SEEN, False)
    expect(status).to_have_text("Paused")
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))
    world.new_checkpoint()
    world.measure(lambda _id: 7)
    page.wait_for_timeout(2500)  # a page that is seen has asked by then
    assert asked == []
    expect(page.locator("#stages")).to_contain_text("30 groups")

    page.evaluate(SEEN, True)
    expect(page.locator("#stages")).to_contain_text("60 groups")
    followed = [urlsplit(address) for address in asked if urlsplit(address).path == "/live"]
    assert "last" in parse_qs(followed[0].query)


@pytest.mark.parametrize("shared_service", ["sqlite"], indirect=True, scope="module")
def test_what_was_not_there_at_first_appears(make_world: MakeWorld, open_page: OpenPage) -> None:
    world: World = make_world(30, holdout_share=0.2)
    body = wire.RunCreate(curriculum_id=world.curriculum.curriculum_id, name="young")
    run_id = world.client.create_run(body).run_id
    overview, run = open_page(), open_page()
    overview.open(f"/overview?curriculum={world.curriculum.curriculum_id}")
    run.open(f"/runs/{run_id}")
    expect(overview.page.locator("#figure-holdout")).to_contain_text("Nothing to draw yet")
    expect(run.page.locator("#main")).to_contain_text("has sent no step yet")
    for seen in (overview, run):
        expect(seen.page.locator("#live-status")).to_have_text("Live")

    world.measure(lambda _id: 3)
    world.client.append_metrics(run_id, [wire.MetricPoint(step=0, stage=wire.Stage.FORWARD_KL, values={"loss": 1.0})])
    overview.wait_until("document.querySelector('#figure-holdout .plot')?.data?.[0].y.length === 1")
    run.wait_until("document.querySelector('#figure-loss .plot')?.data?.[0].y[0] === 1")
    expect(run.page.locator("#main")).not_to_contain_text("has sent no step yet")


@pytest.mark.parametrize("shared_service", ["sqlite"], indirect=True, scope="module")
def test_a_page_whose_service_falters_says_so_and_tries_again(make_world: MakeWorld, open_page: OpenPage) -> None:
    world: World = make_world(30, holdout_share=0.2)
    seen = open_page()
    page, status = seen.page, seen.page.locator("#live-status")
    seen.open(f"/overview?curriculum={world.curriculum.curriculum_id}")
    expect(status).to_have_text("Live")
    page.route("**/overview**", lambda route: route.fulfill(status=503, body="busy"), times=1)
    world.measure(lambda _id: 3)
    expect(status).to_have_text("The service does not answer; trying again")
    expect(page.locator("#stages")).to_contain_text("30 groups")
    expect(status).to_have_text("Live")
    assert {text.split(": ")[-1] for text in seen.complaints} == {
        "the server responded with a status of 503 (Service Unavailable)"
    }
    seen.complaints.clear()


@pytest.mark.parametrize("shared_service", ["sqlite"], indirect=True, scope="module")
def test_a_table_that_is_read_is_renewed_where_it_was(make_world: MakeWorld, open_page: OpenPage) -> None:
    world: World = make_world(60)
    world.measure(lambda _id: 3)
    runs = add_runs(world.client, world.curriculum, 4)
    seen = open_page(width=360)
    page, table = seen.page, seen.page.locator("#runs .scroll")
    seen.open(f"/runs?curriculum={world.curriculum.curriculum_id}")
    page.get_by_label("Compare kl-seed1").check()
    table.evaluate("(it) => { it.scrollLeft = 90; it.focus(); }")
    expect(page.locator("#live-status")).to_have_text("Live")
    world.client.update_run(runs[0].run_id, wire.RunState.FAILED)
    expect(page.locator("#runs")).to_contain_text("failed")
    assert table.evaluate("(it) => [it.scrollLeft, it === document.activeElement]") == [90, True]
    expect(page.get_by_label("Compare kl-seed1")).to_be_checked()


@pytest.mark.parametrize("shared_service", ["sqlite"], indirect=True, scope="module")
def test_the_theme_is_kept(filled: World, open_page: OpenPage) -> None:
    seen = open_page("light")
    page = seen.page
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Theme").click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    assert page.evaluate(background) == dark


@pytest.mark.parametrize("shared_service", ["sqlite"], indirect=True, scope="module")
def test_pictures_are_taken_of_every_page(filled: World, chromium: Browser, tmp_path: Path) -> None:
    addresses = dict(screenshots.pages(filled.client))
    assert {"sign-in", "overview", "problems", "problem", "batches", "batch", "runs", "run", "comparison"} <= set(
        addresses
    )
    page = screenshots.opened(chromium, "dark", screenshots.SIZES["-narrow"])
    screenshots.take(page, filled.client.url + addresses["sign-in"], tmp_path / "sign-in.png")
    screenshots.sign_in(page, filled.client)
    for name in ("overview", "batch"):
        screenshots.take(page, filled.client.url + addresses[name], tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    screenshots.take(page, f"{filled.client.url}/batches/bat_nope", tmp_path / "nothing.png")
    assert not (tmp_path / "nothing.png").exists()
    page.context.close()
