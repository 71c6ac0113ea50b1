"""What people do about training: sharpen a draw and apply it, compare runs, take the numbers along."""

import csv

import pytest

from tests.app.world import World
from tests.browser.conftest import OpenPage

pytestmark = pytest.mark.timeout(120)


def test_gamma_is_moved_previewed_and_applied(filled: World, open_page: OpenPage) -> None:
    curriculum_id = filled.curriculum.curriculum_id
    before = filled.client.curriculum(curriculum_id)
    seen = open_page()
    seen.open(f"/curricula?curriculum={curriculum_id}")
    seen.wait_for_figures()
    page = seen.page
    page.locator("[data-of=gamma]").fill(f"{before.gamma + 4:g}")
    page.get_by_text(f"γ {before.gamma:g} → {before.gamma + 4:g}").wait_for()
    page.get_by_text("of the draw goes to other problems.").wait_for()
    seen.wait_until("document.querySelector('#figure-draws .plot').data.length === 3")
    page.locator("#figure-draws summary").click()
    headers = page.locator("#figure-draws thead th")
    assert headers.count() == page.locator("#figure-draws tbody tr").first.locator("td").count()
    assert page.input_value("#gamma") == f"{before.gamma + 4:g}"
    assert f"gamma={before.gamma + 4:g}" in page.url
    assert "csrf" not in page.url
    page.fill("#band_low", "0.9")
    page.fill("#band_high", "0.1")
    page.get_by_text("lower end must lie below").wait_for()
    page.fill("#band_low", "0")
    page.fill("#band_high", "1")
    page.get_by_text("What would change").wait_for()
    assert filled.client.curriculum(curriculum_id).version == before.version
    page.get_by_role("button", name="Apply").click()
    page.get_by_text(f"Version {before.version + 1} is in use").wait_for()
    assert filled.client.curriculum(curriculum_id).gamma == before.gamma + 4


def test_a_rule_changes_without_scripts(filled: World, open_page: OpenPage) -> None:
    curriculum_id = filled.curriculum.curriculum_id
    version = filled.client.curriculum(curriculum_id).version
    seen = open_page(java_script_enabled=False)
    seen.open(f"/curricula?curriculum={curriculum_id}")
    page = seen.page
    page.fill("#alpha", "3")
    page.get_by_role("button", name="Preview").click()
    page.get_by_text("What would change").wait_for()
    assert page.input_value("#alpha") == "3"
    assert page.get_by_role("table").count() >= 2
    page.get_by_role("button", name="Apply").click()
    page.get_by_text(f"Version {version + 1} is in use").wait_for()
    assert filled.client.curriculum(curriculum_id).kernel.alpha == 3.0


def test_two_runs_are_compared_and_exported(filled: World, open_page: OpenPage) -> None:
    seen = open_page()
    seen.open(f"/runs?measurement={filled.curriculum.measurement_id}")
    page = seen.page
    for name in ("kl-seed1", "kl-seed2"):
        page.get_by_label(f"Compare {name}").check()
    page.get_by_role("button", name="Compare the ticked").click()
    page.wait_for_url("**/runs/compare?**")
    seen.wait_for_figures()
    names = "document.querySelector('#figure-comparison .plot').data.map((trace) => trace.name)"
    assert "kl, mean of 2" in page.evaluate(names)
    page.select_option("[name=by]", "tokens")
    page.wait_for_url("**by=tokens**")
    seen.wait_for_figures()
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    with download.value.path().open() as file:
        rows = list(csv.DictReader(file))
    assert {row["run"] for row in rows} == {"kl-seed1", "kl-seed2"}
    assert len(rows) == 120
    assert float(rows[-1]["x"]) > 10_000, "tokens, not steps"
