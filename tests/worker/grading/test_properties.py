"""Laws that verdicts keep: an answer equals itself, order of sides does not count, grading again changes nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paced.wire.grading import GradingPolicy, Verdict
from worker.grading import grade

INTEGERS = st.integers(-10_000, 10_000).map(str)
NUMBERS = st.one_of(
    INTEGERS,
    st.decimals(-1_000, 1_000, places=3).map(str),
    st.tuples(st.integers(-99, 99), st.integers(2, 99)).map(lambda t: rf"\frac{{{t[0]}}}{{{t[1]}}}"),
    st.integers(2, 50).map(lambda n: rf"\sqrt{{{n}}}"),
    st.integers(0, 200).map(lambda n: rf"{n}\%"),
    st.tuples(st.integers(1, 99), st.sampled_from(["cm", "m", "kg", "apples"])).map(
        lambda t: rf"{t[0]}\text{{ {t[1]}}}"
    ),
)
FORMULAS = st.sampled_from(["x+1", "1+x", "x^2-1", "(x-1)(x+1)", r"2\sin x\cos x", r"\sin 2x", "a/b", r"\frac{a}{b}"])
ELEMENTS = st.lists(INTEGERS, min_size=2, max_size=4)
LISTS = st.one_of(
    ELEMENTS.map(", ".join),
    ELEMENTS.map(lambda e: f"({', '.join(e)})"),
    ELEMENTS.map(lambda e: rf"\{{{', '.join(e)}\}}"),
    st.tuples(INTEGERS, INTEGERS, st.sampled_from("[("), st.sampled_from(")]")).map(
        lambda t: f"{t[2]}{t[0]}, {t[1]}{t[3]}"
    ),
)
NAMED = st.tuples(st.sampled_from("xyk"), INTEGERS).map(" = ".join)
ANSWERS = st.one_of(NUMBERS, FORMULAS, LISTS, NAMED, st.sampled_from(["A", "no solution", r"\infty", r"\pm 3"]))
POLICIES = st.builds(
    GradingPolicy,
    percent=st.sampled_from(["number", "fraction", "either"]),
    order=st.sampled_from(["any", "kept"]),
    brackets=st.sampled_from(["kept", "ignored"]),
    degrees=st.sampled_from(["number", "radians"]),
    comma=st.sampled_from(["either", "list"]),
)


@settings(max_examples=150, deadline=None)
@given(ANSWERS, ANSWERS, POLICIES)
def test_order_of_sides_does_not_count(a: str, b: str, policy: GradingPolicy) -> None:
    assert grade(a, b, "math", policy).verdict == grade(b, a, "math", policy).verdict


@settings(max_examples=150, deadline=None)
@given(ANSWERS, POLICIES, st.sampled_from(["ignored", "required"]))
def test_an_answer_equals_itself(answer: str, policy: GradingPolicy, units: str) -> None:
    policy = policy.model_copy(update={"units": units})
    for text in (answer, rf"\boxed{{{answer}}}", f"The answer is ${answer}$."):
        assert grade(text, answer, "math", policy).verdict is Verdict.PASS, text


@settings(max_examples=100, deadline=None)
@given(ANSWERS, ANSWERS, POLICIES)
def test_grading_again_changes_nothing(text: str, answer: str, policy: GradingPolicy) -> None:
    first, second = (grade(text, answer, "math", policy) for _ in range(2))
    assert (first.verdict, first.extracted, first.detail) == (second.verdict, second.extracted, second.detail)


@settings(max_examples=60, deadline=None)
@given(ELEMENTS, st.randoms(use_true_random=False))
def test_bare_lists_and_sets_have_no_order_and_tuples_have(elements: list[str], chance: object) -> None:
    turned = elements[::-1]
    assert grade(", ".join(turned), ", ".join(elements), "math").verdict is Verdict.PASS
    assert grade(rf"\{{{', '.join(turned)}\}}", rf"\{{{', '.join(elements)}\}}", "math").verdict is Verdict.PASS
    as_tuples = grade(f"({', '.join(turned)})", f"({', '.join(elements)})", "math").verdict
    assert (as_tuples is Verdict.PASS) == (turned == elements)


@settings(max_examples=80, deadline=None)
@given(st.integers(-(10**40), 10**40), st.integers(-5, 5))
def test_integers_are_compared_to_the_last_digit(n: int, step: int) -> None:
    assert (grade(str(n + step), str(n), "math").verdict is Verdict.PASS) == (step == 0)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("x = 5", "y = 5"),
        ("x = 1, y = 2", "x = 2, y = 1"),
        ("2x", "2"),
        ("2m", "2"),
        ("|x|", "x"),
        (r"\sqrt{x^2}", "x"),
        ("1,234", "1.234"),
        ("3, 5", "3.5"),
        (r"\boxed{A+B}", "A"),
        ("The area is A = 5", "A"),
        ("D", "C Cecile"),
        (r"\boxed{x \ge 2}", "x > 2"),
        ("1, 2", "1, 2, 3"),
        (r"\pm 2", "2"),
        (r"\pm \pm \pm 2", "2"),
        ("12 1/2", "121/2"),
        ("9:34", r"08:34 \text{ p.m.}"),
        ("1:3", "3:1"),
        (r"\begin{pmatrix}1\\3\end{pmatrix}", "(1,2)"),
        (r"(-\infty,0)\cup(2,\infty)", r"(1,\infty)\cup(-\infty,0)"),
        ("1+2i", "1-2i"),
        ("10^{100}", "10^{100}+1"),
        ("0.0000001", "0"),
        ("None", "no solution"),
        ("A", "a"),
        ("5 or 6", "5"),
        ("101_2", "101"),
        ("1 / 2007!", "1 / 2004!"),
        ("4:70 a.m.", "4:40 a.m."),
        ("x^2-4x+20=0", "x^2+4x+20=0"),
        (r"\frac{1}{35}\begin{bmatrix}1&5\\5&25\end{bmatrix}", r"\frac{1}{35}\begin{bmatrix}1&5\\5&24\end{bmatrix}"),
        (r"20 \mathrm{ft} x 32 \mathrm{ft}", r"20 \mathrm{ft} x 35 \mathrm{ft}"),
        (r"0.5 \mathrm{yd}^{8}", r"0.5 \mathrm{yd}^{2}"),
        ("The sum is 2 and the product is 3", "The sum is 5 and the product is 3"),
        ("101", "101_2"),
        ("1, 2, 3, ...", "1, 2, 3"),
        (r"0.\overline{3}", "0.3"),
    ],
)
def test_near_misses_fail(text: str, answer: str) -> None:
    assert grade(text, answer, "math").verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("5", "x = 5"),
        ("y = 2x + 3", "f(x) = 2x + 3"),
        ("2x - y + 3 = 0", "y = 2x + 3"),
        ("2, -2", r"\pm 2"),
        (r"1\frac12", "1.5"),
        ("1 1/2", "3/2"),
        ("5 dollars", r"\$5"),
        ("500 cm", "5 m"),
        ("20:34", r"08:34 \text{ p.m.}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1, 2)"),
        (r"\begin{bmatrix}0.5&1\end{bmatrix}", r"\begin{pmatrix}\frac12&1\end{pmatrix}"),
        (r"[2, \infty)", r"x \ge 2"),
        (r"x \in (0, 1)", "(0, 1)"),
        (r"(1, \infty) \cup (-\infty, 0)", r"(-\infty, 0) \cup (1, \infty)"),
        ("5 and 6", "6, 5"),
        ("(B)", "B"),
        (r"\boxed{B. 5 cm}", "B"),
        ("C", "(C) Paris"),
        (r"R_{\mathrm{s}} = 2 k_{\mathrm{B}}", "2 k_B"),
        (r"\\frac{1}{2}", "0.5"),
        ("$1$, $2$", "1, 2"),
        (r"\$12.50", "12.5"),
        (r"0.1\overline{6}", r"\frac{1}{6}"),
        (r"\mathbb{R}", r"(-\infty, \infty)"),
        (r"1, 2, 3, \dots", "1, 2, 3, ..."),
    ],
)
def test_other_spellings_pass(text: str, answer: str) -> None:
    assert grade(text, answer, "math").verdict is Verdict.PASS
