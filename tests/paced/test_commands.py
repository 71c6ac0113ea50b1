"""paced keys, export and doctor against a real service."""

import csv
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from paced import Client, wire
from paced.cli import build as build_cli
from paced.errors import NotAllowed, PacedError
from tests.app.world import build, group, leased, measure, token
from tests.service import ADMIN_KEY, Service, serve

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serve(tmp_path_factory.mktemp("service") / "data", None) as running:
        yield running


@pytest.fixture(scope="module")
def curriculum(service: Service, tmp_path_factory: pytest.TempPathFactory) -> wire.Curriculum:
    with service.client() as client:
        made = build(client, tmp_path_factory.mktemp("files"), 6)
        lease = client.claim_lease(wire.LeaseClaim(student="tiny", worker="w", max_problems=4))
        groups = [group(problem_id, 2) for problem_id in leased(lease)]
        client.report_rollouts(str(lease.lease_id), wire.LeaseReport(token=token(lease).token, groups=groups))
    return made


@pytest.fixture
def run(service: Service) -> Run:
    def invoke(*command: str, key: str = ADMIN_KEY, url: str = service.url) -> Result:
        return CliRunner().invoke(build_cli(), [*command, "--url", url, "--key", key])

    return invoke


def test_keys_are_made_listed_and_revoked(run: Run, service: Service) -> None:
    made = run("keys", "create", "trainer-1", "--scope", "read", "--scope", "train", "--json")
    assert made.exit_code == 0
    created = wire.KeyCreated.model_validate_json(made.stdout)
    assert (created.name, created.scopes) == ("trainer-1", ["read", "train"])
    shown = json.loads(run("keys", "list", "--json").stdout)
    assert [key["name"] for key in shown] == ["admin", "trainer-1"]
    assert created.secret not in json.dumps(shown)
    assert run("keys", "list", "--json", key=created.secret).exit_code == 1

    secret = run("keys", "create", "plain", "--scope", "read").stdout.strip()
    with service.client(secret) as client:
        assert isinstance(list(client.students()), list)
    assert "trainer-1" in run("keys", "list").stdout

    gone = run("keys", "revoke", created.key_id, "--json")
    assert json.loads(gone.stdout) == {"revoked": created.key_id}
    with service.client(created.secret) as client, pytest.raises(NotAllowed):
        list(client.students())
    assert run("keys", "revoke", created.key_id).exit_code == 1
    assert run("keys", "create", "x", "--scope", "everything").exit_code == 2


def _jsonl(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _csv(path: Path) -> list[dict[str, object]]:
    with path.open(newline="") as file:
        return [dict(row) for row in csv.DictReader(file)]


def _parquet(path: Path) -> list[dict[str, object]]:
    return pl.read_parquet(path).to_dicts()


@pytest.mark.parametrize(("ending", "read"), [("jsonl", _jsonl), ("csv", _csv), ("parquet", _parquet)])
def test_an_export_joins_problems_with_their_pass_rates(
    run: Run, curriculum: wire.Curriculum, tmp_path: Path, ending: str, read: Callable[[Path], list[dict[str, object]]]
) -> None:
    file = tmp_path / f"rates.{ending}"
    done = run("export", curriculum.measurement_id, "--output", str(file), "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"file": str(file), "n_rows": 6}
    rows = read(file)
    assert [row["prompt"] for row in rows] == [f"Compute {i} + {i + 1}." for i in range(6)]
    assert [int(str(row["n_passed"])) for row in rows].count(2) == 4
    assert {str(row["pass_rate"]) for row in rows} == {str(2.5 / 9), "" if ending == "csv" else "None"}
    assert list(tmp_path.iterdir()) == [file]


def test_an_export_that_fails_leaves_no_file(run: Run, tmp_path: Path) -> None:
    unknown = run("export", "mea_999", "--output", str(tmp_path / "x.jsonl"))
    assert unknown.exit_code == 1
    nameless = run("export", "mea_1", "--output", str(tmp_path / "x.table"))
    assert isinstance(nameless.exception, PacedError)
    assert "name it with --format" in str(nameless.exception)
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_says_what_to_do_next(run: Run, curriculum: wire.Curriculum, service: Service) -> None:
    done = run("doctor", "--json")
    found = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert (found["service"]["level"], found["key"]["level"]) == ("ok", "ok")
    assert found["service"]["found"].startswith(f"{service.url}, version ")
    measuring = found[f"{curriculum.measurement_id} tiny on sums"]
    assert measuring["level"] == "note"
    assert measuring["advice"] == "start a worker: `paced rollout tiny`"
    assert "4/6 measured" in measuring["found"]
    with Client(service.url, ADMIN_KEY) as client:
        measure(client)
    found = {finding["check"]: finding for finding in json.loads(run("doctor", "--json").stdout)}
    assert found[f"{curriculum.measurement_id} tiny on sums"]["level"] == "ok"
    assert "sums" in run("doctor").stdout


def test_the_doctor_finds_a_wrong_key_and_a_service_that_is_away(run: Run) -> None:
    wrong = run("doctor", "--json", key="wrong")
    assert wrong.exit_code == 1
    assert [finding["check"] for finding in json.loads(wrong.stdout) if finding["level"] == "fault"] == ["key"]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        away = run("doctor", "--json", url=f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert away.exit_code == 1
    (fault,) = [finding for finding in json.loads(away.stdout) if finding["level"] == "fault"]
    assert (fault["check"], fault["advice"]) == ("service", "start it: `paced serve`")
