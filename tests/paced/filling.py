"""What a process does with a file of texts that others use too; apart, so that a spawned process loads little."""

from pathlib import Path

from paced import wire
from paced.texts import Texts


def fill(file: Path, batch: wire.Batch, answer: wire.ProblemTexts) -> None:
    texts = Texts(file)
    for _ in range(20):
        texts.keep(batch.curriculum_id, wire.ProblemTextsQuery(problem_ids=batch.problem_id), answer)
        assert texts.filled(batch).problems is not None
    texts.close()
