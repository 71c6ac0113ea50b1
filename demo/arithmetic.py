"""Arithmetic problems of graded difficulty: a small model is right on some kinds and hopeless on others. Pure."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PROMPT = "Compute {expression}. Reply with the number only."


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem: how to draw its operands, and its operation."""

    name: str
    operation: str
    operands: Callable[[random.Random], tuple[int, int]]


def _between(low: int, high: int) -> Callable[[random.Random], tuple[int, int]]:
    return lambda rng: (rng.randint(low, high), rng.randint(low, high))


def _ordered(low: int, high: int) -> Callable[[random.Random], tuple[int, int]]:
    def draw(rng: random.Random) -> tuple[int, int]:
        a, b = sorted((rng.randint(low, high), rng.randint(low, high)), reverse=True)
        return a, b

    return draw


# from easy to hard for a 135M model
KINDS = (
    Kind("product of digits", "*", _between(2, 9)),
    Kind("sum of digits", "+", _between(1, 9)),
    Kind("difference of digits", "-", _ordered(1, 9)),
    Kind("sum, two digits", "+", _between(10, 99)),
    Kind("sum, mixed", "+", lambda rng: (rng.randint(100, 999), rng.randint(1, 99))),
    Kind("difference, two digits", "-", _ordered(10, 99)),
    Kind("sum, three digits", "+", _between(100, 999)),
)
# beside them, kinds that a 135M model cannot do
HOPELESS = (
    Kind("product, two digits", "*", _between(11, 99)),
    Kind("difference, three digits", "-", _ordered(100, 999)),
    Kind("sum, five digits", "+", _between(10_000, 99_999)),
)
GRADED = (*KINDS, *HOPELESS)
_SOLVE: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}


def generate(n_per_kind: int, seed: int = 0, kinds: Sequence[Kind] = KINDS) -> Iterator[dict[str, object]]:
    """Distinct problems, up to `n_per_kind` of each kind (there are only 64 products of digits)."""
    rng = random.Random(seed)  # noqa: S311 - problems, not secrets
    for kind in kinds:
        seen: set[tuple[int, int]] = set()
        for _ in range(200 * n_per_kind):
            if len(seen) == n_per_kind:
                break
            pair = kind.operands(rng)
            if pair not in seen:
                seen.add(pair)
                yield _row(kind, *pair)


def _row(kind: Kind, a: int, b: int) -> dict[str, object]:
    expression = f"{a} {kind.operation} {b}"
    answer = str(_SOLVE[kind.operation](a, b))
    return {"prompt": PROMPT.format(expression=expression), "answer": answer, "tags": [kind.name]}


def write(path: Path, n_per_kind: int, seed: int = 0, kinds: Sequence[Kind] = KINDS) -> Path:
    """Write the problems as JSONL, as a user's own file would be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row) for row in generate(n_per_kind, seed, kinds)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
