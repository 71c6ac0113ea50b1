"""Spellings of one answer, and problems that say nearly the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.flow.problems.near import NearIndex, describe
from app.flow.problems.reading.drafts import ProblemDraft
from app.flow.problems.reading.fingerprint import Fingerprints, bare_text, fingerprint
from app.flow.problems.spelling import answer_key

TEXT = "A train leaves at {} o'clock and travels {} km at {} km per hour. When does it arrive?"
numbers = st.integers(0, 999)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,234", "1234"),
        ("900,\\!000", "900{,}000"),
        ("\\frac12", "0.5"),
        ("\\dfrac{3}{4}", "3/4"),
        ("−3", "-3"),
        ("25\\%", "25"),
        ("\\$6", "6"),
        ("x = 5", "5"),
        ("5\\text{ cm}", "5"),
        ("90^\\circ", "90"),
        ("\\text{Yes}", "yes."),
        ("\\left( 3, 4 \\right)", "(3,4)"),
    ],
)
def test_one_answer_in_two_spellings(one, other):
    assert answer_key(one) == answer_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("64", "6"),
        ("2x", "2"),
        ("-1", "1"),
        ("0.5", "0.05"),
        ("(1,234)", "(1234)"),
        ("1/0", "0"),
        ("a", "b"),
        ("%", ""),
    ],
)
def test_two_answers_stay_two(one, other):
    assert answer_key(one) != answer_key(other)


@given(st.text(max_size=40))
def test_every_text_has_a_spelling_that_is_its_own(text):
    assert answer_key(text) == answer_key(f" {text} ")


@given(st.tuples(numbers, numbers, numbers), st.tuples(numbers, numbers, numbers))
def test_problems_of_one_template_are_near_twins_only_with_the_same_numbers(one, other):
    assert (describe(TEXT.format(*one))[0] == describe(TEXT.format(*other))[0]) == (one == other)


@pytest.mark.parametrize(
    "changed",
    [
        ("log_{36} 6", "log_{6} 36"),
        ("the largest x", "the smallest x"),
        ("a + b", "a - b"),
        ("find x", "find y"),
        ("is three", "is four"),
        ("is even", "is not even"),
        ("\\sin x", "\\cos x"),
        ("x^2", "x_2"),
    ],
)
def test_what_changes_the_problem_changes_the_formula(changed):
    assert describe(changed[0])[0] != describe(changed[1])[0]


@pytest.mark.parametrize(
    "changed",
    [
        ("$1000$ rooms", "1000 rooms"),
        ("\\(x \\leq 1{,}000\\)", "$x \\le 1,000$"),
        ("\\dfrac{1}{2}", "\\frac{1}{2}"),
        ("a two-digit number", "the two-digit number"),
    ],
)
def test_what_only_looks_different_does_not(changed):
    assert describe(changed[0])[0] == describe(changed[1])[0]


def draft(text, answer="1", line=1):
    return ProblemDraft(text, answer, None, (), "rows.jsonl", None, fingerprint(text), line)


def test_a_merged_row_is_not_compared_with_later_ones():
    index, text = NearIndex(), TEXT.format(3, 120, 60)
    assert index.match(draft(text), merge=True) is None
    for line, answer, is_merged in ((2, "1", True), (3, "2", False), (4, "2", True)):
        pair, other = index.match(draft(text + "." * line, answer, line), merge=True)
        assert (pair.is_merged, pair.similarity) == (is_merged, 1.0)
        assert pair.other_line == (3 if line == 4 else 1)
    assert other == fingerprint(text + "...")


def test_wrappers_are_left_out_of_the_comparison():
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Question: 2 + 2?\nAnswer:"}]
    assert bare_text(chat) == "2 + 2?"
    assert bare_text("Question:") == "Question:"


def test_remembered_fingerprints_are_those_of_the_prompts(monkeypatch):
    monkeypatch.setattr("app.flow.problems.reading.fingerprint.MAX_REMEMBERED_CHARS", 10)
    remembered = Fingerprints()
    prompts = [
        "2 + 2?",
        "3 + 3?",
        [{"role": "user", "content": "2 + 2?"}],
        [{"role": "system", "content": "x"}, {"role": "user", "content": "4"}],
    ]
    for prompt in prompts * 2:
        assert remembered(prompt) == fingerprint(prompt)
