"""Verdicts of the four graders, judged in this process."""

import asyncio
import threading
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paced.wire.grading import GraderName, Verdict
from worker.grading import Grade, grade
from worker.grading.judge import GRADERS, MAX_CHARS, MAX_EXTRACTED
from worker.grading.number import read

NUMBERS = st.one_of(
    st.integers(-(10**12), 10**12).map(str),
    st.decimals(-(10**6), 10**6, places=4).map(str),
    st.tuples(st.integers(-99, 99), st.integers(1, 99)).map(lambda t: rf"\frac{{{t[0]}}}{{{t[1]}}}"),
    st.tuples(st.integers(-99, 99), st.integers(1, 99)).map(lambda t: f"{t[0]}/{t[1]}"),
)
TEXT_GRADERS = [GraderName.EXACT, GraderName.NUMERIC, GraderName.CHOICE, GraderName.MATH]
FORMULAS = [
    "x+1",
    "1+x",
    r"\frac{1}{2}",
    "0.5",
    r"\sqrt{8}",
    r"2\sqrt{2}",
    "(1,2)",
    r"\{1,2\}",
    "[0,1)",
    r"\pi",
    "x^2-1",
]


def passes(text: str, answer: str, grader: str) -> bool:
    verdict = grade(text, answer, grader).verdict
    assert verdict in {Verdict.PASS, Verdict.FAIL}, verdict
    return verdict is Verdict.PASS


def test_every_grader_of_the_contract_exists() -> None:
    assert set(GRADERS) == set(GraderName)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("27.0", "27"),
        ("27.", "27"),
        ("1,234", "1234"),
        ("$1{,}234$", "1234"),
        (r"1\,234", "1234"),
        ("1/2", "0.5"),
        (r"\frac{1}{2}", ".5"),
        (r"\dfrac12", "0.5"),
        ("1 1/2", "1.5"),
        (r"3\frac{1}{2}", "3.5"),
        (r"-\frac{1}{3}", r"\frac{-1}{3}"),
        ("−5", "-5"),
        ("$18", "18"),
        (r"\$1,800.50", "1800.5"),
        ("€7", "7"),
        ("50%", r"50\%"),
        ("50%", "0.5"),
        ("3,5", "3.5"),
        ("500 cm", "5 m"),
        ("so 50 percent of it", "0.5"),
        ("1.5e3", "1500"),
        (r"2.5 \times 10^{-3}", "0.0025"),
        ("10^6", "1,000,000"),
        ("٤٢", "42"),
        ("42 apples", "42"),
        (r"42\text{ cm}^2", "42"),
        ("x = 42", "42"),
        ("0", "-0"),
        ("She has 3 + 4 = 7 apples, so 7", "7"),
        ("We get 20 - 6 = 14 dollars.\n#### 14", "14"),
        ("The answer is 14 because 7 + 7 makes it.", "14"),
        ("The answer is 7 + 7 = 14.", "14"),
        (r"First 3, then \boxed{14 \text{ dollars}}", "14"),
        ("It costs $14. In all 20 - 6 of them", "6"),
        ("In all:\n- 14 of them", "14"),
    ],
)
def test_equal_numbers_pass(text: str, answer: str) -> None:
    assert passes(text, answer, "numeric")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("27.5", "27"),
        ("-5", "5"),
        ("0.333", "1/3"),
        ("5%", "0.5"),
        ("123456789.0", "123456790"),
        ("5 cm", "5 m"),
        ("9^9^9^9", "9"),
        ("so it is 9^9^9^9", "9"),
        (r"\boxed{9^{9^{9}}}", "9"),
        ("2^99999999", "2"),
        ("1e999999999", "1"),
        (r"\boxed{3, 5}", "3"),
        ("The answer is 3 or 5", "3"),
        ("5π", "5"),
        ("2\\pi", "2"),
        (r"5\sqrt{2}", "5"),
        ("1/0", "1"),
        ("no idea", "1"),
        (r"14 and \boxed{x}", "14"),
        ("9" * 5000, "9"),
    ],
)
def test_other_numbers_fail(text: str, answer: str) -> None:
    assert not passes(text, answer, "numeric")


