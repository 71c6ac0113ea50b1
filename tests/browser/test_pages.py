"""Every page in Chromium: no complaint, no request to another host, accessible in both themes, fits narrow screens."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.app.world import World
from tests.browser.conftest import OpenPage
from tests.browser.pages import NAMES, addresses

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_accessible_and_keeps_to_itself(filled: World, open_page: OpenPage, name: str) -> None:
    seen = open_page()
    seen.open(addresses(filled)[name])
    if name == "not found":
        assert seen.complaints.pop().endswith("404 (Not Found)")
    seen.wait_for_figures()
    for theme in ("light", "dark"):
        seen.page.emulate_media(color_scheme=theme)
        found = Axe().run(seen.page).response["violations"]
        grave = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in {"serious", "critical"}]
        assert grave == [], theme
    seen.page.set_viewport_size({"width": 360, "height": 800})
    seen.wait_until("document.documentElement.scrollWidth <= 360")


@pytest.mark.parametrize("shared_service", ["sqlite"], indirect=True, scope="module")
def test_a_page_is_printed_dark_on_light_without_its_controls(filled: World, open_page: OpenPage) -> None:
    seen = open_page("dark")
    page = seen.page
    seen.open(addresses(filled)["overview"])
    seen.wait_for_figures()
    inks = (
        "[getComputedStyle(document.querySelector('h1')).color,"
        " ...[...document.querySelectorAll('.plot .xtitle')].map((title) => getComputedStyle(title).fill)]"
    )
    assert {lightness(ink) > 0.5 for ink in page.evaluate(inks)} == {True}
    page.emulate_media(media="print", color_scheme="dark")
    seen.wait_until(f"({inks}).every((ink) => ink.match(/[0-9]+/g).every((part) => part < 128))")
    expect(page.locator(".bar")).to_be_hidden()
    expect(page.locator(".menu")).to_be_hidden()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert lightness(page.evaluate("getComputedStyle(document.body).backgroundColor")) == 1
    assert page.pdf().startswith(b"%PDF")


def lightness(colour: str) -> float:
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / (3 * 255)
