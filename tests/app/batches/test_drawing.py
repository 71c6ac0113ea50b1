"""One draw from a pool: who may come, and every problem accounted for when too few do."""

import datetime as dt

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.flow.batches.drawing import draw
from app.flow.curricula.rule import PRESETS, Rule
from app.flow.estimates.columns import Columns
from app.flow.estimates.pools import Pool
from app.flow.rollouts.groups import holdout_threshold
from paced.wire import Mode, PlugInNewest, Preset

NOW = dt.datetime(2026, 11, 25, tzinfo=dt.UTC)
SHARE = 0.25
Row = tuple[bool, int, bool, bool, int | None]
problems = st.tuples(
    st.booleans(),  # ready
    st.integers(0, 65_535),  # hold-out key
    st.booleans(),  # in quarantine
    st.booleans(),  # in an open batch
    st.one_of(st.none(), st.integers(0, 8)),  # of eight, if measured
)


def pool_of(rows: list[Row]) -> Pool:
    columns = Columns.zeros(len(rows))
    for place, (_, _, _, _, k) in enumerate(rows):
        if k is not None:
            columns.last_passed[place], columns.last_counted[place] = k, 8
    until = [NOW.timestamp() + 60 if is_quarantined else 0.0 for _, _, is_quarantined, _, _ in rows]
    return Pool(
        problem_ids=np.arange(100, 100 + len(rows)),
        holdout_keys=np.array([row[1] for row in rows], np.int64),
        is_ready=np.array([row[0] for row in rows], np.bool_),
        n_groups=np.zeros(len(rows), np.int64),
        quarantined_until=np.array(until),
        columns=columns,
        rows_of_skill={},
        n_groups_of_skill={},
        watermark=7,
        state_version=0,
    )


@given(rows=st.lists(problems, min_size=1, max_size=30), size=st.integers(1, 40), mode=st.sampled_from(Mode))
def test_every_problem_is_drawn_or_accounted_for(rows: list[Row], size: int, mode: Mode) -> None:
    pool = pool_of(rows)
    rule = Rule(estimator=PlugInNewest(), gamma=2.0, mode=mode)
    in_flight = np.array([place for place, row in enumerate(rows) if row[3]], np.int64)
    found = draw(pool, rule, SHARE, in_flight, size, seed=1, seq=2, now=NOW)

    threshold = holdout_threshold(SHARE)
    may_come = {
        place
        for place, (is_ready, key, is_quarantined, is_in_flight, k) in enumerate(rows)
        if is_ready and key >= threshold and not is_quarantined and not is_in_flight and k is not None
    }
    drawn = found.ordinals.tolist()
    assert set(drawn) <= may_come
    assert len(set(drawn)) == len(drawn)
    assert found.problem_ids.tolist() == [100 + place for place in drawn]
    assert (found.draw_probabilities > 0).all()
    if mode == Mode.SAMPLE:
        assert (found.weights > 0).all()
    assert found.watermark == 7
    assert (found.shortfall is None) == (len(drawn) == size)
    if found.shortfall is not None:
        counts = found.shortfall.model_dump()
        assert (counts.pop("n_requested"), counts.pop("n_problems")) == (size, len(rows))
        assert sum(counts.values()) == len(rows)


def test_open_batches_of_a_longer_set_do_no_harm() -> None:
    pool = pool_of([(True, 65_535, False, False, 4)] * 3)
    found = draw(pool, PRESETS[Preset.DEFAULT], 0.0, np.array([1, 5]), 3, seed=0, seq=0, now=NOW)
    assert sorted(found.ordinals.tolist()) == [0, 2]
