"""Every page in Chromium: no complaint, no request to another host, accessible in both themes, fits narrow screens."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.app.world import World
from tests.browser.conftest import OpenPage
from tests.browser.pages import NAMES, addresses

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    "shared_service", ["sqlite"], indirect=True, scope="module"
)  # pages ask services, not databases
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
