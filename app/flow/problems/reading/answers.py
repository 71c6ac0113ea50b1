r"""From the value of an answer field to the reference answer, and to the worked solution it came from.

Worked text marks its answer by a last line `#### 18` (GSM8K) or by its last `\boxed{...}` (MATH).
"""

import math
import re
from typing import Any

from .drafts import RefusedRowError

MAX_BARE_CHARS = 200
_MARKUP_CHARS = len(r"$\boxed{}$")
_EXACT_FLOAT = 2.0**53
_DIGIT_GROUPS = re.compile(r"[-+$]*\d{1,3}(,\d{3})+(\.\d+)?%?")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)


def read_answer(value: Any, field: str, *, is_worked: bool) -> tuple[str, str | None]:
    r"""The answer, and the worked solution if `value` is one.

    `is_worked` says that the field holds solutions: text of several lines without a mark is then a solution with an
    empty answer, as is an empty field. Raises RefusedRowError with `bad_answer` or `bad_messages`.
    """
    answer, solution = _from_value(value, field, is_worked)
    return answer.strip() and answer, solution


def read_solution(value: Any) -> str | None:
    """The text of a solution field, of which a list holds alternatives: the first counts."""
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) and value and not value.isspace() else None


def last_boxed(text: str) -> str | None:
    r"""What the last `\boxed{...}` (or `\boxed 5`) holds; None where there is none or its brace never closes."""
    at = text.rfind("\\boxed")
    if at < 0:
        return None
    rest = text[at + len("\\boxed") :].lstrip()
    if not rest.startswith("{"):
        return rest.partition("$")[0].strip() or None
    depth = 0
    for brace in _BRACES.finditer(rest):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0 and brace[0] == "}":
            return rest[1 : brace.start()].strip()
    return None


def _from_value(value: Any, field: str, is_worked: bool) -> tuple[str, str | None]:
    if isinstance(value, str):
        return _from_text(value, is_worked)
    if isinstance(value, list):
        if value and isinstance(value[0], dict):  # a completion in messages
            return _from_value(_last_content(value, field), field, is_worked)
        texts = [_from_value(item, field, is_worked) for item in value]
        solution = texts[0][1] if len(texts) == 1 else None
        return ", ".join(answer for answer, _ in texts if answer), solution
    return _plain(value, field), None


def _from_text(text: str, is_worked: bool) -> tuple[str, str | None]:
    bare = text.strip()
    if "####" in bare:
        head, _, tail = bare.rpartition("####")
        # A heading of that depth in Markdown is no mark: the mark begins the last line.
        if "\n" not in tail and (not head or head.endswith("\n")):
            tail = tail.strip()
            return (tail.replace(",", "") if _DIGIT_GROUPS.fullmatch(tail) else tail), bare if head else None
    if "\\boxed" in bare:
        boxed = last_boxed(bare)
        if boxed is not None:
            return boxed, bare if len(bare) > len(boxed) + _MARKUP_CHARS else None
    if is_worked and ("\n" in bare or len(bare) > MAX_BARE_CHARS):
        return "", bare
    return bare, None


def _plain(value: Any, field: str) -> str:
    """The shortest text of a JSON scalar: 27.0 is "27"."""
    if value is None:
        return ""
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        if not value.is_integer():
            return repr(value)
        if abs(value) > _EXACT_FLOAT:
            raise RefusedRowError(
                "bad_answer", f"field '{field}' holds the number {value!r}, whose digits are lost; write it as a string"
            )
        return str(int(value))
    if isinstance(value, dict | bytes):
        raise RefusedRowError(
            "bad_answer",
            f"field '{field}' holds {'bytes' if isinstance(value, bytes) else 'an object'}; "
            "it must be text, a number or a list of these (answer_field may name a part: a.b)",
        )
    return str(value)


def _last_content(turns: list[Any], field: str) -> Any:
    last = turns[-1]
    if not isinstance(last, dict) or last.get("content") is None:
        raise RefusedRowError("bad_messages", f"the last message of '{field}' has no content")
    return last["content"]
