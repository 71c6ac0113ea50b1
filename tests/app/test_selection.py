"""What a curriculum may draw: filters, strata and cool-down over HTTP, changed while it runs."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest

from paced import wire
from paced.errors import BadRequest, NothingEligible
from tests.app.conftest import MakeWorld
from tests.app.world import World
from tests.service import ADMIN_KEY


def change(world: World, **fields: Any) -> wire.Curriculum:
    body = wire.CurriculumUpdate.model_validate(fields)
    return world.client.update_curriculum(world.curriculum.curriculum_id, body)


def import_tagged(world: World, folder: Path, tag: str, n: int) -> set[int]:
    """Add problems with a tag of their own, from a file of that name; returns their ids."""
    before = set(world.problem_ids())
    rows = [{"prompt": f"Compute {tag} {i}.", "answer": "1", "tags": ["sum", tag]} for i in range(n)]
    file = folder / f"{tag}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    world.client.import_problems(world.curriculum.problem_set, file)
    return set(world.problem_ids()) - before


def test_tags_and_sources_admit_what_has_any_of_them(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(20, holdout_share=0.0)
    algebra = import_tagged(world, tmp_path, "algebra", 6)
    logic = import_tagged(world, tmp_path, "logic", 4)
    changed = change(world, filters={"tags": ["algebra", "logic"]})
    assert "the filters admit 10 of 30 problems now" in changed.warnings[0]
    batch = world.draw(12)
    assert set(batch.problem_id) == algebra | logic
    assert batch.shortfall is not None
    assert (batch.shortfall.n_filtered, batch.curriculum_version) == (20, 2)
    world.client.acknowledge(batch.batch_id)
    change(world, filters={"tags": ["algebra", "logic"], "sources": ["logic.jsonl"]})
    assert set(world.draw(4).problem_id) == logic
    grown = import_tagged(world, tmp_path, "logic_more", 3)
    change(world, filters={"sources": ["logic.jsonl", "logic_more.jsonl"]})
    assert set(world.draw(3).problem_id) == grown, "the others are in an open batch"


def test_each_stratum_gets_its_share(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(30, holdout_share=0.0)
    algebra = import_tagged(world, tmp_path, "algebra", 12)
    change(world, strata=[{"tag": "algebra", "share": 0.5}], estimator={"name": "discounted_beta"})
    batch = world.draw(16)
    assert len(algebra & set(batch.problem_id)) >= 8
    assert batch.size == 16
    short = world.draw(16)
    assert len(algebra & set(batch.problem_id) | algebra & set(short.problem_id)) == 12
    assert short.shortfall is not None
    assert short.shortfall.n_other_strata > 0


def test_a_served_problem_cools_down(make_world: MakeWorld) -> None:
    world = make_world(20, holdout_share=0.0, filters={"cooldown_batches": 2})
    seen = []
    for _ in range(6):
        batch = world.draw(5)
        world.client.acknowledge(batch.batch_id)
        seen.append(set(batch.problem_id))
    for earlier, later in pairwise(seen):
        assert not earlier & later
    for earlier, later in zip(seen, seen[2:], strict=False):
        assert not earlier & later
    change(world, filters={})
    batch = world.draw(20)
    assert batch.size == 20


def test_a_band_and_a_minimum_follow_the_estimates(make_world: MakeWorld) -> None:
    world = make_world(27, holdout_share=0.0, preset="hard_filter")
    with pytest.raises(NothingEligible) as caught:
        world.draw(4)
    assert caught.value.members["shortfall"]["n_unmeasured"] == 27
    world.measure(lambda i: i % 9)
    batch = world.draw(27)
    passed = {e.problem_id: e.last_passed for e in world.estimates().values()}
    assert sorted(passed[i] for i in batch.problem_id) == sorted([2, 3, 4, 5, 6] * 3)
    assert batch.draw_probability == pytest.approx([1 / 15] * 15)
    assert change(world, filters={"min_groups": 2}).warnings
    world.client.acknowledge(batch.batch_id)
    with pytest.raises(NothingEligible):
        world.draw(4)
    world.new_checkpoint()
    world.measure(lambda i: i % 9)
    assert world.draw(4).size == 4


def test_thompson_needs_a_posterior(make_world: MakeWorld) -> None:
    world = make_world(12, holdout_share=0.0)
    with pytest.raises(BadRequest, match="Thompson sampling draws pass rates from a posterior"):
        change(world, selection="thompson", estimator={"name": "plug_in_newest"})
    change(world, selection="thompson", estimator={"name": "discounted_beta"})
    batch = world.draw(5)
    assert batch.draw_probability == [None] * 5
    assert batch.loss_weight == [1.0] * 5
    assert [item.draw_probability for item in world.client.explain(batch.batch_id).items] == [None] * 5


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"filters": {"band": [0.8, 0.2]}}, "lower end must lie below"),
        ({"strata": [{"tag": "a", "share": 0.6}, {"tag": "b", "share": 0.6}]}, "add up to more than 1"),
        ({"strata": [{"tag": "a", "share": 0.1}, {"tag": "a", "share": 0.1}]}, "stands twice"),
        ({"retest_share": 0.9}, "less than or equal to 0.5"),
    ],
)
def test_filters_that_cannot_be_meant_are_refused(make_world: MakeWorld, fields: dict[str, Any], says: str) -> None:
    world = make_world(3)
    with pytest.raises(Exception, match=says):
        wire.CurriculumUpdate.model_validate(fields)
    url = f"{world.service.url}/v1/curricula/{world.curriculum.curriculum_id}"
    answer = httpx2.patch(url, json=fields, headers={"Authorization": f"Bearer {ADMIN_KEY}"})
    assert answer.status_code == 422
    assert says in answer.text
