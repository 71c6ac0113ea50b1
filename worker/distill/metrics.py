"""One step's figures: to the run in the service, and to `metrics.jsonl` beside the checkpoints."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paced.client import Client
from paced.wire import Batch, MetricPoint, Stage
from worker.distill.checkpoint import replace_file

FRONTIER = (0.1, 0.9)


class Recorder:
    """Writes steps from `first_step` on; lines of steps that will be done again are taken out first."""

    def __init__(self, client: Client, run_id: str, out: Path, first_step: int) -> None:
        self._client = client
        self._run_id = run_id
        self._file = out / "metrics.jsonl"
        self.lines = [line for line in _lines(self._file) if line["step"] < first_step]
        content = "".join(json.dumps(line) + "\n" for line in self.lines)
        replace_file(self._file, content.encode())

    def record(self, step: int, stage: Stage, values: Mapping[str, float]) -> None:
        """Store one step's figures; those that are not finite (a share of nothing) are left out."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        line = {"step": step, "stage": str(stage), **finite}
        self.lines.append(line)
        with self._file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._client.append_metrics(self._run_id, [MetricPoint(step=step, stage=stage, values=finite)])

    def summary(self) -> list[dict[str, Any]]:
        """Each stage's steps, seconds, tokens, and mean loss over its first and last tenth."""
        stages: dict[str, list[dict[str, Any]]] = {}
        for line in self.lines:
            stages.setdefault(line["stage"], []).append(line)
        return [_stage_summary(stage, lines) for stage, lines in stages.items()]


def batch_metrics(batch: Batch) -> dict[str, float]:
    """What was drawn: how much of it lies on the frontier (0.1 < p < 0.9), and how it is weighted."""
    n_items = max(1, len(batch.problem_id))
    return {
        "n_problems": len(batch.problem_id),
        "frontier_share": sum(FRONTIER[0] < p < FRONTIER[1] for p in batch.pass_rate) / n_items,
        "pass_rate_mean": sum(batch.pass_rate) / n_items,
        "loss_weight_mean": sum(batch.loss_weight) / n_items,
    }


def pooled(parts: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Figures of ranks as those of all: counts (`n_...`) added up, shares and means weighted by problems."""
    total = sum(n_problems for n_problems, _ in parts)
    found = dict.fromkeys(name for _, values in parts for name in values)
    return {
        name: sum(values.get(name, 0.0) * (1 if name.startswith("n_") else n / max(1, total)) for n, values in parts)
        for name in found
    }


def _lines(file: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics file; a killed trainer may leave half of one."""
    lines = []
    for text in file.read_text().splitlines() if file.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def _stage_summary(stage: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    losses = [line["loss"] for line in lines if "loss" in line]
    n_edge = max(1, len(losses) // 10)
    return {
        "stage": stage,
        "n_steps": len(lines),
        "n_tokens": int(sum(line.get("n_tokens", 0) for line in lines)),
        "duration_s": round(sum(line.get("duration_s", 0.0) for line in lines), 3),
        "loss_first": sum(losses[:n_edge]) / n_edge if losses else None,
        "loss_last": sum(losses[-n_edge:]) / n_edge if losses else None,
    }
