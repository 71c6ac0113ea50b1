"""The command `paced import`: one file, or a folder as Hugging Face `datasets` keeps it."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from paced import wire
from paced.client import Client
from paced.commands import console
from paced.errors import NotFound
from paced.folders import DatasetError, find_files
from paced.options import GRADERS, AsJson, Key, PolicyOption, Url, checked, policy_of

SHOWN = 20
_SHOWN_CHARS = 160


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command("import")(import_)


def import_(
    file: Annotated[
        Path,
        typer.Argument(help="JSONL, JSON, CSV, Parquet or Arrow, plain, gzip or zstandard; or a folder of `datasets`"),
    ],
    problem_set: Annotated[str, typer.Option("--set", help="Problem set to import into; made if it is not there")],
    grader: Annotated[str | None, typer.Option(help=f"{GRADERS}; of a new set math, if left out")] = None,
    policy: PolicyOption = None,
    prompt_field: Annotated[
        str | None, typer.Option(help="Field of the prompt, if not detected; a.b reaches in")
    ] = None,
    answer_field: Annotated[str | None, typer.Option(help="Field of the reference answer")] = None,
    tags_field: Annotated[str | None, typer.Option(help="Field of the tags")] = None,
    prompt_template: Annotated[
        str | None, typer.Option(help="Jinja template of the prompt over the row's fields; @FILE reads it")
    ] = None,
    answer_template: Annotated[str | None, typer.Option(help="Jinja template of the answer; @FILE reads it")] = None,
    source: Annotated[
        str | None, typer.Option(help="Source kept with each problem; the file's name if left out")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of a folder that holds several, such as train")] = None,
    allow_no_answer: Annotated[
        bool, typer.Option("--allow-no-answer", help="Store rows without a field for the answer, flagged")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Store nothing; show the first rows as they would be, and every count")
    ] = False,
    near_twins: Annotated[
        wire.NearTwins, typer.Option(help="Rows that say nearly the same: list, merge, only count, or do not look")
    ] = wire.NearTwins.REPORT,
    exclude_overlap: Annotated[
        list[str] | None, typer.Option(help="Benchmark file or set: rows that it holds too are flagged. Repeatable")
    ] = None,
    report_overlap: Annotated[
        list[str] | None, typer.Option(help="Benchmark file or set: rows that it holds too are listed. Repeatable")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Import problems. Good rows are kept, each refused one is named with its line and reason.

    A row whose text is stored already is a twin and keeps its problem's id. Rows that no grader can judge are stored
    flagged and not served until someone decides (`paced flagged`). docs/importing.md tells the formats and rules.

    Exit code 0 if every row was imported or a twin, 3 if some were refused.
    """
    files = _files(file, split)
    given = {"grader": grader, "policy": policy_of(policy)}
    wanted = {name: value for name, value in given.items() if value is not None}
    with Client(url, key) as client:
        options: dict[str, Any] = {
            "prompt_field": prompt_field,
            "answer_field": answer_field,
            "tags_field": tags_field,
            "prompt_template": _template(prompt_template),
            "answer_template": _template(answer_template),
            "source": source,
            "allow_no_answer": allow_no_answer or None,
            "dry_run": dry_run or None,
            "near_twins": near_twins.value,
            "exclude_overlap": [_benchmark(client, name, wanted, dry_run) for name in exclude_overlap or []] or None,
            "report_overlap": [_benchmark(client, name, wanted, dry_run) for name in report_overlap or []] or None,
        }
        if not dry_run:
            _ensure_set(client, problem_set, wanted)
        reports = []
        for path in files:
            with console.status(f"importing {path.name}"):
                reports.append(client.import_problems(problem_set, path, **options))
            if not as_json:
                show(reports[-1])
    if as_json:
        typer.echo(reports[0].model_dump_json() if file.is_file() else json.dumps(_joined(reports)))
    if any(report.n_refused for report in reports):
        raise typer.Exit(3)


