"""The commands `paced grade` and `paced regrade`: options in, exit code out."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from pydantic import ValidationError
from rich.console import Console

from paced.client import Client
from paced.options import GRADERS, AsJson, Key, PolicyOption, Url, checked, policy_of
from paced.wire import (
    AnswerToGrade,
    GraderName,
    GradingPolicy,
    MeasurementCreate,
    NewVerdict,
    ProfileCreate,
    RegradedGroup,
    StoredGroup,
    StoredRollout,
    Verdict,
)

from . import GRADER_VERSION, Grade, GraderPool

CHUNK = 256  # answers in the pool at once
GROUPS = 64  # groups of a regrade that are judged and sent at once
NOT_JUDGED = (Verdict.TRUNCATED, Verdict.INFRASTRUCTURE)  # there was no whole answer, so there is none now
Processes = Annotated[int, typer.Option("--graders", min=1, help="Grading processes")]
Deadline = Annotated[float, typer.Option("--grading-deadline-s", min=0.1, help="Seconds for one answer")]
console = Console(stderr=True)


def grade(
    file: Annotated[Path, typer.Argument(help="JSONL; each line has `text` and `answer`", exists=True, dir_okay=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the lines with their verdicts here")
    ] = None,
    grader: Annotated[str, typer.Option(help=GRADERS)] = GraderName.MATH.value,
    policy: PolicyOption = None,
    graders: Processes = 2,
    deadline_s: Deadline = 5.0,
    as_json: AsJson = False,
) -> None:
    """Judge the answers of a file here, without a service. A line may name its own `grader` and `policy`.

    Exit code 0 when every answer got pass or fail, 3 when some got no verdict.
    """
    base = {"grader": grader, "policy": (policy_of(policy) or GradingPolicy()).model_dump()}
    with file.open() as lines, output.open("w") if output else contextlib.nullcontext() as out:
        counts = asyncio.run(_grade_lines(lines, out, base, graders, deadline_s))
    if as_json:
        typer.echo(json.dumps({"grader_version": GRADER_VERSION, "n_answers": counts.total(), "verdicts": counts}))
    else:
        typer.echo(f"{counts.total()} answers: " + ", ".join(f"{n} {v}" for v, n in counts.most_common()))
    if counts.total() > counts[Verdict.PASS.value] + counts[Verdict.FAIL.value]:
        raise typer.Exit(3)


def regrade(
    measurement: Annotated[str, typer.Argument(help="Measurement id, such as mea_1, whose stored answers to judge")],
    grader: Annotated[str | None, typer.Option(help="Judge by this grader; each problem's own if left out")] = None,
    policy: PolicyOption = None,
    graders: Processes = 2,
    deadline_s: Deadline = 5.0,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Judge stored answers again, without new rollouts: makes a measurement under this version of the graders.

    The key needs the scopes read, train and rollout. Interrupted, the same command goes on with what is missing.
    `paced disputes` then lists what changed.
    """
    with Client(url, key) as client:
        wanted = _wanted(client, measurement, grader, policy)
        result = asyncio.run(_regrade(client, measurement, wanted, graders, deadline_s))
    if as_json:
        typer.echo(json.dumps(result))
    else:
        typer.echo(
            f"{result['n_answers']} answers of {measurement} judged again into {result['measurement_id']}: "
            f"{result['n_changed']} have another verdict"
        )


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.command()(grade)
    cli.command()(regrade)


async def _grade_lines(
    lines: Iterable[str], out: TextIO | None, base: dict[str, Any], n_graders: int, deadline_s: float
) -> Counter[str]:
    counts: Counter[str] = Counter()
    async with GraderPool(n_graders, deadline_s=deadline_s) as pool:
        rows = _rows(lines, base)
        while chunk := list(islice(rows, CHUNK)):
            grades = await asyncio.gather(*(pool.grade(a.text, a.answer, a.grader, a.policy) for _, a in chunk))
            counts.update(found.verdict.value for found in grades)
            if out is not None:
                judged = ({**row, **_shown(found)} for (row, _), found in zip(chunk, grades, strict=True))
                out.writelines(json.dumps(line) + "\n" for line in judged)
    return counts


def _rows(lines: Iterable[str], base: dict[str, Any]) -> Iterator[tuple[dict[str, Any], AnswerToGrade]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            known = {name: row[name] for name in AnswerToGrade.model_fields if name in row}
            yield row, AnswerToGrade.model_validate({**base, **known})
        except (ValueError, TypeError) as error:
            why = error.errors()[0] if isinstance(error, ValidationError) else error
            raise typer.BadParameter(f"line {number}: needs an object with text and answer ({why})") from None


async def _regrade(
    client: Client, source: str, wanted: ProfileCreate, n_graders: int, deadline_s: float
) -> dict[str, Any]:
    target = _target(client, source, wanted)
    totals: Counter[str] = Counter()
    groups = client.groups(source, missing_in=target, limit=GROUPS)
    async with GraderPool(n_graders, deadline_s=deadline_s) as pool:
        with console.status("regrading") as status:
            while chunk := list(islice(groups, GROUPS)):
                judged = await asyncio.gather(*(_judged(pool, group, wanted) for group in chunk))
                receipt = client.regrade(target, judged)
                n_answers = sum(len(group.rollouts) for group in chunk)
                totals.update(n_answers=n_answers, n_changed=receipt.n_changed)
                status.update(f"regrading: {totals['n_answers']} answers, {totals['n_changed']} changed")
    return {
        "source": source,
        "measurement_id": target,
        "grader_version": GRADER_VERSION,
        "n_answers": totals["n_answers"],
        "n_changed": totals["n_changed"],
    }


def _wanted(client: Client, source: str, grader: str | None, policy: list[str] | None) -> ProfileCreate:
    """The source's profile under this version of the graders, and what the user asks for."""
    old = client.profile(client.measurement(source).profile_id)
    body = old.model_dump(include=set(ProfileCreate.model_fields)) | {"grader_version": GRADER_VERSION}
    body |= {"grader": grader} if grader else {}
    body |= {"policy": policy_of(policy)} if policy else {}
    return checked(ProfileCreate, body)


def _target(client: Client, source: str, wanted: ProfileCreate) -> str:
    """The measurement that takes the new verdicts; made if it is not there."""
    old = client.measurement(source)
    profile = client.create_profile(wanted)
    if profile.profile_id == old.profile_id:
        raise typer.BadParameter(
            f"{source} is judged by version {GRADER_VERSION} of the graders under this policy already: nothing to do"
        )
    return client.create_measurement(
        MeasurementCreate(
            student=old.student,
            problem_set=old.problem_set,
            profile_id=profile.profile_id,
            n_rollouts=old.n_rollouts,
        )
    ).measurement_id


async def _judged(pool: GraderPool, group: StoredGroup, wanted: ProfileCreate) -> RegradedGroup:
    grader, policy = wanted.grader or group.grader, wanted.policy or group.policy

    async def verdict(rollout: StoredRollout) -> NewVerdict:
        if rollout.verdict in NOT_JUDGED:
            return NewVerdict.model_validate(rollout.model_dump(include=set(NewVerdict.model_fields)))
        found = await pool.grade(rollout.text, group.answer, grader, policy)
        return NewVerdict(
            verdict=found.verdict, extracted=found.extracted, grading_s=found.seconds, detail=found.detail
        )

    verdicts = await asyncio.gather(*map(verdict, group.rollouts))
    return RegradedGroup(observation_id=group.observation_id, verdicts=list(verdicts))


def _shown(found: Grade) -> dict[str, Any]:
    return {"verdict": found.verdict.value, "extracted": found.extracted, "detail": found.detail}
