"""The choice grader: one letter, as `(B)`, `B.`, `B) 12 cm`, a box, or "The answer is B"."""

import re

from paced.wire.grading import GradingPolicy

from .base import DEFAULT_POLICY, Judged, UngradableError
from .exact import plain
from .extract import find_answer

REFERENCE = re.compile(r"[\W_]*+(?:(?:option|choice)[\W_]*+)?([A-Z])(?![A-Z0-9'’])", re.IGNORECASE)
# A small letter counts only where a bracket, a stop or the end follows: "a dog" chooses nothing.
LEADING = re.compile(
    r"[\W_]*+(?:(?i:option|choice)[\W_]*+)?(?:([A-Z])(?![A-Za-z0-9'’])|([a-z])(?=\W*$|[).:]))"
    r"(?!\W*(?:,|/|&|\band\b|\bor\b)\W*[A-Z](?![A-Za-z]))"  # "B or C" is no choice
)
SHORT = re.compile(r"[\W_]*+([A-Z])[)\]*]*(?:[.,:;。，、]|\s*$|(?<=[)\]*])\s)")
LONE = re.compile(r"(?<![A-Za-z0-9'’])([A-Z])(?![A-Za-z0-9'’])")
ARTICLE = re.compile(r"A [a-z]|I\b")


def judge(text: str, answer: str, policy: GradingPolicy = DEFAULT_POLICY) -> Judged:  # noqa: ARG001
    """Pass where the text chooses the letter of the reference; a text that chooses none fails.

    Raises UngradableError where the reference does not begin with a letter that stands alone.
    """
    match = REFERENCE.match(plain(find_answer(answer) or answer))
    if match is None:
        raise UngradableError(f"the reference answer {answer[:80]!r} is not a choice letter")
    letter = find_letter(text)
    return Judged(letter == match[1].upper(), letter)


def find_letter(text: str) -> str | None:
    """Return the chosen letter in upper case: the marked one, else that which opens a short reply, else the last."""
    marked = find_answer(text)
    if marked is not None:
        marked = plain(marked)
        if match := LEADING.match(marked):
            return (match[1] or match[2]).upper()
        return None if LONE.match(marked) else _last_letter(marked) or _last_letter(text)
    first_line, _, rest = text.strip().partition("\n")
    first_line = plain(first_line)
    if match := LEADING.fullmatch(first_line.rstrip(".)]: ")):
        return (match[1] or match[2]).upper()
    match = None if rest else SHORT.match(first_line)
    return match[1] if match else _last_letter(text)


def _last_letter(text: str) -> str | None:
    """Return the last capital that stands alone, passing over the words "A" and "I"."""
    letters = [match[1] for match in LONE.finditer(text) if not ARTICLE.match(text, match.start())]
    return letters[-1] if letters else None
