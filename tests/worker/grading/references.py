"""The reference solutions of real problem sets as answers to grade; docs/grading.md says what is held against what."""

import json
from pathlib import Path
from typing import NamedTuple

from app.flow.problems.reading.drafts import ProblemDraft
from app.flow.problems.reading.readers import read_problems


class Reference(NamedTuple):
    """A solution's text and the reference answer of its problem, from one line of a file."""

    where: str
    text: str
    answer: str


def gsm8k(path: Path) -> list[Reference]:
    """Solutions as they are; they mark their answer by ####."""
    return [Reference(_where(path, draft), draft.solution or "", draft.answer) for draft in _drafts(path)]


def svamp(path: Path) -> list[Reference]:
    """There are no solutions: the Equation, unevaluated and in a box."""
    texts = [f"So it is $\\boxed{{{row['Equation']}}}$." for row in _rows(path)]
    return _with_texts(path, texts)


def olympiadbench(path: Path) -> list[Reference]:
    """Solutions seldom mark their answer: the solution, then each final answer in a box of its own."""
    texts = []
    for row in _rows(path):
        boxes = " and ".join(f"$\\boxed{{{answer.strip('$ ')}}}$" for answer in row["final_answer"])
        texts.append(f"{row['solution'][0]}\n\nHence the answer is {boxes}.")
    return _with_texts(path, texts)


def every(folder: Path) -> list[Reference]:
    """All of them."""
    return [
        *gsm8k(folder / "gsm8k_train.jsonl"),
        *gsm8k(folder / "gsm8k_test.jsonl"),
        *svamp(folder / "svamp.jsonl"),
        *olympiadbench(folder / "olympiadbench_oe_to_maths_en.jsonl"),
    ]


def _with_texts(path: Path, texts: list[str]) -> list[Reference]:
    return [
        Reference(_where(path, draft), text, draft.answer) for text, draft in zip(texts, _drafts(path), strict=True)
    ]


def _drafts(path: Path) -> list[ProblemDraft]:
    """Every row of the file as the service would read it; a refused row is a defect of the reader."""
    drafts = list(read_problems(path, path.name))
    assert all(isinstance(draft, ProblemDraft) for draft in drafts)
    return [draft for draft in drafts if isinstance(draft, ProblemDraft)]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as lines:
        return [json.loads(line) for line in lines]


def _where(path: Path, draft: ProblemDraft) -> str:
    return f"{path.name}:{draft.line}"
