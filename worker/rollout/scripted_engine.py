"""An engine without a model: answers are a function of prompt, checkpoint and seed. For tests and dry runs.

`Compute a * b ...` is answered right with a probability that grows with the checkpoint's index and falls with the
prompt's own difficulty, so measuring it yields a frontier that moves as a student trains.
"""

import asyncio
import hashlib
import math
import re
from collections.abc import Mapping, Sequence

from paced.wire import Message
from worker.rollout.engine import Answer, EngineFailure, Sampling

FAIL_MARK = "[fail]"
TRUNCATE_MARK = "[truncate]"
STEEPNESS = 8.0
SKILL_AT_0 = 0.4
SKILL_PER_CHECKPOINT = 0.1
SUM = re.compile(r"Compute\s+(-?\d+)\s*([-+*])\s*(-?\d+)")


class ScriptedEngine:
    """Answers after `delay_s`, the same each time.

    `pass_rates` maps a prompt (the last turn) to its pass rate and `answers` to its right answer, in place of the
    built-in skill. A prompt that holds `[fail]` raises EngineFailure, one that holds `[truncate]` is cut short,
    and a checkpoint URI that holds `[fail]` does not load.
    """

    def __init__(
        self,
        *,
        delay_s: float = 0.0,
        pass_rates: Mapping[str, float] | None = None,
        answers: Mapping[str, str] | None = None,
    ) -> None:
        self.delay_s = delay_s
        self.loaded: list[str] = []
        self.n_generating = 0
        self.n_generating_max = 0
        self._pass_rates = pass_rates or {}
        self._answers = answers or {}

    async def start(self) -> None:
        """Nothing to load."""

    async def stop(self) -> None:
        """Nothing to free."""

    async def load_checkpoint(self, uri: str) -> None:
        """Answer as this checkpoint would; its index is the last number in the URI."""
        if self.n_generating:
            raise EngineFailure(f"{self.n_generating} prompts are in flight; a checkpoint is loaded between them")
        if FAIL_MARK in uri:
            raise EngineFailure(f"the script says that {uri} does not load")
        self.loaded.append(uri)

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Answer]:
        """Answer the last turn `sampling.n` times."""
        prompt = messages[-1].content
        self.n_generating += 1
        self.n_generating_max = max(self.n_generating_max, self.n_generating)
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.n_generating -= 1
        if FAIL_MARK in prompt:
            raise EngineFailure("the script says that this prompt fails")
        return [self._answer(prompt, position, sampling) for position in range(sampling.n)]

    def _answer(self, prompt: str, position: int, sampling: Sampling) -> Answer:
        uri = self.loaded[-1] if self.loaded else ""
        right = self._answers.get(prompt) or _right_answer(prompt)
        chance = uniform(prompt, uri, str(sampling.seed), str(position))
        is_right = chance < self._pass_rates.get(prompt, pass_rate(prompt, uri))
        text = right if is_right else _wrong(right, chance)
        if TRUNCATE_MARK in prompt:
            return Answer(text[: sampling.max_tokens], sampling.max_tokens, is_truncated=True)
        return Answer(text, len(text.split()), is_truncated=False)


def pass_rate(prompt: str, uri: str) -> float:
    """The built-in skill: a logistic curve of checkpoint skill less prompt difficulty."""
    numbers = re.findall(r"\d+", uri)
    skill = SKILL_AT_0 + SKILL_PER_CHECKPOINT * (int(numbers[-1]) if numbers else 0)
    return 1 / (1 + math.exp(max(-50.0, STEEPNESS * (uniform(prompt) - skill))))


def uniform(*words: str) -> float:
    """A number in [0, 1) that depends on the words alone."""
    digest = hashlib.sha256("\0".join(words).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def _right_answer(prompt: str) -> str:
    found = SUM.search(prompt)
    if found is None:
        return "unknown"
    a, operator, b = int(found[1]), found[2], int(found[3])
    return str({"+": a + b, "-": a - b, "*": a * b}[operator])


def _wrong(right: str, chance: float) -> str:
    try:
        return str(int(right) + 1 + int(chance * 1000) % 9)
    except ValueError:
        return f"not {right}"
