"""Workers follow what training consumes: how far measuring anew may run ahead of what was served."""

from paced import wire
from tests.app.conftest import MakeWorld
from tests.app.world import World, leased


def measured_anew(world: World) -> int:
    """Measure until nothing more is leased; returns the number of groups."""
    world.new_checkpoint()
    return world.measure(size=10)


def test_measuring_anew_waits_for_what_is_served(make_world: MakeWorld) -> None:
    world = make_world(40, holdout_share=0.0, samples_per_measurement=2.0)
    assert world.measure(size=10) == 40, "the first measurement of a problem never waits"
    assert measured_anew(world) == 40, "one pass ahead of training"
    assert measured_anew(world) == 0
    progress = world.measurement
    assert (progress.n_remeasured, progress.n_served, progress.samples_per_measurement) == (40, 0, 2.0)
    assert progress.n_due == 40
    assert world.claim().retry_after_s is not None
    for _ in range(2):
        world.draw(20)
    assert world.measurement.n_served == 40
    assert measured_anew(world) == 20, "a group for two problems served"
    assert measured_anew(world) == 0


def test_new_problems_and_the_holdout_never_wait(make_world: MakeWorld) -> None:
    world = make_world(40, holdout_share=0.5, samples_per_measurement=1000.0)
    world.measure(size=10)
    n_holdout = world.measurement.n_holdout
    assert 0 < n_holdout < 40
    first, second, third = (measured_anew(world) for _ in range(3))
    assert first == 40
    assert third == n_holdout, "the progress line goes on"
    assert second >= n_holdout


def test_the_bound_changes_on_a_running_measurement(make_world: MakeWorld) -> None:
    world = make_world(20, holdout_share=0.0, samples_per_measurement=5.0)
    world.measure()
    measured_anew(world)
    assert measured_anew(world) == 0
    c = world.curriculum
    body = wire.MeasurementCreate(
        student=c.student, problem_set=c.problem_set, profile_id=c.profile_id, samples_per_measurement=0.0
    )
    assert world.client.create_measurement(body).samples_per_measurement == 0.0
    assert len(leased(world.claim(20))) == 20
    same = wire.MeasurementCreate(student=c.student, problem_set=c.problem_set, profile_id=c.profile_id)
    assert world.client.create_measurement(same).samples_per_measurement == 0.0, "left out, it stays"
