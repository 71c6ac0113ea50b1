"""Stage 1: texts of problems by id, for trainers whose batches carry ids only."""

from typing import Annotated

from pydantic import Field

from .base import ProblemId, Prompt, Request, Resource, example
from .grading import Grader


class ProblemText(Resource):
    """What a trainer needs of a problem; `etag` changes when any of it does."""

    problem_id: int
    etag: str
    prompt: Prompt
    answer: str
    grader: Grader
    solution: str | None
    tags: list[str]


class ProblemTextsQuery(Request):
    """Which problems' texts to return; those whose text still has the ETag given are left out."""

    model_config = example(problem_ids=[41, 7], etags={"7": "2f0b9c1e5a7d4c36"})

    problem_ids: Annotated[list[ProblemId], Field(max_length=65_536)]
    etags: Annotated[dict[ProblemId, Annotated[str, Field(max_length=64)]], Field(max_length=65_536)] = {}


class ProblemTexts(Resource):
    """Texts that the asker does not have, in the order asked for."""

    model_config = example(
        texts=[
            {
                "problem_id": 41,
                "etag": "9c1e5a7d4c362f0b",
                "prompt": "Compute 7 * 8. Reply with the number only.",
                "answer": "56",
                "grader": "numeric",
                "solution": "7 * 8 = 56",
                "tags": ["product"],
            }
        ]
    )

    texts: list[ProblemText]
