"""Exports for trainers without the service: the heaviest problems, a band of pass rates, folders of `datasets`."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from paced import export, wire
from paced.cli import build as build_cli
from paced.errors import PacedError
from paced.selecting import Selection
from tests.app.world import build, measure
from tests.service import ADMIN_KEY, Service, serve

N = 60
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two measurements: one of 60 problems with pass rates of all sizes, one with nothing measured."""
    folder = tmp_path_factory.mktemp("export")
    with serve(folder / "data", None) as running, running.client() as client:
        build(client, folder, N, holdout_share=0.2)
        measure(client)
        client.decide("sums", 3, wire.ProblemDecision(state=wire.ProblemState.EXCLUDED, decided_by="ada"))
        build(client, folder, 5, suffix="-new")
        yield running


@pytest.fixture
def run(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def invoke(*command: str) -> Result:
        return CliRunner().invoke(build_cli(), [*command, "--url", service.url, "--key", ADMIN_KEY])

    return invoke


def rows_in(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_top_and_band_take_what_training_may_see(run: Run, tmp_path: Path) -> None:
    assert run("export", "mea_1", "-o", "all.jsonl").exit_code == 0
    everything = rows_in(tmp_path / "all.jsonl")
    assert len(everything) == N
    done = run("export", "mea_1", "--top", "12", "--band", "0.2", "0.8", "-o", "some.jsonl", "--json")
    assert json.loads(done.stdout) == {"file": "some.jsonl", "n_rows": 12}
    some = rows_in(tmp_path / "some.jsonl")
    fit = [
        row
        for row in everything
        if 0.2 <= row["pass_rate"] <= 0.8 and not row["is_holdout"] and row["state"] == "ready"
    ]
    assert some == sorted(fit, key=lambda row: (-row["weight"], row["ordinal"]))[:12]
    assert some[0]["weight"] == pytest.approx(4 * some[0]["pass_rate"] * (1 - some[0]["pass_rate"]))

    run("export", "mea_1", "--band", "0.2", "0.8", "-o", "band.jsonl")
    assert rows_in(tmp_path / "band.jsonl") == fit
    run("export", "mea_1", "--top", str(N), "--with-holdout", "-o", "held.jsonl")
    held = rows_in(tmp_path / "held.jsonl")
    assert {row["ordinal"] for row in held} == set(range(N)) - {3}
    assert any(row["is_holdout"] for row in held)
    run("export", "mea_1", "--top", "1", "--alpha", "1", "--beta", "0", "-o", "easy.jsonl")
    (easy,) = rows_in(tmp_path / "easy.jsonl")
    assert easy["pass_rate"] == max(row["pass_rate"] for row in everything if not row["is_holdout"])


def test_nothing_measured_is_nothing_to_train_on(run: Run, tmp_path: Path) -> None:
    assert run("export", "mea_2", "--top", "10").exit_code == 0
    assert (tmp_path / "tiny-new-sums-new.jsonl").read_text() == ""
    run("export", "mea_2", "-o", "all.jsonl")
    assert [(row["pass_rate"], row["weight"]) for row in rows_in(tmp_path / "all.jsonl")] == [(None, None)] * 5


def test_a_choice_of_measurements_is_asked_for(run: Run) -> None:
    done = run("export", "--top", "10")
    assert isinstance(done.exception, PacedError)
    assert "mea_1 (tiny on sums), mea_2 (tiny-new on sums-new)" in str(done.exception)


@pytest.mark.parametrize("band", [("0.8", "0.2"), ("-0.1", "0.5"), ("0.5", "1.5")])
def test_a_band_outside_is_refused(run: Run, band: tuple[str, str]) -> None:
    done = run("export", "mea_1", "--band", *band)
    assert isinstance(done.exception, PacedError)
    assert "between 0 and 1, lowest first" in str(done.exception)


@pytest.mark.parametrize("has_polars", [True, False])
def test_a_dataset_folder_is_read_back_by_an_import(
    run: Run, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_polars: bool
) -> None:
    if not has_polars:
        monkeypatch.setattr(export.importlib.util, "find_spec", lambda _: None)
    done = run("export", "mea_1", "--format", "dataset", "--json")
    assert json.loads(done.stdout) == {"file": "tiny-sums", "n_rows": N}
    ending = "parquet" if has_polars else "jsonl"
    folder = tmp_path / "tiny-sums"
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert names == ["README.md", f"data/test-00000-of-00001.{ending}", f"data/train-00000-of-00001.{ending}"]
    if has_polars:
        types = [pl.read_parquet_schema(path) for path in sorted((folder / "data").iterdir())]
        assert types[0] == types[1]
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n")
    target = f"again-{ending}"
    imported = run("import", str(folder), "--set", target, "--split", "train", "--grader", "numeric", "--json")
    assert imported.exit_code == 0, imported.output
    with service.client() as client:
        held_out = {e.ordinal for e in client.estimates("mea_1", is_holdout=True)}
        sent = {p.fingerprint: p for p in client.problems("sums", limit=100) if p.ordinal not in held_out}
        back = {p.fingerprint: p for p in client.problems(target, limit=100)}
    assert back.keys() == sent.keys()
    assert all((p.prompt, p.answer, p.tags) == (sent[f].prompt, sent[f].answer, sent[f].tags) for f, p in back.items())
    again = run("export", "mea_1", "--format", "dataset")
    assert isinstance(again.exception, PacedError)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-sums"]


def row(ordinal: int, prompt: Any, is_holdout: bool = False) -> dict[str, Any]:
    kept = {"problem_id": ordinal, "ordinal": ordinal, "prompt": prompt, "is_holdout": is_holdout, "tags": ["a"]}
    return {**kept, "verdicts": {"pass": ordinal}, "interval": [0.1, 0.5] if ordinal else None}


def test_a_column_has_one_type(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    rows = [row(0, "2 + 2?"), row(1, chat), row(2, "3 + 3?", is_holdout=True)]
    assert export.write_rows(tmp_path / "folder", export.Format.DATASET, iter(rows)) == 3
    train = pl.read_parquet(tmp_path / "folder" / "data" / "train-*").to_dicts()
    assert [one["prompt"] for one in train] == [[{"role": "user", "content": "2 + 2?"}], chat]
    assert [(one["tags"], one["interval"], one["verdicts"]) for one in train] == [
        (["a"], None, '{"pass": 0}'),
        (["a"], [0.1, 0.5], '{"pass": 1}'),
    ]
    test = pl.read_parquet(tmp_path / "folder" / "data" / "test-*").to_dicts()
    assert [one["prompt"] for one in test] == [[{"role": "user", "content": "3 + 3?"}]]
    export.write_rows(tmp_path / "one.parquet", None, iter(rows))
    assert pl.read_parquet(tmp_path / "one.parquet")["prompt"].to_list()[0::2] == ["2 + 2?", "3 + 3?"]


def test_a_failing_export_leaves_what_was_there(tmp_path: Path) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield row(0, "?")
        raise PacedError("the line was cut")

    (tmp_path / "kept.jsonl").write_text("before")
    for file_format, name in ((export.Format.JSONL, "kept.jsonl"), (export.Format.DATASET, "folder")):
        with pytest.raises(PacedError, match="cut"):
            export.write_rows(tmp_path / name, file_format, broken())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("kept.jsonl", "before")]


RATES = st.floats(0, 1)
EXPONENTS = st.just(0.0) | st.floats(1e-3, 64)


@given(RATES, EXPONENTS, EXPONENTS)
def test_a_weight_is_1_at_its_peak_and_less_elsewhere(p: float, alpha: float, beta: float) -> None:
    chosen = Selection(alpha=alpha, beta=beta)
    weight = chosen.weight(p)
    assert weight is not None
    assert 0 <= weight <= 1 + 1e-9
    if alpha + beta:
        assert chosen.weight(alpha / (alpha + beta)) == pytest.approx(1)
