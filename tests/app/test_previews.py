"""POST /v1/curricula/{id}/preview on both databases: what a change would do, and that nothing changes."""

import pytest

from paced import wire
from paced.errors import ApiError
from tests.app.conftest import MakeWorld


def test_a_sharper_gamma_is_previewed_and_not_made(make_world: MakeWorld) -> None:
    world = make_world(120, holdout_share=0.0)
    world.measure()
    curriculum = world.client.curriculum(world.curriculum.curriculum_id)
    found = world.client.preview_curriculum(curriculum.curriculum_id, wire.CurriculumUpdate(gamma=6.0))
    assert world.client.curriculum(curriculum.curriculum_id) == curriculum
    assert list(world.client.batches(curriculum.curriculum_id)) == []
    assert (found.version, found.n_trained, found.n_measured, found.batch_size) == (1, 120, 120, None)
    assert len(found.edges) == 21
    assert found.edges[3] == 0.15
    for shares in (found.problem_shares, found.present.draw_shares, found.changed.draw_shares):
        assert sum(shares) == pytest.approx(1.0)
    present, changed = found.present, found.changed
    assert 0.0 < (found.moved_share or 0.0) < 1.0
    assert (changed.effective_problems or 0.0) < (present.effective_problems or 0.0) < 120
    assert sum(changed.draw_shares[8:12]) > sum(present.draw_shares[8:12])
    assert [(tag.tag, tag.share) for tag in present.tags] == [("sum", pytest.approx(1.0))]


def test_the_preview_of_no_change_is_the_draw_that_comes(make_world: MakeWorld) -> None:
    world = make_world(60, holdout_share=0.25)
    world.measure()
    curriculum_id = world.curriculum.curriculum_id
    found = world.client.preview_curriculum(curriculum_id, wire.CurriculumUpdate())
    assert (found.moved_share, found.present) == (0.0, found.changed)
    n_trained = world.measurement.n_problems - world.measurement.n_holdout
    batch = world.client.draw_batch(curriculum_id, n_trained)
    assert found.present.n_drawable == len(batch.problem_id)
    chances = [chance for chance in batch.draw_probability if chance is not None]
    assert found.present.effective_problems == pytest.approx(1.0 / sum(chance**2 for chance in chances), rel=1e-5)
    again = world.client.preview_curriculum(curriculum_id, wire.CurriculumUpdate())
    assert again.batch_size == len(batch.problem_id)
    assert again.present.draw_shares == found.present.draw_shares, "open batches come back: they are not left out"


def test_a_band_that_admits_few_and_an_empty_stratum_are_told(make_world: MakeWorld) -> None:
    world = make_world(40, holdout_share=0.0)
    world.measure()
    curriculum_id = world.curriculum.curriculum_id
    band = wire.CurriculumUpdate(filters=wire.Filters(band=(0.45, 0.55)))
    found = world.client.preview_curriculum(curriculum_id, band)
    assert 0 < found.changed.n_admitted < found.present.n_admitted == 40
    assert any("the filters admit" in warning for warning in found.changed.warnings)
    strata = wire.CurriculumUpdate(strata=[wire.Stratum(tag="nothing-has-this", share=0.25)])
    told = world.client.preview_curriculum(curriculum_id, strata).changed.warnings
    assert any("25% of every batch stays empty" in warning for warning in told)


def test_what_a_change_refuses_its_preview_refuses(make_world: MakeWorld) -> None:
    world = make_world(8, holdout_share=0.0)
    body = wire.CurriculumUpdate(estimator=wire.PlugInNewest(), selection=wire.Selection.THOMPSON)
    with pytest.raises(ApiError, match="Thompson sampling draws pass rates"):
        world.client.preview_curriculum(world.curriculum.curriculum_id, body)
    with pytest.raises(ApiError, match="there is no curriculum"):
        world.client.preview_curriculum("cur_none", wire.CurriculumUpdate())
    nothing = world.client.preview_curriculum(world.curriculum.curriculum_id, wire.CurriculumUpdate())
    assert (nothing.n_trained, nothing.n_measured, sum(nothing.problem_shares)) == (8, 0, 0.0)
    assert nothing.present.n_drawable == 8, "the default's prior is an estimate"
    newest = wire.CurriculumUpdate(estimator=wire.PlugInNewest())
    changed = world.client.preview_curriculum(world.curriculum.curriculum_id, newest)
    assert (changed.moved_share, changed.changed.n_drawable) == (None, 0)
    assert "nothing can be drawn" in changed.changed.warnings[0]
