"""Text with LaTeX as HTML: MathML where it can be made, the text itself where not, and nothing that a browser runs."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.dashboard.formulas import ATTRIBUTES, ELEMENTS, extraction, mathml, with_formulas

HOSTILE = [
    "<script>alert(1)</script>",
    r"$\text{<script>alert(1)</script>}$",
    r"$\text{&lt;script&gt;alert(1)&lt;/script&gt;}$",
    r"$\href{javascript:alert(1)}{x}$",
    r"$\style{background:url(//evil)}{x}$",
    r"\(\class{x\" onload=\"alert(1)}{y}\)",
    '$\\mathrm{"><img src=x onerror=alert(1)>}$',
    "$$<img src=x onerror=alert(1)>$$",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "\\[ \\color{red;background:url(x)}{y} \\]",
]


class Reader(HTMLParser):
    """The elements, attributes and text of a piece of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed("".join(map(str, text)))  # a Markup would escape what is added to it
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_a_browser_runs_comes_out(text: str) -> None:
    made = Reader(with_formulas(text, (0, 3)))
    assert made.tags <= ELEMENTS | {"mark"}
    assert made.attributes <= ATTRIBUTES


PARTS = [
    "$",
    "$$",
    "\\(",
    "\\)",
    "\\[",
    "\\]",
    "\\frac",
    "{",
    "}",
    "<b>",
    "&",
    "&lt;",
    "x",
    "^",
    "_",
    " ",
    "\\text",
    '"',
    "2",
    "\\href",
]


@given(
    st.text(max_size=60) | st.lists(st.sampled_from(PARTS), max_size=16).map("".join),
    st.integers(0, 20),
    st.integers(0, 20),
)
@example("$\\sqrt$", 0, 1)
def test_any_text_is_safe_and_plain_text_is_kept(text: str, start: int, length: int) -> None:
    made = Reader(with_formulas(text, (start, start + length)))
    assert made.tags <= ELEMENTS | {"mark"}
    assert made.attributes <= ATTRIBUTES
    if "math" not in made.tags:
        assert made.text == text


@pytest.mark.parametrize(
    ("text", "n_formulas"),
    [
        ("What is $\\frac{1}{2} + x^2$?", 1),
        ("\\[ a \\] and \\( b \\) and $$c$$", 3),
        ("It costs $5 and then $6.", 0),
        ("From $5 to $10, and \\$x\\$", 0),
        ("$x^$ is broken", 0),
        ("$" + "x" * 2000 + "$", 0),
        ("$\\newcommand{\\a}{\\b\\b}\\a$", 0),
        ("$" + "{" * 700 + "}" * 700 + "$", 1),
    ],
)
def test_formulas_are_told_from_text(text: str, n_formulas: int) -> None:
    made = with_formulas(text)
    assert made.count("<math") == n_formulas
    if not n_formulas:
        assert Reader(made).text == text


def test_a_formula_is_mathml() -> None:
    assert mathml("\\frac{1}{2}") == (
        '<math display="inline"><mrow><mfrac><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow></mfrac></mrow></math>'
    )
    assert "(" in str(mathml("(a)"))


def test_what_was_judged_is_marked() -> None:
    text = "I think 5, no: the answer is 56."
    assert with_formulas(text, extraction(text, "56")) == "I think 5, no: the answer is <mark>56</mark>."
    formula = "so $\\boxed{56}$."
    made = with_formulas(formula, extraction(formula, "56"))
    assert re.search(r"<mark><math.*</math></mark>\.$", made)
    assert extraction("five", "5") is None
    assert extraction("five", "") is None
