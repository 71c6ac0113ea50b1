"""The query language: every text parses or is refused with a place, and what was parsed prints and parses the same."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.flow.estimates.query import BadQuery, parse
from app.flow.estimates.terms import (
    CHOICES,
    NUMBERS,
    STATES,
    WORDS,
    Between,
    Compared,
    Query,
    Sort,
    Term,
    Words,
)

TEXT = st.text(min_size=1, max_size=20).filter(lambda text: "\x00" not in text)
DECIMAL = st.floats(-1e18, 1e18).map(lambda number: number + 0.0)


def words() -> st.SearchStrategy[Words]:
    def of(name: str) -> st.SearchStrategy[Words]:
        values = st.sampled_from(list(map(str, CHOICES[name]))) if name in CHOICES else TEXT
        lists = st.lists(values, min_size=1, max_size=3, unique=True).map(tuple)
        return st.builds(Words, st.just(name), lists, st.booleans())

    return st.sampled_from(sorted(WORDS)).flatmap(of)


def numbers() -> st.SearchStrategy[Term]:
    name = st.sampled_from(sorted(NUMBERS))
    ends = st.tuples(DECIMAL, DECIMAL).map(sorted)
    compared = st.builds(Compared, name, st.sampled_from(["<", "<=", ">", ">=", "="]), DECIMAL, st.booleans())
    return compared | st.builds(lambda n, e, is_negated: Between(n, *e, is_negated), name, ends, st.booleans())


QUERIES = st.builds(
    Query,
    st.lists(words() | numbers(), max_size=4, unique=True).map(tuple),
    st.builds(Sort, st.sampled_from(sorted(NUMBERS)), st.booleans()),
)


@given(QUERIES)
def test_what_is_printed_parses_to_the_same(query: Query) -> None:
    assert parse(str(query)) == query


@given(st.text(max_size=60) | st.text('-:<>=".,\\ \t\nptagsort01eis', max_size=60))
@example('text:"a')
@example("-")
@example("sort:")
@example("p:..")
@example("tag:a,")
@example('tag:"a"b')
def test_any_text_is_read_or_refused_with_its_place(text: str) -> None:
    query, error = read(text)
    if error is None:
        assert parse(str(query)) == query
    else:
        assert error.code == "bad_query"
        assert 0 <= error.members["position"] <= len(text)
        assert error.members["length"] >= 1
        assert f"character {error.members['position'] + 1}" in error.detail


def read(text: str) -> tuple[Query, BadQuery | None]:
    try:
        return parse(text), None
    except BadQuery as error:
        return Query(), error


def test_each_kind_of_term() -> None:
    query = parse(
        'tag:algebra,"number theory" -source:gsm8k p<0.4 attempts:8 newest:.2..0.8 "train leaves" x sort:-weight'
    )
    assert query.terms == (
        Words("tag", ("algebra", "number theory")),
        Words("source", ("gsm8k",), is_negated=True),
        Compared("p", "<", 0.4),
        Compared("attempts", "=", 8.0),
        Between("newest", 0.2, 0.8),
        Words("text", ("train leaves",)),
        Words("text", ("x",)),
    )
    assert query.sort == Sort("weight", is_descending=True)
    assert str(query) == (
        'tag:algebra,"number theory" -source:gsm8k p<0.4 attempts=8 newest:0.2..0.8 text:"train leaves" text:x '
        "sort:-weight"
    )
    assert query.without(Compared("p", "<", 0.4)).sorted_by("p", is_descending=False) == parse(
        'tag:algebra,"number theory" -source:gsm8k attempts=8 newest:.2..0.8 "train leaves" x sort:p'
    )


@pytest.mark.parametrize(
    ("text", "position", "length", "says"),
    [
        ("p<0.4 tagg:x", 6, 4, "did you mean tag?"),
        ("is:redy", 3, 4, "did you mean ready?"),
        ("verdict:slow", 8, 4, "pass, fail, truncated, timeout"),
        ("p<four", 2, 4, "'four' is no number"),
        ("p<", 2, 1, "a number is missing"),
        ("p:0.8..0.2", 2, 8, "ends below its beginning"),
        ("  sort:tag", 7, 3, "sorted by a number"),
        ("sort:p sort:weight", 7, 11, "sort is given twice"),
        ('text:"train leaves', 5, 13, "not closed"),
        ("tag<3", 3, 1, "tag takes a colon"),
        ("train,leaves", 5, 1, "a space is missing"),
        ("-sort:p", 0, 6, "an order is written sort:FIELD"),
        ("p<1e99", 2, 4, "beyond every number"),
        ("x" * 1001, 1000, 1, "at most 1000 characters"),
        ("x\x00", 1, 1, "NUL"),
        (" ".join(f"p<{i}" for i in range(33)), 150, 4, "at most 32 terms"),
    ],
)
def test_an_error_names_the_place_and_what_is_allowed(text: str, position: int, length: int, says: str) -> None:
    with pytest.raises(BadQuery) as caught:
        parse(text)
    members = caught.value.members
    assert (members["position"], members["length"], says in caught.value.detail) == (position, length, True)
    if "mean" in says:
        assert says.removeprefix("did you mean ").removesuffix("?") in members["allowed"]


def test_the_docs_name_every_field_and_state() -> None:
    page = (Path(__file__).parents[3] / "docs" / "concepts.md").read_text()
    section = page.partition("## Queries")[2].partition("\n## ")[0]
    for name in (*WORDS, *NUMBERS, *STATES):
        assert f"`{name}`" in section, name
