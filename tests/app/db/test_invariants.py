"""Each invariant holds after the whole flow, and says so when it does not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine, create_engine, pool, text

from app.db.invariants import broken, queries
from paced import Client, wire
from tests.app.world import build, leased, measure
from tests.service import Service

BREAK = {
    "every estimate is the sum of its observations": "UPDATE estimates SET n_failed = n_failed + 1 WHERE ordinal = 3",
    "the newest group of an estimate is its newest counted observation on the line of the newest checkpoint": (
        "UPDATE estimates SET last_counted = 9 WHERE ordinal = 3"
    ),
    "every reported group has its rollouts, by verdict": "DELETE FROM rollouts WHERE position = 7",
    "a leased problem belongs to an active lease of its measurement, and expires with it": (
        "UPDATE leases SET state = 'released' WHERE state = 'active'"
    ),
    "each problem of a lease is held or reported, until the lease is over": (
        "UPDATE leases SET n_problems = n_problems + 1 WHERE state = 'done'"
    ),
    "ordinals of a set are dense, and its totals right": "UPDATE problem_sets SET n_rows = n_rows + 1",
    "a measurement has one estimate for each problem up to its total": "UPDATE measurements SET n_problems = 21",
    "an estimate has the ordinal and the hold-out key of its problem, and is of its set": (
        "UPDATE problems SET holdout_key = (holdout_key + 1) % 65536 WHERE ordinal = 3"
    ),
    "an estimate of an up-to-date measurement has the state of its problem": (
        "UPDATE estimates SET state = 'excluded' WHERE ordinal = 3"
    ),
    "the flagged problems of a set are counted": "UPDATE problem_sets SET n_flagged = 1",
    "checkpoint indices of a student are dense": 'UPDATE checkpoints SET "index" = 5 WHERE "index" = 1',
    "draws of a curriculum are dense": "UPDATE batches SET seq = 7 WHERE seq = 1",
    "steps of a run are dense": "UPDATE batches SET step = 9 WHERE run_id IS NOT NULL AND step = 1",
    "a step of a run has one batch that has not expired": "UPDATE batches SET step = 1 WHERE step = 2",
    "the arrays of a batch are aligned": "UPDATE batches SET size = size + 1",
    "only an acknowledged batch has outcomes": (
        "UPDATE batches SET state = 'expired', acknowledged_at = NULL WHERE state = 'acknowledged'"
    ),
    "versions of a curriculum are dense, and the newest is in force": "UPDATE curricula SET version = 3",
}


@pytest.fixture
def url(service: Service, client: Client, tmp_path: Path) -> URL:
    """A database after one turn of the whole flow, one lease and one batch still open."""
    curriculum = build(client, tmp_path, 20, holdout_share=0.0)
    run = client.create_run(wire.RunCreate(curriculum_id=curriculum.curriculum_id, name="r"))
    measure(client)
    client.register_checkpoint("tiny", wire.CheckpointCreate(uri="/models/tiny/1"))
    client.update_curriculum(curriculum.curriculum_id, wire.CurriculumUpdate(gamma=1.0))
    assert len(leased(client.claim_lease(wire.LeaseClaim(student="tiny", worker="w", max_problems=5)))) == 5
    for position in range(3):
        batch = client.draw_batch(curriculum.curriculum_id, 4, run_id=run.run_id)
        if position < 2:
            one = wire.Outcome(problem_id=batch.problem_id[0], checkpoint_index=0, n_passed=1, n_failed=2)
            client.acknowledge(batch.batch_id, [one])
    return service.settings.database_url


@pytest.fixture
def engine(url: URL) -> Iterator[Engine]:
    made = create_engine(url, poolclass=pool.NullPool)
    yield made
    made.dispose()


def test_each_invariant_holds_and_is_seen_when_it_does_not(url: URL, engine: Engine) -> None:
    assert broken(url) == {}
    assert set(BREAK) == set(queries())
    for name, statement in BREAK.items():
        with engine.connect() as conn:
            assert conn.execute(text(statement)).rowcount, statement
            assert conn.exec_driver_sql(queries()[name]).all(), name
            conn.rollback()
    assert broken(url) == {}