def show(report: wire.ImportReport) -> None:
    """Print a report: counts, then what a person should look at, the first 20 of each kind."""
    out = Console(soft_wrap=True, highlight=False)
    done = "would be imported" if report.is_dry_run else "imported"
    out.print(
        f"[bold]{report.n_imported}[/] {done}, {report.n_twins} twins, {report.n_refused} refused "
        f"of {report.n_rows} rows in {report.duration_s:.1f} s ({report.format}, read as {report.shape})"
    )
    name = report.file
    for row in report.preview:
        prompt = row.prompt if isinstance(row.prompt, str) else row.prompt[-1].content
        flag = f" [{row.flag.value}: {row.flag_detail}]" if row.flag else ""
        out.print(f"  {name}:{row.line}: {_short(prompt)!r} -> {_short(row.answer)!r}{flag}", markup=False)
    for warning in report.warnings:
        out.print(f"  warning: {warning}", markup=False)
    if report.n_flagged:
        by_flag = ", ".join(f"{n} {flag}" for flag, n in sorted(report.flags.items()))
        out.print(f"  {report.n_flagged} flagged, not served until someone decides: {by_flag}", markup=False)
    _show_list(out, [f"{one.file}:{one.line}: {one.reason} [{one.code}]" for one in report.refusals], report.n_refused)
    _show_list(out, [_conflict(name, one) for one in report.conflicts], report.n_conflicts)
    overlaps = [f"{name}:{one.line}: also problem {one.ordinal} of {one.problem_set}" for one in report.overlaps]
    _show_list(out, overlaps, report.n_overlaps)
    _show_list(out, [_near(name, one) for one in report.near_twins], report.n_near_twins)


def _show_list(out: Console, lines: list[str], n: int) -> None:
    for line in lines[:SHOWN]:
        out.print(f"  {line}", markup=False)
    if n > min(len(lines), SHOWN):
        out.print(f"  ... and {n - min(len(lines), SHOWN)} more; `--json` lists them")


def _conflict(name: str, one: wire.AnswerConflict) -> str:
    first = f"line {one.first_line} says" if one.first_line else "stored is"
    return f"{name}:{one.line}: answer {_short(one.answer)!r}, but {first} {_short(one.first_answer)!r}"


def _near(name: str, one: wire.NearTwin) -> str:
    other = f"line {one.other_line}" if one.other_line else f"problem {one.other_ordinal}"
    done = "merged into" if one.is_merged else "nearly"
    return f"{name}:{one.line}: {done} {other} ({one.similarity:.2f}): {_short(one.prompt)!r}"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def _files(path: Path, split: str | None) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise typer.BadParameter(f"{path} is neither a file nor a folder")
    try:
        return find_files(path, split)
    except DatasetError as error:
        raise typer.BadParameter(str(error)) from error


def _template(text: str | None) -> str | None:
    if text is None or not text.startswith("@"):
        return text
    path = Path(text[1:])
    if not path.is_file():
        raise typer.BadParameter(f"{path} is not a file; a template that is no file begins without @")
    return path.read_text()


def _benchmark(client: Client, name: str, wanted: dict[str, Any], dry_run: bool) -> str:
    """The set to compare with; a file becomes the set `benchmark-STEM` first."""
    path = Path(name)
    if not path.is_file():
        return name
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.name.partition(".")[0])
    problem_set = f"benchmark-{stem}"[:64]
    try:
        client.problem_set(problem_set)
    except NotFound:
        if dry_run:
            command = f"paced import {name} --set {problem_set}"
            raise typer.BadParameter(f"a dry run stores nothing: run `{command}` first") from None
        client.create_problem_set(_new_set(problem_set, wanted))  # its grader is of no matter: it is only compared with
    if not dry_run:
        client.import_problems(problem_set, path, near_twins="off", allow_no_answer=True)
    return problem_set


def _new_set(name: str, wanted: dict[str, Any]) -> wire.ProblemSetCreate:
    return checked(wire.ProblemSetCreate, {"name": name, "grader": wire.GraderName.MATH, **wanted})


def _ensure_set(client: Client, name: str, wanted: dict[str, Any]) -> None:
    """Make a set, or see that the one there judges as is `wanted`; raises BadParameter."""
    body = _new_set(name, wanted)
    try:
        found = client.problem_set(name)
    except NotFound:
        client.create_problem_set(body)
        return
    if "grader" in wanted and found.grader != body.grader:
        raise typer.BadParameter(
            f"set {name} is judged by {found.grader}, fixed when it was made: take another --set, or a field `grader` "
            "in the rows"
        )
    if "policy" in wanted and found.policy != body.policy:
        raise typer.BadParameter(f"set {name} is judged by another policy, fixed when it was made: take another --set")


def _joined(reports: list[wire.ImportReport]) -> dict[str, Any]:
    counts = ("n_rows", "n_imported", "n_twins", "n_refused", "n_flagged", "n_conflicts", "n_overlaps", "n_near_twins")
    totals = {name: sum(getattr(report, name) for report in reports) for name in counts}
    return {**totals, "files": [report.model_dump(mode="json") for report in reports]}
