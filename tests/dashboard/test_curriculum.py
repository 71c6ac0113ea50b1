"""The curriculum page over HTTP: a change previewed in its address, applied by its form, refused in words."""

import csv
import io
from collections.abc import Callable

import httpx2
import pytest

from app.dashboard.sliders import Sliders, strata_of
from app.dashboard.words import differences, effects
from app.errors import Invalid
from paced import wire
from tests.app.conftest import MakeWorld
from tests.app.world import World
from tests.dashboard.conftest import OpenBrowser
from tests.dashboard.test_signing import csrf_of

MakeKey = Callable[..., wire.KeyCreated]


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    made = make_world(80, holdout_share=0.0)
    made.measure()
    return made


def address(world: World, **fields: object) -> str:
    query = {"curriculum": world.curriculum.curriculum_id, **fields}
    return f"/curricula?{httpx2.QueryParams({name: str(value) for name, value in query.items()})}"


def test_without_a_change_it_shows_what_is(world: World, browser: httpx2.Client) -> None:
    page = browser.get(address(world)).text
    assert "Curriculum main-" in page
    assert "As it is" in page
    assert 'name="gamma" min="0" step="any" value="2"' in page
    found = browser.get(address(world).replace("/curricula", "/curricula.json")).json()
    assert found["preview"]["moved_share"] == 0.0
    assert (found["differences"], found["effects"], found["fault"]) == ([], [], None)


def test_a_change_in_the_address_is_previewed_and_not_made(world: World, browser: httpx2.Client) -> None:
    page = browser.get(address(world, gamma=6, alpha=1, beta=1, band_low=0, band_high=1, min_groups=0)).text
    assert "What would change" in page
    assert "γ 2 → 6" in page
    assert "of the draw goes to other problems." in page
    assert world.client.curriculum(world.curriculum.curriculum_id).version == 1


def test_what_an_address_leaves_out_stays(world: World, browser: httpx2.Client) -> None:
    strata = [wire.Stratum(tag="sum", share=0.25)]
    world.client.update_curriculum(world.curriculum.curriculum_id, wire.CurriculumUpdate(strata=strata))
    assert '<span class="chip">γ 2 → 6</span></p>' in browser.get(address(world, gamma=6)).text
    assert "shares by tag sum 0.25 → none" in browser.get(address(world, gamma=6, shares="")).text


@pytest.mark.parametrize(
    ("tag", "share"),
    [
        ("sum, two digits", 0.2),
        ('the "hard" ones', 1 / 3),
        ("a\\\\b", 0.07),
        ("plain", 1e-5),
        ("sum: of 20%", 0.123456789),
    ],
)
def test_a_tag_and_its_share_are_read_back_as_they_are_written(
    world: World, browser: httpx2.Client, tag: str, share: float
) -> None:
    strata = [wire.Stratum(tag=tag, share=share), wire.Stratum(tag="other", share=0.5)]
    changed = world.client.update_curriculum(world.curriculum.curriculum_id, wire.CurriculumUpdate(strata=strata))
    assert Sliders.of(changed).update(changed).strata == strata
    found = browser.get(address(world, gamma=6, shares=Sliders.of(changed).shares).replace("?", ".json?", 1)).json()
    assert (found["fault"], found["differences"]) == (None, ["γ 2 → 6"])


def test_the_form_applies_a_change_under_a_new_version(world: World, browser: httpx2.Client) -> None:
    token = csrf_of(browser.get(address(world)).text)
    path = f"/curricula/{world.curriculum.curriculum_id}"
    form = {
        "csrf": token,
        "version": "1",
        "gamma": "4",
        "band_low": "0.1",
        "band_high": "0.9",
        "min_groups": "1",
        "retest_share": "0.05",
        "shares": "sum 25%",
    }
    answer = browser.post(path, data=form)
    assert answer.status_code == 303, answer.text
    page = browser.get(answer.headers["location"]).text
    assert "Version 2 is in use" in page
    assert "γ 2 → 4; band none → 0.1–0.9; least measurements 0 → 1; shares by tag none → sum 0.25" in page
    made = world.client.curriculum(world.curriculum.curriculum_id)
    assert (made.gamma, made.filters.band, made.filters.min_groups, made.retest_share) == (4.0, (0.1, 0.9), 1, 0.05)
    assert [(stratum.tag, stratum.share) for stratum in made.strata] == [("sum", 0.25)]
    stale = browser.post(path, data={**form, "gamma": "5"})
    assert stale.status_code == 409
    assert "is at version 2 now" in stale.text
    back = browser.post(path, data={**form, "version": "2", "band_low": "0", "band_high": "1", "shares": ""})
    assert back.status_code == 303
    again = world.client.curriculum(world.curriculum.curriculum_id)
    assert (again.version, again.filters.band, again.strata) == (3, None, [])


