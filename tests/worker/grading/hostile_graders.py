"""Graders that misbehave, named by dotted path in the pool's tests and imported by its children."""

import os
import tempfile
import time
from typing import Any

from paced.wire.grading import GradingPolicy
from worker.grading.base import Judged


def by_order(text: str, answer: str, policy: GradingPolicy) -> Judged:
    """Do what the text orders: exit, hang, spin, allocate, raise, `sleep 0.2`; anything else is judged as equal."""
    match text.split():
        case ["exit"]:
            os._exit(3)
        case ["hang"]:
            tempfile.mkdtemp()
            time.sleep(3600)
        case ["spin"]:
            while True:
                pass
        case ["allocate"]:
            hoard: list[Any] = []
            while True:
                hoard.append(bytearray(16 << 20))
        case ["raise"]:
            raise RuntimeError("the grader is broken")
        case ["sleep", seconds]:
            time.sleep(float(seconds))
        case ["pid"]:
            return Judged(True, str(os.getpid()))
    return Judged(text == answer, text)