@pytest.mark.parametrize(
    "letter_first", ["(B)", "B.", "B", "B) 12 cm", r"\boxed{B}", r"\boxed{\text{(B)}}", "**B**", "b"]
)
@pytest.mark.parametrize("answer", ["B", "(B)", "B. Paris", r"\boxed{B}", "b"])
def test_a_letter_is_read_in_all_its_forms(letter_first: str, answer: str) -> None:
    assert passes(letter_first, answer, "choice")
    assert not passes(letter_first, "C", "choice")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is B", "B"),
        ("The answer is (B) because A is wrong.", "B"),
        ("The answer is A because the others are not.", "A"),
        ("The answer: D, it doesn't make sense for it to be A or B", "D"),
        ("D. it can't be A or B", "D"),
        ("It's not A, therefore I think it's B", "B"),
        ("Answer: option C", "C"),
        ("C\nbecause of D", "C"),
        ("The answer is B or C", None),
        ("A dog has four legs, I think", None),
        ("no letter here", None),
    ],
)
def test_a_choice_is_found_in_prose(text: str, letter: str | None) -> None:
    assert grade(text, "B", "choice").extracted == letter
    assert letter is None or passes(text, letter, "choice")


@pytest.mark.parametrize(
    ("text", "answer", "is_right"),
    [
        ("Paris", "Paris", True),
        ("  Paris\n", "Paris", True),
        ("The answer is **Paris**.", "Paris", True),
        (r"\boxed{\text{New  York}}", "New York", True),
        ("Cafe\u0301", "Café", True),
        ("paris", "Paris", False),
        ("Paris is nice", "Paris", False),
    ],
)
def test_exact_compares_words(text: str, answer: str, is_right: bool) -> None:
    assert passes(text, answer, "exact") is is_right


@pytest.mark.parametrize(
    ("text", "answer", "is_right"),
    [
        (r"\boxed{\frac{14}{3}}", "$\\frac{14}{3}$", True),
        (r"so $x = \boxed{2-2p}$", "$2-2p$", True),
        (r"\boxed{\tan^2(y)+1}", r"\sec^2(y)", True),
        (r"\boxed{2,1}", "1, 2", True),
        (r"$(1,\frac{9}{2})$", "(1, 4.5)", True),
        ("The final answer is $3\\sqrt{13}$.", r"\sqrt{117}", True),
        (r"2.314814814815 \times 10^{-3}", r"\frac{1}{432}", True),
        ("1,234", "1234", True),
        ("27.0", "27", True),
        ("The answer is all real numbers.", "All real numbers", True),
        ("3 1/2", "31/2", False),
        ("28", "27", False),
        (r"\boxed{(2,1)}", "(1,2)", False),
        (r"\boxed{[0,1]}", "[0,1)", False),
        (r"\boxed{x+2}", "x+1", False),
        (r"\frac{1}{3 \cdot 2^{2006}}", r"\frac{2^{2005}+1}{3 \cdot 2^{2006}}", False),
        ("1e-9", "2e-9", False),
        ("I do not know.", "5", False),
    ],
)
def test_math_compares_values(text: str, answer: str, is_right: bool) -> None:
    assert passes(text, answer, "math") is is_right


@given(NUMBERS)
def test_a_number_equals_itself_in_every_wrapping(number: str) -> None:
    for text in (number, f"${number}$", f"\\boxed{{{number}}}", f"#### {number}", f"The answer is {number}."):
        assert passes(text, number, "numeric"), text
        assert passes(text, number, "math"), text


@given(NUMBERS, NUMBERS)
def test_numeric_is_symmetric_and_agrees_with_exact_arithmetic(a: str, b: str) -> None:
    left, right = read(a), read(b)
    assert left is not None
    assert right is not None
    tolerance = 0 if left.is_exact and right.is_exact else Fraction(1e-6)
    is_close = abs(left.value - right.value) <= tolerance * max(abs(left.value), abs(right.value))
    assert passes(a, b, "numeric") == passes(b, a, "numeric") == is_close


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FORMULAS), st.sampled_from(FORMULAS))
def test_math_is_symmetric_on_formulas(a: str, b: str) -> None:
    assert passes(a, b, "math") == passes(b, a, "math")
    assert passes(a, a, "math")


