"""Graded synthetic reasoning, made in code: strings of digits to be transformed step by step. Pure.

The difficulty of a problem is its length. Each answer token follows from one or two earlier tokens, at places that do
not depend on the length, which is what a small model learns in minutes: prompts are filled up to one width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

WIDTH = 10  # digits at most
CHARACTERS = "0123456789_:;srxcpmt"
END = CHARACTERS.index(";")
_IDS = {character: number for number, character in enumerate(CHARACTERS)}


def _sum(digits: Sequence[int]) -> list[int]:
    return list(accumulate(digits, lambda total, digit: (total + digit) % 10))


def _maximum(digits: Sequence[int]) -> list[int]:
    return list(accumulate(digits, max))


def _differences(digits: Sequence[int]) -> list[int]:
    return [abs(x - y) for x, y in zip(digits, [*digits[1:], 0], strict=True)]


SKILLS: dict[str, Callable[[Sequence[int]], list[int]]] = {
    "s": _sum,  # running sum modulo 10
    "r": lambda digits: list(digits[::-1]),  # reversed
    "x": sorted,  # in order
    "c": _maximum,  # running maximum
    "p": _differences,  # to the next digit
    "m": lambda digits: [(3 * digit + 7) % 10 for digit in digits],  # digit by digit
    "t": list,  # copied
}
TRAINED = "srxcp"  # skills that the pool is made of
KEPT = "mt"  # skills that the student has at the start and the pool never asks for: what it may forget


@dataclass(frozen=True, slots=True)
class Problem:
    """A prompt, and the only right answer to it."""

    skill: str
    digits: tuple[int, ...]

    @property
    def length(self) -> int:
        """Digits of the prompt, and of the answer."""
        return len(self.digits)

    @property
    def prompt(self) -> str:
        """Filled up on the side that keeps the places to look at."""
        digits = "".join(map(str, self.digits))
        filled = digits.rjust(WIDTH, "_") if self.skill == "r" else digits.ljust(WIDTH, "_")
        return f"{self.skill}{filled}:"

    @property
    def answer(self) -> str:
        """Without the end token."""
        return "".join(map(str, SKILLS[self.skill](self.digits)))


def make_problem(skill: str, length: int, rng: np.random.Generator) -> Problem:
    """A random problem of a skill and a length."""
    return Problem(skill, tuple(rng.integers(0, 10, length).tolist()))


def encode(text: str) -> list[int]:
    """One token a character. Raises KeyError on a character that no problem has."""
    return [_IDS[character] for character in text]


def decode(ids: Sequence[int]) -> str:
    """The opposite."""
    return "".join(CHARACTERS[number] for number in ids)


def is_right(problem: Problem, ids: Sequence[int]) -> bool:
    """Whether an answer, end token included, is the right one to the letter."""
    return list(ids) == [*encode(problem.answer), END]
