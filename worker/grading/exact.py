"""The exact grader: the same words, up to white space, Unicode form, emphasis and a final stop."""

import re
import unicodedata

from paced.wire.grading import GradingPolicy

from .base import DEFAULT_POLICY, Judged
from .extract import find_answer, strip_sentence

TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf)\{([^{}]*)\}")


def judge(text: str, answer: str, policy: GradingPolicy = DEFAULT_POLICY) -> Judged:  # noqa: ARG001
    """Pass where the whole text or the answer it marks equals the reference; case matters."""
    wanted = plain(answer)
    marked = find_answer(text)
    extracted = text.strip() if marked is None or plain(text) == wanted else marked
    return Judged(plain(extracted) == wanted, extracted)


def plain(text: str) -> str:
    """Write the text in one way: NFC, one space between words, no LaTeX text command, emphasis or final stop."""
    text = TEXT_COMMAND.sub(r"\1", unicodedata.normalize("NFC", text))
    return " ".join(strip_sentence(text).split())
