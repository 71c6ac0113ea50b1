"""What an import passes along: problem drafts, refused rows, and what reading was told."""

from dataclasses import dataclass
from typing import NamedTuple

Message = dict[str, str]
Prompt = str | list[Message]

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read a file: fields named by the user win over detection, `a.b` reaches into an object.

    Templates (Jinja) make prompt or answer of a row's fields. `allow_no_answer`: rows without a field for the answer
    are drafts with an empty one, not refusals. `source` is stored with each problem (default: the file's name). A line
    of JSONL or a row of CSV longer than `max_line_bytes` is refused.
    """

    prompt_field: str | None = None
    answer_field: str | None = None
    tags_field: str | None = None
    prompt_template: str | None = None
    answer_template: str | None = None
    allow_no_answer: bool = False
    source: str | None = None
    max_line_bytes: int = 16 * MIB


class ProblemDraft(NamedTuple):
    """A problem as read from one row, not yet stored; a tuple, for it is made for every row.

    `prompt` is text or messages with exactly `role` and `content`; `answer` is empty where the row has none;
    `fingerprint` is 32 hexadecimal digits;
    `line` is where the row stands in its file (see `RowRefused`).
    """

    prompt: Prompt
    answer: str
    grader: str | None
    tags: tuple[str, ...]
    source: str
    solution: str | None
    fingerprint: str
    line: int


@dataclass(frozen=True, slots=True)
class RowRefused:
    """A row that is not imported; `code` is stable, `reason` says what was found and what to do.

    `line` counts from 1: lines of JSONL, the line on which a CSV row begins, rows of Parquet.
    """

    line: int
    code: str
    reason: str


class UnreadableFile(Exception):
    """The file as a whole cannot be read; `code` is stable, `reason` says why and what to do."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class RefusedRowError(Exception):
    """Raised inside the shaping of one row; the shaper turns it into a `RowRefused`."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
