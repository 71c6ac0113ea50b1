"""Ten disputes by keyboard: each key decides, the next one is there at once, and every decision is kept."""

import pytest
from playwright.sync_api import expect

from paced import wire
from tests.app.world import World
from tests.browser.conftest import OpenPage

pytestmark = pytest.mark.timeout(120)


def test_ten_disputes_are_resolved_by_keyboard(filled: World, open_page: OpenPage) -> None:
    measurement_id = filled.curriculum.measurement_id
    disputes = list(filled.client.disputes(measurement_id, wire.DisputeKind.REFERENCE_IN_ANSWER))
    assert len(disputes) > 10
    seen = open_page()
    seen.open(f"/disputes?measurement={measurement_id}")
    keys = ["r", "w", "s", "r", "r", "w", "r", "s", "w", "r"]
    for key, dispute in zip(keys, disputes, strict=False):
        expect(seen.page.locator("#dispute .hint").first).to_contain_text(f"of observation {dispute.observation_id}.")
        seen.page.keyboard.press(key)
    expect(seen.page.locator("#dispute .hint").first).to_contain_text(f"of observation {disputes[10].observation_id}.")
    decided = {"r": "pass", "w": "fail"}
    expected = [decided[key] for key in keys if key in decided]
    kept = list(filled.client.reviews(measurement_id))
    assert [review.verdict_after for review in kept] == expected
    expect(seen.page.locator("#n-waiting")).to_have_text(str(len(expected)))
    seen.page.get_by_role("button", name="Count them now").click()
    expect(seen.page.locator("#n-waiting")).to_have_text("0")
    assert all(review.counted_at for review in filled.client.reviews(measurement_id))
