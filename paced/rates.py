"""The command `paced import-rates`: pass rates that were measured elsewhere become observations.

They come in as a trainer's free observations do. A curriculum of its own, uniform and without end, draws every problem
that training may see, and its batches are acknowledged with the outcomes; keys made of the file's content let the same
file count once, however often it is sent.
"""

import csv
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from paced import wire
from paced.client import Client
from paced.commands import answer
from paced.errors import BadRequest, NothingEligible, PacedError
from paced.options import AsJson, Key, Url
from paced.selecting import only_measurement

SIZES = (4096, 256, 16, 1)  # of batches; the same whatever the set has grown to, since they are part of the keys
NAMES = ("problem_id", "fingerprint", "prompt")


@dataclass(frozen=True, slots=True)
class Rate:
    """`n_passed` of `n_counted` answers to the problem that one of its names stands for."""

    name: str
    value: Any
    n_passed: int
    n_counted: int


@dataclass(slots=True)
class RatesReport:
    """What became of each row: counted, of no problem in the set, or of one that no batch may hold."""

    n_rows: int
    n_counted: int = 0
    n_counted_before: int = 0
    n_unknown: int = 0
    n_not_served: int = 0


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command("import-rates")(import_rates)


def import_rates(
    file: Annotated[Path, typer.Argument(help="JSONL, CSV or Parquet; a row names a problem and counts its answers")],
    measurement: Annotated[str | None, typer.Option(help="Measurement id; may be left out where there is one")] = None,
    checkpoint: Annotated[
        int | None, typer.Option(min=0, help="Which weights answered; the newest if left out")
    ] = None,
    answers: Annotated[
        int | None, typer.Option(min=1, help="Answers a problem, for rows with `pass_rate` only")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Count pass rates that were measured elsewhere.

    A row has `problem_id`, `fingerprint` (both as exported) or `prompt`, and `n_passed` with `n_counted`, or a
    `pass_rate`. Problems that are held out, flagged or in quarantine are left out. The same file counts once.
    """
    rates = read_rates(file, answers)
    digest = hashlib.sha256(file.read_bytes() + f"|{checkpoint}|{answers}".encode()).hexdigest()[:32]
    with Client(url, key) as client:
        found = client.measurement(measurement) if measurement else only_measurement(client)
        report = count_rates(client, found, rates, checkpoint, digest)
    text = (
        f"{report.n_counted} of {report.n_rows} pass rates counted, {report.n_counted_before} before, "
        f"{report.n_unknown} of unknown problems, {report.n_not_served} of problems that no batch may hold"
    )
    answer(asdict(report) if as_json else text, as_json)


def read_rates(path: Path, n_answers: int | None) -> list[Rate]:
    """The rows of a file; raises PacedError with the line that cannot be used."""
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise PacedError(f"cannot read {path.name!r}: its ending is none of {', '.join(_READERS)}")
    rates = []
    for line, row in enumerate(reader(path), 1):
        try:
            rates.append(_rate(row, n_answers))
        except (KeyError, TypeError, ValueError) as error:
            raise PacedError(f"{path.name}: row {line}: {error}") from error
    return rates


def _rate(row: dict[str, Any], n_answers: int | None) -> Rate:
    name = next((name for name in NAMES if row.get(name) not in (None, "")), None)
    if name is None:
        raise ValueError(f"names no problem; it needs one of {', '.join(NAMES)}")
    n_counted = int(row["n_counted"]) if row.get("n_counted") not in (None, "") else n_answers
    if n_counted is None:
        raise ValueError("has no n_counted; say how many answers a pass rate stands for with --answers")
    has_count = row.get("n_passed") not in (None, "")
    n_passed = int(row["n_passed"]) if has_count else round(float(row["pass_rate"]) * n_counted)
    if not 0 <= n_passed <= n_counted:
        raise ValueError(f"{n_passed} of {n_counted} answers cannot have passed")
    value = int(row[name]) if name == "problem_id" else row[name]
    return Rate(name, json.dumps(value) if isinstance(value, list) else value, n_passed, n_counted)


def count_rates(
    client: Client, measurement: wire.Measurement, rates: list[Rate], checkpoint: int | None, digest: str
) -> RatesReport:
    """Send each rate once, as the outcome of a problem in a batch."""
    if measurement.latest_checkpoint is None:
        raise PacedError(f"student {measurement.student} has no checkpoint yet: register the weights that answered")
    index = measurement.latest_checkpoint.index if checkpoint is None else checkpoint
    report = RatesReport(len(rates))
    outcomes = _outcomes(client, measurement, rates, index, report)
    batches = _every_problem(client, measurement, digest)
    done: set[int] = set()
    for batch in sorted(batches, key=lambda batch: batch.state != wire.BatchState.ACKNOWLEDGED):
        mine = {problem_id: outcomes[problem_id] for problem_id in batch.problem_id if problem_id in outcomes}
        if batch.state == wire.BatchState.ACKNOWLEDGED:
            report.n_counted_before += len(mine.keys() - done)
        else:
            new = [outcome for problem_id, outcome in mine.items() if problem_id not in done]
            report.n_counted += client.acknowledge(batch.batch_id, new).n_outcomes
        done |= mine.keys()
    report.n_not_served = len(outcomes.keys() - done)
    return report


def _outcomes(
    client: Client, measurement: wire.Measurement, rates: list[Rate], index: int, report: RatesReport
) -> dict[int, wire.Outcome]:
    """Outcomes by problem id; rows on one problem add up."""
    ids: dict[tuple[str, Any], int] = {}
    for problem in client.problems(measurement.problem_set, limit=1000):
        prompt = problem.model_dump(mode="json")["prompt"]
        values = (problem.problem_id, problem.fingerprint, prompt if isinstance(prompt, str) else json.dumps(prompt))
        ids |= dict.fromkeys(zip(NAMES, values, strict=True), problem.problem_id)
    sums: dict[int, tuple[int, int]] = {}
    for rate in rates:
        problem_id = ids.get((rate.name, rate.value))
        if problem_id is None or rate.n_counted == 0:
            report.n_unknown += problem_id is None
            continue
        passed, counted = sums.get(problem_id, (0, 0))
        sums[problem_id] = passed + rate.n_passed, counted + rate.n_counted
    return {
        problem_id: wire.Outcome(
            problem_id=problem_id, checkpoint_index=index, n_passed=passed, n_failed=counted - passed
        )
        for problem_id, (passed, counted) in sums.items()
    }


def _every_problem(client: Client, measurement: wire.Measurement, digest: str) -> list[wire.Batch]:
    """Batches that together hold every problem that may be served; all are drawn before one is acknowledged."""
    body = {
        "name": f"rates-of-{measurement.measurement_id}",
        "student": measurement.student,
        "problem_set": measurement.problem_set,
        "profile_id": measurement.profile_id,
        "n_rollouts": measurement.n_rollouts,
        "estimator": {"name": "discounted_beta"},
        "kernel": {"alpha": 0, "beta": 0},
        "schedule": [{"stage": "forward_kl"}],
        "holdout_share": 0.0,
    }
    curriculum = client.create_curriculum(wire.CurriculumCreate.model_validate(body))
    found: list[wire.Batch] = []
    for size in SIZES:
        for number in itertools.count():
            batch = _drawn(client, curriculum.curriculum_id, size, f"{digest}:{size}:{number}")
            if batch is None:
                break
            if batch.state != wire.BatchState.EXPIRED:
                found.append(batch)
    return found


def _drawn(client: Client, curriculum_id: str, size: int, key: str) -> wire.Batch | None:
    """The batch of a key, None when every problem is in an open one or the set is smaller."""
    try:
        return client.draw_batch(curriculum_id, size, key=key, include="ids")
    except NothingEligible:
        return None
    except BadRequest as error:
        if error.code == "batch_larger_than_pool":
            return None
        raise


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from (json.loads(line) for line in file if line.strip())


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import polars
    except ModuleNotFoundError as error:
        raise PacedError("Parquet needs polars: `pip install polars`, or bring JSONL or CSV") from error
    yield from polars.read_parquet(path).iter_rows(named=True)


_READERS: dict[str, Callable[[Path], Iterator[dict[str, Any]]]] = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
