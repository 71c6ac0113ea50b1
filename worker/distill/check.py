"""What `paced distill --check` does: every teacher proved fit for the student, and nothing trained."""

from pathlib import Path
from typing import Any

from worker.distill.config import DistillConfig
from worker.distill.errors import ConfigRefused
from worker.distill.model import load_tokenizer
from worker.distill.teachers.parity import parity, probes
from worker.distill.teachers.preflight import preflight
from worker.distill.teachers.served import ServedModel
from worker.distill.teachers.teacher import make_source


def check(config: DistillConfig, against: Path | None) -> list[dict[str, Any]]:
    """One row for each teacher: what it was found to be and, with a folder of the same weights, its parity.

    Raises ConfigRefused, ModelRefused and TeacherSilent.
    """
    tokenizer = load_tokenizer(config.student)
    rows: list[dict[str, Any]] = []
    for tag, at in config.by_tag.items():
        source, _ = make_source(at, config, tokenizer)
        row: dict[str, Any] = {"tag": tag, "teacher": at.at, "is_served": at.is_served}
        if isinstance(source, ServedModel):
            top_k = config.top_k_of(at)
            assert top_k is not None
            found = preflight(source, tokenizer, top_k)
            row |= {"model": found.model, "max_tokens": found.max_tokens, "n_listed": found.n_listed}
            if against is not None:
                row["parity"] = parity(source, against, config, probes(tokenizer), top_k).as_dict()
                source.close()
        rows.append(row)
    if against is not None and not any("parity" in row for row in rows):
        raise ConfigRefused("--parity compares a teacher behind a URL with a folder, but no teacher is a URL")
    return rows


def told(row: dict[str, Any]) -> str:
    """A row in words."""
    text = f"{row['tag']}: {row['teacher']} can teach this student"
    if not row["is_served"]:
        return f"{text} (its folder, by its tokenizer)"
    text += f" ({row['model']}, {row['n_listed']} tokens listed in each place)"
    if "parity" in row:
        seen = row["parity"]
        text += (
            f"\n  against the folder, {seen['n_tokens']} tokens: log-probabilities differ by "
            f"{seen['logprob_mean']:.4f} on average, {seen['logprob_max']:.3f} at most; the likeliest token is one in "
            f"{100 * seen['same_first_share']:.1f} % of places\n  loss per token: served {seen['loss_served']:.5f}, "
            f"local with as many tokens {seen['loss_local']:.5f}, local with all {seen['loss_whole']:.5f}"
        )
    return text
