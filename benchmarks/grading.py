"""The grader pool against math-verify in a plain loop: answers per second on one mix, lost answers, late deadlines.

Both sides judge the same answers in the same order, of which one in a thousand hangs: a nested power. The loop runs in
the main thread and uses math-verify's own time-outs (SIGALRM), which get the pool's deadline. The pool gets all answers
at once. Start-up and the import of math-verify count for neither. With PACED_TEST_DATA set the answers are real ones:
solutions of GSM8K, answers of OlympiadBench and DeepScaleR in several spellings, pairs of other graders' test suites;
else they are made here.
"""

import asyncio
import json
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

from worker.grading import Grade, GraderPool

N_PROCESSES = 2
DEADLINE_S = 2.0
HANG_EVERY = 1_000
N_FLOOD = 10_000
SPELLINGS = (
    r"Hence the answer is $\boxed{ANSWER}$.",
    "Some steps, and then some more.\nThe final answer is $ANSWER$. I hope it is correct.",
    r"So \[ x = ANSWER \] and therefore \(\boxed{ANSWER}\).",
    "ANSWER",
)
OLYMPIAD = "olympiadbench_oe_to_maths_en.jsonl"


class Item(NamedTuple):
    """An answer's text and its reference."""

    text: str
    answer: str


HANGING = Item(r"\boxed{9^{9^{9^9}}}", "x+1")


def run(small: bool) -> dict[str, Any]:
    """Judge the mix on both sides, then flood the pool; `small` takes under a minute on two cores."""
    folder = os.environ.get("PACED_TEST_DATA")
    items = mix(Path(folder) if folder else None, 2_000 if small else 10_000)
    plain_s, plain_passed = in_a_loop(items)
    pool_s, grades = asyncio.run(in_the_pool(items, "math"))
    flood = [Item(f"It makes {i} in all.\n#### {i}", str(i - i % 2)) for i in range(N_FLOOD)]
    flood_s, flooded = asyncio.run(in_the_pool(flood, "numeric"))
    answered = [grade for grade in grades + flooded if grade.verdict != "infrastructure"]
    return {
        "settings": {
            "processes": N_PROCESSES,
            "deadline_s": DEADLINE_S,
            "data": "real" if folder else "synthetic",
            "n_answers": len(items),
            "n_hanging": items.count(HANGING),
            "n_flood": N_FLOOD,
        },
        "rows": [
            {"side": "plain", "time_s": plain_s, "n_pass": plain_passed},
            {"side": "pool", "time_s": pool_s, "verdicts": Counter(grade.verdict.value for grade in grades)},
            {"side": "pool, flooded", "time_s": flood_s, "verdicts": Counter(g.verdict.value for g in flooded)},
        ],
        "figures": {
            "answers_per_s_ratio": plain_s / pool_s,
            "answers_per_s": len(items) / pool_s,
            "plain_answers_per_s": len(items) / plain_s,
            "lost": len(items) + len(flood) - len(answered),
            "late_max_s": max(0.0, *(grade.seconds - DEADLINE_S for grade in grades + flooded)),
        },
    }


def in_a_loop(items: Sequence[Item]) -> tuple[float, int]:
    """Judge with math-verify alone, one after the other: wall seconds, and how many passed."""
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    timeout_s = int(DEADLINE_S)
    n_passed = 0
    started = time.perf_counter()
    for item in items:
        gold = parse(f"${item.answer}$", parsing_timeout=timeout_s)
        found = parse(item.text, parsing_timeout=timeout_s)
        n_passed += bool(verify(gold, found, timeout_seconds=timeout_s))
    return time.perf_counter() - started, n_passed


async def in_the_pool(items: Sequence[Item], grader: str) -> tuple[float, list[Grade]]:
    """Queue everything at once: wall seconds from the first to the last verdict, and the verdicts."""
    async with GraderPool(N_PROCESSES, deadline_s=DEADLINE_S) as pool:
        await pool.grade(r"\boxed{1+x}", "x+1", "math")  # the first formula imports half of SymPy
        started = time.perf_counter()
        grades = await asyncio.gather(*(pool.grade(item.text, item.answer, grader) for item in items))
        return time.perf_counter() - started, grades


def mix(folder: Path | None, n: int) -> list[Item]:
    """Return n answers from all sources in turn, shuffled by a fixed seed, every HANG_EVERY-th of which hangs."""
    chance = random.Random(7)
    sources = [_synthetic(chance)] if folder is None else _real(folder, chance)
    items = list(islice((next(source) for source in cycle(sources)), n))
    chance.shuffle(items)
    items[HANG_EVERY // 2 :: HANG_EVERY] = [HANGING] * len(items[HANG_EVERY // 2 :: HANG_EVERY])
    return items


def _real(folder: Path, chance: random.Random) -> list[Iterator[Item]]:
    solved = [
        (row["answer"], row["answer"].rpartition("####")[2].strip()) for row in _rows(folder / "gsm8k_test.jsonl")
    ]
    olympiad = [answer.strip("$ ") for row in _rows(folder / OLYMPIAD) for answer in row["final_answer"]]
    scaled = [row["reward_model"]["ground_truth"] for row in _rows(folder / "deepscaler_sub.jsonl")]
    pairs = [(row["pred"], row["gold"]) for row in _rows(folder / "grader_pairs" / "grader_pairs.jsonl")]
    return [
        _forever([Item(text, answer) for text, answer in solved], chance),
        _forever(_spelled([answer for answer in olympiad if answer], chance), chance),
        _forever(_spelled([answer for answer in scaled if answer], chance), chance),
        _forever([Item(text, answer.strip("$")) for text, answer in pairs if text], chance),
    ]


def _synthetic(chance: random.Random) -> Iterator[Item]:
    while True:
        a, b = chance.randint(1, 99), chance.randint(2, 99)
        right = chance.choice(
            [str(a * b), rf"\frac{{{a}}}{{{b}}}", rf"{a}\sqrt{{{b}}}", f"({a}, {b})", f"x^2+{a}x-{b}"]
        )
        found = right if chance.random() < 0.7 else right.replace(str(a), str(a + 1))
        yield from _spelled([right], chance, found)


def _spelled(answers: Sequence[str], chance: random.Random, found: str | None = None) -> list[Item]:
    """Write each answer, or `found` in its place, as students do."""
    items = []
    for answer in answers:
        spelled = (found or answer).replace(r"\frac", chance.choice([r"\frac", r"\dfrac"]))
        items.append(Item(chance.choice(SPELLINGS).replace("ANSWER", spelled), answer))
    return items


def _forever(items: list[Item], chance: random.Random) -> Iterator[Item]:
    return cycle(chance.sample(items, len(items)))


def _rows(path: Path) -> list[dict[str, Any]]:
    with path.open() as lines:
        return [json.loads(line) for line in lines]
