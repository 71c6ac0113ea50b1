"""Finding the final answer: boxes first, then markers, and nothing where nothing is marked."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.grading.extract import boxed_answers, find_answer, strip_math


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1} is wrong, rather \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed {7}", "7"),
        (r"\fbox{7}", "7"),
        (r"\boxed{$7$}", "7"),
        (r"$\boxed{1}$ and $\boxed{2}$", "1, 2"),
        (r"$$\boxed{(98, 2)} \quad \text{and} \quad \boxed{(99, 503)}$$", "(98, 2), (99, 503)"),
        (r"\boxed{1} papers and \boxed{2} bins", "1, 2"),
        (r"\(\boxed{1}\) and \(\boxed{-2}\).", "1, -2"),
        (r"\boxed{5}, \boxed{5}", "5"),
        (r"I will put it in \boxed{}. \boxed{3}", "3"),
        (r"\boxed{3} is how to write \boxed{}", "3"),
        (r"\boxed{3} and then \boxed{4", "3"),
        (r"\boxed{unclosed \boxed{4}", "4"),
        ("18 - 2 = 16\n#### 16", "16"),
        ("#### Step 1\nWe add.\nAnswer: 5", "5"),
        ("Answer: 5", "5"),
        ("**Answer:** 5", "5"),
        ("**Answer**: 5", "5"),
        ("Answer:\n\n  12", "12"),
        ("The final answer is 7.", "7"),
        ("the answer to this question is **Paris**.", "Paris"),
        ("Final Answer: The final answer is $3.5$. I hope it is correct. Thank you!", "3.5"),
        ("答案：5", "5"),
        ("The answer is 1. No, the answer is 2.", "2"),
        ("it makes 5", None),
        ("", None),
    ],
)
def test_the_marked_answer_is_found(text: str, found: str | None) -> None:
    assert find_answer(text) == found


@pytest.mark.parametrize("text", ["$x$", "$$x$$", r"\(x\)", r"\[x\]", " x "])
def test_enclosing_math_delimiters_come_off(text: str) -> None:
    assert strip_math(text) == "x"


def test_delimiters_of_two_formulas_stay() -> None:
    assert strip_math("$x$ and $y$") == "$x$ and $y$"


@pytest.mark.parametrize(
    "text",
    [r"\boxed{" * 3000, "{" * 20_000, r"\boxed{" + "{" * 19_000, r"\boxed{}" * 2500, "answer " * 3000, "####\n" * 4000],
)
def test_texts_made_of_markers_are_read_quickly(text: str) -> None:
    start = time.perf_counter()
    find_answer(text)
    assert time.perf_counter() - start < 1.0


@given(st.text(alphabet=r"\{}boxed$ 1a", max_size=60))
def test_any_mess_is_read_without_an_error(text: str) -> None:
    assert all(content.strip() for content in boxed_answers(text))


@given(st.integers(), st.text(max_size=50).filter(lambda s: "boxed" not in s and "fbox" not in s))
def test_a_box_is_found_behind_any_text(number: int, before: str) -> None:
    assert find_answer(f"{before}\n\\boxed{{{number}}}") == str(number)
