"""`paced problems` and `paced export --query` against a real service."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from paced import wire
from paced.cli import build as build_cli
from tests.app.world import build, measure
from tests.service import ADMIN_KEY, Service, serve

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, wire.Curriculum]]:
    folder = tmp_path_factory.mktemp("listing")
    with serve(folder / "data", None) as running, running.client() as client:
        made = build(client, folder, 60, holdout_share=0.0)
        measure(client)
        yield running, made


@pytest.fixture
def run(world: tuple[Service, wire.Curriculum], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def invoke(*command: str) -> Result:
        return CliRunner().invoke(build_cli(), [*command, "--url", world[0].url, "--key", ADMIN_KEY])

    return invoke


def test_a_table_says_how_many_match(run: Run) -> None:
    shown = run("problems", "sort:-p", "--limit", "3")
    assert shown.exit_code == 0, shown.output
    assert "3 of 60 that match" in shown.stdout
    assert "Compute" in shown.stdout
    assert "50 of 60 that match" in run("problems").stdout
    assert "0 of 0 that match" in run("problems", "tag:nothing").stdout


def test_json_and_csv_hold_every_match_in_order(run: Run, world: tuple[Service, wire.Curriculum]) -> None:
    curriculum = world[1].curriculum_id
    found = json.loads(run("problems", "p<0.5 sort:-weight", "--curriculum", curriculum, "--json").stdout)
    assert len(found) > 20
    assert all(row["pass_rate"] < 0.5 for row in found)
    assert [row["weight"] for row in found] == sorted((row["weight"] for row in found), reverse=True)
    assert {"prompt", "answer", "tags", "n_served"} < set(found[0])
    text = run("problems", "p<0.5 sort:-weight", "--curriculum", curriculum, "--csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [int(row["ordinal"]) for row in rows] == [row["ordinal"] for row in found]
    assert json.loads(rows[0]["tags"]) == ["sum"]


def test_a_bad_query_says_where_it_is_wrong(run: Run, world: tuple[Service, wire.Curriculum]) -> None:
    refused = run("problems", "p<0.4 tagg:sum")
    assert refused.exit_code == 1
    assert "query, character 7: 'tagg' is none of" in str(refused.exception)
    both = run("problems", "--curriculum", world[1].curriculum_id, "--measurement", "mea_1")
    assert "name either a measurement or a curriculum" in str(both.exception)


def test_an_export_takes_a_query(run: Run, tmp_path: Path, world: tuple[Service, wire.Curriculum]) -> None:
    done = run("export", "--query", "p>0.5 sort:p", "--curriculum", world[1].curriculum_id, "-o", "some.jsonl")
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "some.jsonl").read_text().splitlines()]
    assert [row["pass_rate"] for row in rows] == sorted(row["pass_rate"] for row in rows)
    with world[0].client() as client:
        weights = {r.ordinal: r.weight for r in client.estimates(curriculum_id=world[1].curriculum_id)}
    assert {row["ordinal"]: row["weight"] for row in rows} == {row["ordinal"]: weights[row["ordinal"]] for row in rows}
    run("export", "--query", "p>0.5 sort:p", "--top", "3", "-o", "top.jsonl")
    top = [json.loads(line) for line in (tmp_path / "top.jsonl").read_text().splitlines()]
    assert [row["weight"] for row in top] == sorted((row["weight"] for row in top), reverse=True)
    assert len(top) == 3
