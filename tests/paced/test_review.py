"""paced flagged and paced decide against a real service."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from paced import wire
from paced.cli import build as build_cli
from tests.app.world import build as build_world
from tests.app.world import measure
from tests.service import ADMIN_KEY, Service, serve


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A set with one problem whose answer is missing."""
    rows = [
        {"prompt": "Compute 1 + 1.", "answer": "2"},
        {"messages": [{"role": "user", "content": "Compute [/b] 1 + 2."}], "answer": ""},
    ]
    folder = tmp_path_factory.mktemp("review")
    file = folder / "p.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    with serve(folder / "data", None) as running, running.client() as client:
        client.create_problem_set(wire.ProblemSetCreate(name="p"))
        client.import_problems("p", file)
        yield running


def run(service: Service, *command: str) -> Result:
    return CliRunner().invoke(build_cli(), [*command, "--url", service.url, "--key", ADMIN_KEY])


def test_a_flagged_problem_is_listed_and_served_once_it_has_an_answer(service: Service) -> None:
    (found,) = json.loads(run(service, "flagged", "p", "--json").stdout)
    assert (found["ordinal"], found["flag"], found["state"]) == (1, "no_answer", "flagged")
    assert "no_answer" in run(service, "flagged", "p").stdout
    assert "Compute [/b] 1 + 2." in " ".join(run(service, "flagged", "p").stdout.split())
    refused = run(service, "decide", "p", "1", "--state", "ready")
    assert refused.exit_code == 1
    assert "has no answer" in str(refused.exception)
    decided = run(service, "decide", "p", "1", "--state", "ready", "--answer", "3", "--by", "ada", "--json")
    assert decided.exit_code == 0, decided.output
    assert [(row["answer"], row["state"]) for row in json.loads(decided.stdout)] == [("3", "ready")]
    assert json.loads(run(service, "flagged", "p", "--json").stdout) == []
    with service.client() as client:
        (kept,) = client.decisions("p")
        assert (kept.decided_by, kept.answer_before, kept.answer_after) == ("ada", "", "3")


def test_several_are_left_out_at_once(service: Service) -> None:
    done = run(service, "decide", "p", "0", "1", "--state", "excluded", "--note", "not needed")
    assert done.exit_code == 0, done.output
    assert "2 in all" in done.stdout
    assert len(json.loads(run(service, "flagged", "p", "--state", "excluded", "--json").stdout)) == 2


def test_a_batch_is_explained(service: Service, tmp_path: Path) -> None:
    with service.client() as client:
        curriculum = build_world(client, tmp_path, 12, suffix="-explained", holdout_share=0.0)
        measure(client, "tiny-explained")
        batch = client.draw_batch(curriculum.curriculum_id, 5)
    found = json.loads(run(service, "explain", batch.batch_id, "--json").stdout)
    assert [item["problem_id"] for item in found["items"]] == batch.problem_id
    for item in found["items"]:
        assert set(item["posterior"]) == {"logit_mean", "logit_variance"}
        assert item["interval"][0] < item["pass_rate"] < item["interval"][1]
        assert item["uniform_inclusion"] == pytest.approx(5 / 12)
        (seen,) = item["observations"]
        assert (seen["n_passed"], seen["n_counted"]) == (item["problem_id"] % 9, 8)
    shown = run(service, "explain", batch.batch_id).stdout
    assert "drift_filter, w = p^1 (1-p)^1, gamma 2" in " ".join(shown.split())
    n_out = sum(item["hard_filter_inclusion"] == 0 for item in found["items"])
    assert f"5 of 12 eligible problems; the hard filter would never draw {n_out}" in " ".join(shown.split())