def test_what_cannot_be_is_said_where_it_was_asked(world: World, browser: httpx2.Client) -> None:
    for fields, told in (
        ({"band_low": 0.8, "band_high": 0.2}, "the band&#39;s lower end must lie below its upper end"),
        ({"gamma": 100}, "gamma: Input should be less than or equal to 64"),
        ({"gamma": "much"}, "gamma: Input should be a valid number"),
        ({"shares": "algebra"}, "&#39;algebra&#39; is no tag with a share"),
    ):
        page = browser.get(address(world, **fields))
        assert page.status_code == 200
        assert told in page.text
        assert "This cannot be" in page.text
    token = csrf_of(browser.get(address(world)).text)
    refused = browser.post(
        f"/curricula/{world.curriculum.curriculum_id}", data={"csrf": token, "band_low": "0.8", "band_high": "0.2"}
    )
    assert refused.status_code == 422
    assert world.client.curriculum(world.curriculum.curriculum_id).version == 1


def test_only_a_key_that_may_train_applies(world: World, open_browser: OpenBrowser, key_of: MakeKey) -> None:
    reader = open_browser(key_of(wire.Scope.READ).secret)
    page = reader.get(address(world, gamma=6)).text
    assert "sign in with a key of scope" in page
    assert ">Apply<" not in page
    path = f"/curricula/{world.curriculum.curriculum_id}"
    assert reader.post(path, data={"csrf": csrf_of(page), "gamma": "6"}).status_code == 403
    trainer = open_browser(key_of(wire.Scope.READ, wire.Scope.TRAIN).secret)
    assert trainer.post(path, data={"gamma": "6"}).status_code == 403, "without the page's token"
    assert world.client.curriculum(world.curriculum.curriculum_id).version == 1


def test_the_preview_is_exported_by_bin(world: World, browser: httpx2.Client) -> None:
    text = browser.get(address(world, gamma=6).replace("/curricula", "/curricula.csv")).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert (len(rows), rows[0]["low"], rows[-1]["high"]) == (20, "0.0", "1.0")
    for column in ("problems", "draw_now", "draw_changed", "loss_now", "loss_changed"):
        assert sum(float(row[column]) for row in rows) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("algebra 20%", [("algebra", 0.2)]),
        ("number theory: 0.25, geometry=10 %", [("number theory", 0.25), ("geometry", 0.1)]),
    ],
)
def test_shares_are_read(text: str, expected: list[tuple[str, float]]) -> None:
    assert [(one["tag"], one["share"]) for one in strata_of(text)] == [(tag, pytest.approx(s)) for tag, s in expected]


@pytest.mark.parametrize("text", ["algebra", "0.2", "algebra 1.2.3", "algebra, 20%"])
def test_shares_that_cannot_be_read_are_named(text: str) -> None:
    with pytest.raises(Invalid, match="is no tag with a share"):
        strata_of(text)


def test_sliders_stand_where_the_rule_is(world: World) -> None:
    present = world.curriculum
    assert Sliders().over(present) == Sliders.of(present)
    unchanged = Sliders.of(present).update(present)
    assert world.client.update_curriculum(present.curriculum_id, unchanged).version == 1


def test_differences_name_each_field() -> None:
    before = {"gamma": 2.0, "kernel": {"alpha": 1.0, "beta": 1.0}, "strata": []}
    after = {"gamma": 2.0, "kernel": {"alpha": 2.5, "beta": 1.0}, "strata": [{"tag": "a", "share": 0.5}]}
    assert differences(before, after) == ["α 1 → 2.5", "shares by tag none → a 0.5"]
    assert differences(before, before) == []


def preview(**changed: object) -> wire.CurriculumPreview:
    """The example of the API with another outcome."""
    config = wire.CurriculumPreview.model_config["json_schema_extra"]
    assert isinstance(config, dict)
    shown = config["examples"][0]  # type: ignore[index,call-overload]
    sides = {name: changed.pop(name) for name in ("moved_share",) if name in changed}
    return wire.CurriculumPreview.model_validate({**shown, **sides, "changed": {**shown["changed"], **changed}})


def test_effects_are_told_in_words() -> None:
    found = effects(preview(moved_share=0.25, frontier_share=0.9, mean_pass_rate=0.46, effective_problems=100.0))
    assert found == [
        "25% of the draw goes to other problems.",
        "The share on the frontier (0.1 < p < 0.9) rises from 82% to 90%.",
        "The number of problems that it is effectively spread over falls from 172 to 100.",
    ]
    assert effects(preview(n_drawable=0)) == ["Nothing could be drawn any more."]
    assert effects(preview(moved_share=None)) == ["290 problems could be drawn, where now none can."]
    assert effects(preview(moved_share=0.0)) == []
    loss = effects(preview(moved_share=0.0, loss_shares=[0.5, 0.5]))
    assert loss == ["The draw stays; 10% of the weight in the loss moves."]