@given(st.text(max_size=80), st.text(max_size=20), st.sampled_from(["exact", "numeric", "choice"]))
def test_no_content_raises_and_grading_again_agrees(text: str, answer: str, grader: str) -> None:
    first, second = grade(text, answer, grader), grade(text, answer, grader)
    assert (first.verdict, first.extracted, first.detail) == (second.verdict, second.extracted, second.detail)
    assert first.seconds >= 0
    if not text.strip() and first.verdict is not Verdict.GRADER_ERROR:
        assert first.verdict is Verdict.FAIL


@pytest.mark.parametrize("grader", list(GraderName))
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("5\0", "NUL"),
        ("\ud800 5", "surrogate"),
    ],
)
def test_unreadable_answers_fail_with_a_reason(text: str, reason: str, grader: GraderName) -> None:
    answer = "B" if grader is GraderName.CHOICE else "5"
    result = grade(text, answer, grader)
    assert result.verdict is Verdict.FAIL
    assert reason in (result.detail or "")


@pytest.mark.parametrize("grader", TEXT_GRADERS)
@pytest.mark.parametrize("text", [r"\left(" * 10_000, "(" * 20_000, "x" * 5_000_000, "1 " * 2_500_000, "$" * 100_000])
def test_huge_and_deep_answers_are_refused_quickly(text: str, grader: GraderName) -> None:
    start = time.perf_counter()
    result = grade(text, "B" if grader is GraderName.CHOICE else "5", grader)
    assert result.verdict is Verdict.FAIL
    assert len(result.extracted or "") <= MAX_EXTRACTED
    assert time.perf_counter() - start < 5.0


def test_only_the_end_of_a_long_answer_is_judged() -> None:
    assert passes("5 " + "so " * MAX_CHARS + r"\boxed{7}", "7", "numeric")
    assert not passes(r"\boxed{7}" + " so" * MAX_CHARS, "7", "numeric")


@pytest.mark.parametrize(
    ("answer", "grader"),
    [
        ("", "exact"),
        ("no number", "numeric"),
        ("3, 5", "numeric"),
        ("42", "choice"),
        ("5\0", "math"),
        ("x" * 30_000, "exact"),
    ],
)
def test_a_reference_that_cannot_be_judged_gives_no_verdict(answer: str, grader: str) -> None:
    result = grade("5", answer, grader)
    assert result.verdict is Verdict.GRADER_ERROR
    assert "reference answer" in (result.detail or "")


def test_a_broken_grader_gives_no_verdict() -> None:
    def broken(text: str, answer: str, policy: object) -> None:
        raise RecursionError("too deep")

    result = grade("5", "5", "exact", graders={GraderName.EXACT: broken})  # type: ignore[dict-item]
    assert (result.verdict, result.detail) == (Verdict.GRADER_ERROR, "RecursionError: too deep")


def test_an_unknown_grader_is_a_callers_mistake() -> None:
    with pytest.raises(ValueError, match="telepathy"):
        grade("5", "5", "telepathy")


def test_threads_and_the_event_loop_see_the_verdicts_of_the_main_thread() -> None:
    pairs = [(a, b) for a in FORMULAS for b in FORMULAS[:4]]
    expected = [grade(a, b, "math").verdict for a, b in pairs]
    in_thread: list[Verdict] = []
    thread = threading.Thread(target=lambda: in_thread.extend(grade(a, b, "math").verdict for a, b in pairs))
    thread.start()
    thread.join()

    async def endpoint() -> list[Grade]:
        return [grade(a, b, "math") for a, b in pairs]

    assert Verdict.PASS in expected
    assert in_thread == expected
    assert [result.verdict for result in asyncio.run(endpoint())] == expected
