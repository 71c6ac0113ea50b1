"""A small curriculum on a real service, and what stands between it and a trainer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paced import Client, wire
from tests.app.world import build, measure
from worker.distill.config import DistillConfig
from worker.distill.stages import Stop
from worker.distill.train import train

SCHEDULE = [{"stage": "forward_kl", "steps": 4}, {"stage": "reverse_kl", "steps": 4}]


class Killed(BaseException):
    """The end of a process: nothing in the trainer may catch it."""


class Killing:
    """A client that dies at the n-th call of one method, before the service hears of it or just after."""

    def __init__(self, client: Client, method: str, nth: int, when: str) -> None:
        self._client, self._method, self._nth, self._when = client, method, nth, when

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return self._dying(found) if name == self._method else found

    def _dying(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def dying(*arguments: Any, **options: Any) -> Any:
            self._nth -= 1
            if self._nth == 0 and self._when == "before":
                raise Killed
            answer = call(*arguments, **options)
            if self._nth == 0:
                raise Killed
            return answer

        return dying


def make_curriculum(client: Client, folder: Path, **fields: Any) -> wire.Curriculum:
    """40 measured problems, four steps of forward KL, four of reverse KL.

    Worlds of one service have other problem ids, hence other pass rates: the preset `uniform` draws the same in each.
    """
    curriculum = build(client, folder, **{"schedule": SCHEDULE, "mode": "reweight", **fields})
    measure(client, curriculum.student, size=64)  # in one report, so that two worlds know the same
    return curriculum


def make_config(curriculum: wire.Curriculum, student: Path, out: Path, **fields: Any) -> DistillConfig:
    made = {
        "curriculum_id": curriculum.curriculum_id,
        "student": student,
        "out": out,
        "run_name": "tiny",
        "batch_size": 4,
        "micro_batch_size": 3,
        "learning_rate": 1e-3,
        "dtype": "float32",
        "engine": "transformers",
        "device": "cpu",
        "save_every": 3,
        "teacher_attempts": 2,
        "drop_wrong_references": False,  # a random model is never right
        "wait_for_measurement": False,
        "wait_s": 5,
    }
    return DistillConfig(**{**made, **fields})


def run(config: DistillConfig, client: Any, stop: Stop | None = None) -> dict[str, Any]:
    return train(config, client, stop or Stop(), lambda *_: None)


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(len(lines)))
    return [line["loss"] for line in lines]
