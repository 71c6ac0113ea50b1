import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.flow.problems.reading.fingerprint import PREFIXES, SUFFIXES, fingerprint

SPACES = "".join(char for char in map(chr, range(0x3001)) if char.isspace())
words = st.lists(st.text(st.characters(codec="utf-8", exclude_characters=SPACES), min_size=1), min_size=1)
spaces = st.text(st.sampled_from(SPACES), min_size=1, max_size=3)
plain = st.text(st.characters(codec="ascii", exclude_characters="\0"))
questions = st.sampled_from(
    ["Compute 2 + 2.", "What is $x^{2}$?", "If A = 3.5, find 2A.", "每个班级分多少本？", "f(−1) + ½", "How many eggs?"]
)


@given(words, st.data())
def test_white_space_between_words_does_not_count(parts, data):
    loose = "".join(part + data.draw(spaces) for part in parts)
    assert fingerprint(loose) == fingerprint(" ".join(parts))


@given(st.text())
def test_unicode_form_does_not_count(text):
    prints = {fingerprint(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")}
    assert prints == {fingerprint(text)}


@given(plain, plain)
def test_is_32_hexadecimal_digits_and_splits_what_differs(left, right):
    assert len(fingerprint(left)) == 32
    assert int(fingerprint(left), 16) >= 0
    is_same = "".join(left.split()) == "".join(right.split())
    assert is_same or fingerprint(left) != fingerprint(right)


@given(questions, st.sampled_from(PREFIXES), st.sampled_from(SUFFIXES))
def test_known_wrappers_do_not_count(question, prefix, suffix):
    assert fingerprint(f"{prefix}\n\n{question} {suffix} ") == fingerprint(question)


@pytest.mark.parametrize("wrapper", [*PREFIXES, *SUFFIXES])
def test_a_wrapper_alone_is_a_prompt_of_its_own(wrapper):
    assert fingerprint(wrapper) != fingerprint("")


@given(st.decimals(0, 1000, places=1), st.sampled_from("+-*/^=<>"), st.integers(1, 99))
def test_signs_operators_and_decimal_points_count(left, operator, right):
    text = f"Compute {left} {operator} {right}"
    assert fingerprint(text) != fingerprint(text.replace(operator, "", 1))
    assert fingerprint(text) != fingerprint(text.replace(".", "", 1))
    assert fingerprint(text) != fingerprint(f"Compute -{left} {operator} {right}")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("compute arccos 1", "compute arccos(-1)"),
        ("2.5", "25"),
        ("1 2/3", "12/3"),
        ("10 5", "105"),
        ("2⁵", "25"),
        ("x²", "x₂"),
        ("1½", "11/2"),
        ("a ≠ b", "a = b"),
        ("X + x", "x + x"),
    ],
)
def test_different_problems_differ(left, right):
    assert fingerprint(left) != fingerprint(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("2 + 2", "2+2"),
        ("5 − 3", "5 - 3"),
        ("x² + y²", "x^2 + y^2"),
        ("½ of 6", "1/2 of 6"),
        ("１２ ＋ ３", "12 + 3"),
        ("10\u00a05", "10 \n 5"),
        ("zero\u200bwidth", "zerowidth"),
    ],
)
def test_one_problem_written_twice_is_the_same(left, right):
    assert fingerprint(left) == fingerprint(right)


def test_a_chat_of_one_user_turn_is_its_text():
    system = {"role": "system", "content": "Reason step by step."}
    user = {"role": "user", "content": "Compute 2 + 2."}
    assert fingerprint([system, user]) == fingerprint([user]) == fingerprint("Compute 2+2.")


def test_earlier_turns_and_their_roles_count():
    def chat(*turns):
        return fingerprint([{"role": role, "content": content} for role, content in turns])

    last = ("user", "And doubled?")
    prints = {
        chat(last),
        chat(("user", "2 + 2?"), ("assistant", "4"), last),
        chat(("user", "2 + 3?"), ("assistant", "5"), last),
        chat(("user", "2 + 2?"), ("user", "4"), last),
        chat(("user", "2 + 2?4"), last),
    }
    assert len(prints) == 5
