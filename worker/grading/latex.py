"""The math grader: the marked answer held against the reference under the policy; docs/grading.md has the rules."""

import re

from paced.wire.grading import GradingPolicy

from . import choice, symbolic
from .base import DEFAULT_POLICY, Judged
from .compare import is_equal
from .extract import find_answer, strip_math
from .number import is_same, read
from .numeric import find_number
from .spelling import DOLLAR, PROSE, TEXT, depth, is_spelled_alike, normal

MAX_DEPTH = 40  # brackets within brackets: the parser takes time exponential in them
LETTER = re.compile(
    r"\(?\s*(?:\\text\s*\{)?\s*\(?([A-J])\)?\s*\}?\s*\)?\.?(?:(?<=[).:])\s+\S.*|\s+[A-Z][a-z]+.*)?", re.DOTALL
)
OPTION = re.compile(r"\(?[A-J][.):]\)?\s")
FORMULA = re.compile(r"[0-9=+*/^<>_]|\\(?!text|boxed|\(|\))|\b[A-Z]\s*-")
MAX_OPTION = 200
CJK = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")


def judge(text: str, answer: str, policy: GradingPolicy = DEFAULT_POLICY) -> Judged:
    """Pass where the answer in the text is mathematically equal to the reference.

    Raises UngradableError where the reference cannot be parsed, ImportError without math-verify.
    """
    marked, wanted = find_answer(text), find_answer(answer) or strip_math(answer)
    extracted = strip_math(text) if marked is None else marked
    if text.strip() == answer.strip() or is_spelled_alike(normal(wanted, policy), normal(extracted, policy)):
        return Judged(True, extracted)
    if letter := _chosen(extracted, text, wanted):
        return letter
    if max(depth(extracted), depth(wanted)) > MAX_DEPTH:
        return Judged(False, extracted, f"refused: brackets nested more than {MAX_DEPTH} deep")
    if marked is None and (PROSE.search(extracted) or "\n" in extracted or len(DOLLAR.findall(extracted)) > 1):
        return _judge_prose(extracted, wanted, policy)
    return Judged(is_equal(wanted, extracted, policy), extracted)


def _chosen(extracted: str, text: str, wanted: str) -> Judged | None:
    """Judge by letter where the reference is one, such as `B`, `(B)` or `(B) Paris`, and the answer no formula."""
    match = LETTER.fullmatch(wanted.strip())
    if match is None or len(wanted) > MAX_OPTION or (FORMULA.search(extracted) and not OPTION.match(extracted)):
        return None
    letter = choice.find_letter(text)
    return Judged(letter == match[1], letter) if letter else None


def _judge_prose(text: str, wanted: str, policy: GradingPolicy) -> Judged:
    """Judge what math-verify finds in a text that marks no answer; in Chinese and Japanese, the last number."""
    if PROSE.search(TEXT.sub(r"\1", wanted)) and PROSE.search(text):
        return Judged(False, text)  # two sentences: math-verify would compare a part of each
    number = read(wanted) if CJK.search(text) and not symbolic.DELIMITED.search(text) else None
    if number is not None:  # math-verify knows no words that end a number in these scripts
        extracted, found = find_number(text, policy)
        return Judged(found is not None and is_same(number, found, policy), extracted)
    is_right, picked = symbolic.judge(normal(wanted, policy), text, policy)
    if not is_right and picked is not None:
        is_right = is_equal(wanted, picked, policy)
    return Judged(is_right, picked or text)
