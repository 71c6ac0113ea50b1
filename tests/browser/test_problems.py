"""Finding problems in Chromium: by query and chips, by link, with scripts and without."""

import pytest
from playwright.sync_api import expect

from tests.app.conftest import MakeWorld
from tests.app.world import World
from tests.browser.conftest import OpenPage

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("has_scripts", [True, False])
def test_problems_are_filtered_sorted_and_opened(filled: World, open_page: OpenPage, has_scripts: bool) -> None:
    seen = open_page(java_script_enabled=has_scripts)
    page, curriculum = seen.page, filled.curriculum
    seen.open(f"/problems?curriculum={curriculum.curriculum_id}")
    page.get_by_label("Query", exact=True).fill("p<0.5 compute")
    page.get_by_role("button", name="Search").click()
    n = filled.client.estimate_page(curriculum.measurement_id, query="p<0.5 compute").n_matches
    expect(page.locator(".count")).to_contain_text(f"{n} problems match")
    page.get_by_role("link", name="p, 90 %").click()
    rows = list(filled.client.estimates(curriculum.measurement_id, query="p<0.5 compute sort:p", limit=50))
    expect(page.locator("tbody tr").first).to_contain_text(f"{rows[0].ordinal}")
    expect(page.locator("tbody tr")).to_have_count(min(50, n))
    page.get_by_role("link", name="Remove text:compute").click()
    expect(page.get_by_label("Query", exact=True)).to_have_value("p<0.5 sort:p")
    page.locator("tbody a").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Problem {rows[0].ordinal}")


@pytest.mark.slow
def test_problem_40000_of_100000_is_opened_by_its_link(make_world: MakeWorld, open_page: OpenPage) -> None:
    curriculum = make_world(100_000).curriculum
    seen, problem_set = open_page(), curriculum.problem_set
    seen.open(f"/problems/{problem_set}/40000?curriculum={curriculum.curriculum_id}")
    expect(seen.page.get_by_role("heading", level=1)).to_have_text("Problem 40000")
    expect(seen.page.locator(".text").first).to_have_text("Compute 40000 + 40001.")
    seen.open(f"/problems?curriculum={curriculum.curriculum_id}&q=ordinal:39998..40002")
    expect(seen.page.locator("tbody tr")).to_have_count(5)
    seen.page.get_by_role("link", name="Problem 40001").click()
    expect(seen.page.get_by_role("heading", level=1)).to_have_text("Problem 40001")
