"""Queries over a measurement's problems, through HTTP, against a plain reading of every row."""

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paced import Client, wire
from paced.errors import BadRequest
from tests.app.conftest import SUFFIXES
from tests.app.world import World, group, verdict_group
from tests.service import Service, TestClock

Row = wire.ListedEstimate
N = 60
TIMEOUTS = [wire.Verdict.TIMEOUT] * 8
FLAG = wire.ProblemDecision(state=wire.ProblemState.FLAGGED, note="look", decided_by="ada")


def rows_of_problems() -> list[dict[str, object]]:
    return [
        {
            "prompt": f"Two TRAINS leave at {i} o'clock." if i % 7 == 0 else f"Compute {i} + {i} in ½ hour.",
            "answer": str(i),
            "tags": [["algebra", "sum"], ["number theory"], ["a,b"]][i % 3],
            "source": f"file-{i % 4}",
        }
        for i in range(N)
    ]


@pytest.fixture(scope="module")
def world(
    shared_service: Service, shared_clock: TestClock, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Problems of all kinds: measured and not, timed out, in quarantine, flagged, excluded, served."""
    suffix = f"-{next(SUFFIXES)}"
    file = tmp_path_factory.mktemp("queries") / "p.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows_of_problems()))
    names = {"student": f"s{suffix}", "problem_set": f"p{suffix}"}
    with shared_service.client() as client:
        made = World(shared_service, client, shared_clock, _curriculum(client, file, names))
        _fill(made)
        yield made


def _curriculum(client: Client, file: Path, names: dict[str, str]) -> wire.Curriculum:
    client.create_problem_set(wire.ProblemSetCreate(name=names["problem_set"]))
    client.import_problems(names["problem_set"], file, tags_field="tags", source=None)
    client.create_student(wire.StudentCreate(name=names["student"]))
    client.register_checkpoint(names["student"], wire.CheckpointCreate(uri="/m/0"))
    fields = {
        "name": names["problem_set"],
        **names,
        "profile_id": client.create_profile(wire.ProfileCreate()).profile_id,
    }
    return client.create_curriculum(wire.CurriculumCreate.model_validate({**fields, "holdout_share": 0.2}))


def _fill(world: World) -> None:
    client, first = world.client, world.problem_ids()[0]
    for checkpoint in range(2):
        lease = world.claim(N)
        groups = [
            group(item.problem_id, (item.problem_id * 5 + checkpoint) % 9, checkpoint=checkpoint)
            for item in lease.problems
            if (item.problem_id - first) % 5 != 0  # which stay unmeasured
        ]
        world.report(lease, groups)
        assert lease.lease_id
        assert lease.token
        client.release_lease(lease.lease_id, wire.LeaseToken(token=lease.token))
        if checkpoint == 0:
            world.new_checkpoint()
    for _ in range(3):  # three groups without a verdict: quarantine
        lease = world.claim(N)
        world.report(lease, [verdict_group(item.problem_id, TIMEOUTS, 1) for item in lease.problems[:4]])
        assert lease.lease_id
        assert lease.token
        client.release_lease(lease.lease_id, wire.LeaseToken(token=lease.token))
    for _ in range(3):
        world.client.acknowledge(world.draw(6).batch_id)
    client.decide(world.curriculum.problem_set, 8, FLAG)
    client.decide(world.curriculum.problem_set, 9, FLAG.model_copy(update={"state": wire.ProblemState.EXCLUDED}))


def problem(row: Row) -> wire.Problem:
    assert row.problem is not None
    return row.problem


def rate(row: Row) -> float:
    return float("nan") if row.pass_rate is None else row.pass_rate


def newest(row: Row) -> float:
    return row.last_passed / row.last_counted if row.last_counted else float("nan")


def index(row: Row) -> float:
    return float("nan") if row.checkpoint_index is None else row.checkpoint_index


def weight(row: Row) -> float:
    return 0.0 if row.weight is None else row.weight


CASES: dict[str, Callable[[Row], object]] = {
    "": lambda _: True,
    "tag:algebra": lambda r: "algebra" in problem(r).tags,
    'tag:algebra,"number theory"': lambda r: {"algebra", "number theory"} & set(problem(r).tags),
    'tag:"a,b"': lambda r: "a,b" in problem(r).tags,
    "-tag:sum": lambda r: "sum" not in problem(r).tags,
    'text:"trains leave"': lambda r: "TRAINS leave" in str(problem(r).prompt),
    "½": lambda r: "½" in str(problem(r).prompt),
    "100%": lambda _: False,
    "p<0.4": lambda r: rate(r) < 0.4,
    "-p<0.4": lambda r: not rate(r) < 0.4,
    "p:0.2..0.7 tag:sum": lambda r: 0.2 <= rate(r) <= 0.7 and "sum" in problem(r).tags,
    "newest>=0.5": lambda r: newest(r) >= 0.5,
    "attempts>8": lambda r: r.n_counted > 8,
    "attempts:16 groups:1..9": lambda r: r.n_counted == 16,
    "passed>=8": lambda r: r.n_passed >= 8,
    "failed<4": lambda r: r.verdicts.get("fail", 0) < 4,
    "verdict:timeout": lambda r: r.verdicts.get("timeout", 0) > 0,
    "verdict:pass,timeout": lambda r: r.verdicts.get("pass", 0) or r.verdicts.get("timeout", 0),
    "timeout=24 truncated:0 grader_error:0 infrastructure<1": lambda r: r.verdicts.get("timeout", 0) == 24,
    "checkpoint>=0": lambda r: index(r) >= 0,
    "is:measured": lambda r: r.pass_rate is not None,
    "is:quarantined": lambda r: r.quarantine_reason is not None,
    "is:holdout": lambda r: r.is_holdout,
    "is:training": lambda r: problem(r).state == "ready" and not r.is_holdout,
    "is:flagged": lambda r: r.ordinal == 8,
    "is:excluded,flagged": lambda r: r.ordinal in (8, 9),
    "is:ready ordinal<20": lambda r: r.ordinal not in (8, 9) and r.ordinal < 20,
    "flag:review": lambda r: problem(r).flag == "review",
    "served>0": lambda r: r.n_served > 0,
    "weight>0.1": lambda r: weight(r) > 0.1,
}
SORTS: dict[str, Callable[[Row], float]] = {
    "p": rate,
    "newest": newest,
    "weight": weight,
    "attempts": lambda r: r.n_counted,
    "checkpoint": index,
    "served": lambda r: r.n_served,
    "ordinal": lambda r: r.ordinal,
}


@pytest.fixture(scope="module")
def everything(world: World) -> list[Row]:
    rows = list(world.client.estimates(curriculum_id=world.curriculum.curriculum_id, with_problems=True))
    assert [row.ordinal for row in rows] == list(range(N))
    return rows


def test_the_world_has_rows_of_every_kind(everything: list[Row]) -> None:
    for query, holds in CASES.items():
        n = sum(bool(holds(row)) for row in everything)
        assert (0 < n < N) or query in {"", "100%"}, query


@pytest.mark.parametrize("query", CASES)
def test_a_query_selects_what_it_says(world: World, everything: list[Row], query: str) -> None:
    expected = [row.ordinal for row in everything if CASES[query](row)]
    found = list(world.client.estimates(curriculum_id=world.curriculum.curriculum_id, query=query))
    assert [row.ordinal for row in found] == expected
    if "weight" not in query:
        assert [
            row.ordinal for row in world.client.estimates(world.measurement.measurement_id, query=query)
        ] == expected


@pytest.mark.parametrize("name", SORTS)
@pytest.mark.parametrize("sign", ["", "-"])
def test_pages_of_any_order_hold_each_row_once(world: World, everything: list[Row], name: str, sign: str) -> None:
    """Ties go by ordinal, and rows without a number come last in either direction."""

    def key(row: Row) -> tuple[bool, float, int]:
        value = SORTS[name](row)
        is_missing = math.isnan(value)
        return is_missing, 0.0 if is_missing else (-value if sign else value), row.ordinal

    expected = [row.ordinal for row in sorted(everything, key=key) if not row.is_holdout]
    found: list[int] = []
    cursor = None
    while True:
        page = world.client.estimate_page(
            curriculum_id=world.curriculum.curriculum_id,
            query=f"-is:holdout sort:{sign}{name}",
            limit=7,
            cursor=cursor,
        )
        assert page.n_matches == len(expected)
        found += [row.ordinal for row in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == expected


def test_the_weight_is_the_one_that_the_draw_used(world: World) -> None:
    rows = {r.problem_id: r for r in world.client.estimates(curriculum_id=world.curriculum.curriculum_id)}
    batch = world.draw(5)
    for problem_id, drawn in zip(batch.problem_id, batch.weight, strict=True):
        assert rows[problem_id].weight == pytest.approx(drawn, rel=1e-5)
    again = {r.problem_id: r for r in world.client.estimates(curriculum_id=world.curriculum.curriculum_id)}
    assert {i: again[i].n_served - rows[i].n_served for i in rows} == {i: int(i in batch.problem_id) for i in rows}
    world.client.acknowledge(batch.batch_id)


def test_counts_follow_what_is_reported(world: World) -> None:
    query, number = "attempts>16", world.measurement.measurement_id
    assert world.client.estimate_page(number, query=query).n_matches == 0
    world.new_checkpoint()
    lease = world.claim(1)
    target = lease.problems[0].problem_id
    world.report(lease, [group(target, 0, checkpoint=2)])
    assert [row.problem_id for row in world.client.estimates(number, query=query)] == [target]


def test_a_cursor_of_another_query_is_refused(world: World) -> None:
    number = world.measurement.measurement_id
    page = world.client.estimate_page(number, query="sort:p", limit=5)
    with pytest.raises(BadRequest, match="cursor is of another query"):
        world.client.estimate_page(number, query="sort:-p", limit=5, cursor=page.next_cursor)


@pytest.mark.parametrize(
    ("query", "says"), [("weight>0.1", "weight is a curriculum's"), ("tagg:x", "did you mean tag")]
)
def test_a_bad_query_is_a_problem_with_its_place(world: World, query: str, says: str) -> None:
    with pytest.raises(BadRequest, match=says) as caught:
        world.client.estimate_page(world.measurement.measurement_id, query=f"p<1 {query}")
    assert caught.value.code == "bad_query"


def test_a_client_names_one_list(lite_client: Client, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="either a measurement or a curriculum"):
        list(lite_client.estimates())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "n_matches"),
    [
        ("", 100_000),
        ("p<0.4", 44_445),
        ("sort:-weight", 100_000),
        ("tag:t3 p<0.4 sort:-p", 1_112),
        ('text:"compute 4000"', 11),
        ("verdict:fail attempts:8 sort:-failed", 88_889),
        ("ordinal:40000", 1),
    ],
)
def test_100k_problems_are_filtered_sorted_and_counted_at_once(
    large_service: tuple[Client, str], query: str, n_matches: int
) -> None:
    """The first answer may read from the database; of three more, the quickest says what the service can do."""
    client, curriculum_id = large_service
    took = []
    for _ in range(4):
        started = time.perf_counter()
        page = client.estimate_page(curriculum_id=curriculum_id, query=query, with_problems=True)
        took.append(time.perf_counter() - started)
    assert page.n_matches == n_matches
    assert min(took) < 0.5, took


@pytest.mark.slow
def test_problem_40000_of_100k_is_opened_directly_and_44k_ids_come_in_seconds(
    large_service: tuple[Client, str],
) -> None:
    client, curriculum_id = large_service
    measurement_id = client.curriculum(curriculum_id).measurement_id
    started = time.perf_counter()
    problem = client.problem("p", 40_000)
    estimate = client.estimate(measurement_id, problem.problem_id)
    assert time.perf_counter() - started < 0.5
    assert (problem.prompt, estimate.ordinal) == ("Compute 40000 + 1.", 40_000)
    started = time.perf_counter()
    ordinals = [row.ordinal for row in client.estimates(measurement_id, query="p<0.4 sort:-p", limit=1000)]
    assert time.perf_counter() - started < 20
    assert len(set(ordinals)) == len(ordinals) == 44_445
