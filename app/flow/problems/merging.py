"""What one chunk of an import changes in a problem set, decided from what is stored: no I/O."""

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from paced.wire.problems import AnswerConflict, Flag, Overlap, ProblemSet, ProblemState

from .flags import Found
from .intake import Chunk
from .reading.drafts import ProblemDraft
from .spelling import answer_key

Row = dict[str, Any]
_SHOWN = 200


@dataclass(slots=True)
class Changes:
    """Rows to insert, multiplicities and states to update, and what the report says of them."""

    inserts: list[Row] = field(default_factory=list)
    counts: list[Row] = field(default_factory=list)
    states: list[Row] = field(default_factory=list)
    n_more_rows: int = 0
    n_more_flagged: int = 0
    n_answered: int = 0
    flagged: Counter[str] = field(default_factory=Counter)
    conflicts: list[AnswerConflict] = field(default_factory=list)
    overlaps: list[Overlap] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which import writes, and when; `excluded` are the benchmark sets whose problems are flagged."""

    import_id: str
    now: dt.datetime
    excluded: frozenset[str]


def merge(found: ProblemSet, version: int, known: Mapping[str, Row], chunk: Chunk, stamp: Stamp) -> Changes:
    """What storing the chunk in the set changes; `known` are the set's rows by fingerprint, `version` its state's.

    Rows of one import count together: a twin raises the multiplicity only as far as one import repeats it.
    """
    changes = Changes(conflicts=_conflicts(known, chunk))
    changes.overlaps = [
        Overlap(line=chunk.drafts[one].line, problem_set=place[0], ordinal=place[1], fingerprint=one)
        for one, place in chunk.places.items()
    ]
    reasons = _reasons(changes, chunk, stamp)
    for fingerprint, draft in chunk.drafts.items():
        if fingerprint not in known:
            ordinal = found.n_problems + len(changes.inserts)
            row = problem_row(draft, found, reasons.get(fingerprint), chunk.flags.get(fingerprint))
            changes.inserts.append(
                {**row, **_origin(draft, ordinal, chunk.counts[fingerprint], stamp), "problem_set": found.name}
            )
            if row["flag"]:
                changes.flagged[row["flag"].value] += 1
    changes.n_more_rows = sum(row["multiplicity"] for row in changes.inserts)
    changes.n_more_flagged = changes.flagged.total()
    for fingerprint, row in known.items():
        _count(changes, row, chunk.counts[fingerprint], stamp)
        _restate(changes, row, reasons.get(fingerprint), chunk, version)
    return changes


def problem_row(draft: ProblemDraft, found: ProblemSet, *reasons: Found | None) -> Row:
    """The columns of a problem that its draft decides; the first reason is its flag, the others are told with it."""
    given = [reason for reason in reasons if reason]
    flag = given[0][0] if given else None
    return {
        "fingerprint": draft.fingerprint,
        "prompt": orjson.dumps(draft.prompt).decode(),
        "answer": draft.answer,
        "grader": draft.grader or found.grader,
        "tags": list(draft.tags),
        "source": draft.source,
        "solution": draft.solution,
        "state": ProblemState.FLAGGED if flag else ProblemState.READY,
        "flag": flag,
        "flag_detail": _told(given) if given else None,
    }


def _origin(draft: ProblemDraft, ordinal: int, n: int, stamp: Stamp) -> Row:
    return {
        "ordinal": ordinal,
        "multiplicity": n,
        "import_id": stamp.import_id,
        "import_count": n,
        "holdout_key": int(draft.fingerprint[:4], 16),
        "created_at": stamp.now,
    }


def _conflicts(known: Mapping[str, Row], chunk: Chunk) -> list[AnswerConflict]:
    within = [
        AnswerConflict(
            line=rival.line,
            answer=rival.answer,
            first_line=rival.first_line,
            first_answer=rival.first_answer,
            fingerprint=rival.fingerprint,
        )
        for rival in chunk.rivals
    ]
    stored = [
        AnswerConflict(
            line=draft.line, answer=draft.answer, first_line=None, first_answer=row["answer"], fingerprint=fingerprint
        )
        for fingerprint, draft in chunk.drafts.items()
        if (row := known.get(fingerprint)) is not None and _differs(draft.answer, row["answer"])
    ]
    return stored + within


def _differs(answer: str, stored: str) -> bool:
    return bool(answer and stored and answer != stored) and answer_key(answer) != answer_key(stored)


def _reasons(changes: Changes, chunk: Chunk, stamp: Stamp) -> dict[str, Found]:
    """Why a problem must not be served that its text alone does not tell, by fingerprint."""
    answers: dict[str, list[str]] = {}
    for one in changes.conflicts:
        first = f"{_cut(one.first_answer)} ({f'line {one.first_line}' if one.first_line else 'stored before'})"
        answers.setdefault(one.fingerprint, [first]).append(f"{_cut(one.answer)} (line {one.line})")
    reasons: dict[str, Found] = {
        fingerprint: (Flag.CONFLICTING_ANSWERS, f"the same text has the answers {' and '.join(said)}")
        for fingerprint, said in answers.items()
    }
    for fingerprint, (name, ordinal) in chunk.places.items():
        if name in stamp.excluded:
            other = reasons.get(fingerprint)
            detail = f"also problem {ordinal} of the set {name}" + (f"; {other[1]}" if other else "")
            reasons[fingerprint] = (Flag.OVERLAP, detail)
    return reasons


def _count(changes: Changes, row: Row, n: int, stamp: Stamp) -> None:
    in_import = n + (row["import_count"] if row["import_id"] == stamp.import_id else 0)
    multiplicity = max(row["multiplicity"], in_import)
    changes.n_more_rows += multiplicity - row["multiplicity"]
    changes.counts.append(
        {"id": row["problem_id"], "at_import": stamp.import_id, "n": in_import, "at_most": multiplicity}
    )


def _restate(changes: Changes, row: Row, reason: Found | None, chunk: Chunk, version: int) -> None:
    """A stored problem becomes flagged, or an answer that it lacked is filled in; a decision stands."""
    if row["state"] == ProblemState.READY and row["flag"] is None and reason:
        changes.flagged[reason[0].value] += 1
        changes.n_more_flagged += 1
        changes.states.append(_state(row, version, ProblemState.FLAGGED, reason, row["answer"], row["solution"]))
    draft = chunk.drafts.get(row["fingerprint"])
    is_unanswered = row["state"] == ProblemState.FLAGGED and not row["answer"]  # so nothing was judged by it
    if draft and draft.answer and is_unanswered and draft.fingerprint not in chunk.flags:
        changes.n_answered += 1
        changes.n_more_flagged -= 0 if reason else 1
        state = ProblemState.FLAGGED if reason else ProblemState.READY
        changes.states.append(_state(row, version, state, reason, draft.answer, draft.solution or row["solution"]))


def _state(row: Row, version: int, state: ProblemState, reason: Found | None, answer: str, solution: str | None) -> Row:
    return {
        "id": row["problem_id"],
        "new_state": state,
        "new_flag": reason[0] if reason else None,
        "new_detail": _told([reason]) if reason else None,
        "new_answer": answer,
        "new_solution": solution,
        "new_version": version + 1,
    }


def _told(reasons: list[Found]) -> str:
    return "; ".join(detail for _, detail in reasons)


def _cut(answer: str) -> str:
    return answer if len(answer) <= _SHOWN else answer[:_SHOWN] + "…"
