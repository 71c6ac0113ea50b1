"""Text from a model in this process: a padded batch at a time through transformers' `generate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from worker.rollout.engine import Sampling


@dataclass(frozen=True)
class Generated:
    """The tokens of one answer, its end-of-turn token included; truncated means that the limit ended it."""

    token_ids: list[int]
    is_truncated: bool


class Generator:
    """Answers prompts given as token ids; `end_ids` are the tokens that end an answer.

    The same torch seed, prompts and batch size give the same answers on one machine.
    """

    def __init__(self, model: Any, tokenizer: Any, end_ids: Sequence[int], batch_size: int) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._end_ids = list(end_ids)
        self._batch_size = batch_size

    def answers(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[list[Generated]]:
        """`sampling.n` answers to each prompt, in the prompts' order; draws from torch's global generator."""
        found: list[list[Generated]] = [[] for _ in prompts]
        by_length = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        n_prompts = max(1, self._batch_size // sampling.n)
        for start in range(0, len(by_length), n_prompts):
            chosen = by_length[start : start + n_prompts]
            rows = self._batch([prompts[i] for i in chosen], sampling)
            for place, i in enumerate(chosen):
                found[i] = [self._cut(row, sampling) for row in rows[place * sampling.n : (place + 1) * sampling.n]]
        return found

    @torch.no_grad()
    def _batch(self, prompts: list[list[int]], sampling: Sampling) -> list[list[int]]:
        """Answer tokens, each row filled up with padding."""
        width = max(map(len, prompts))
        pad_id = self._end_ids[0]
        device = self._model.device
        input_ids = torch.tensor([[pad_id] * (width - len(p)) + p for p in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        out = self._model.generate(input_ids, attention_mask=mask, **self._options(sampling, pad_id))
        rows: list[list[int]] = out[:, width:].tolist()
        return rows

    def _options(self, sampling: Sampling, pad_id: int) -> dict[str, Any]:
        """Arguments of `generate`; the model's own generation defaults have no say."""
        from transformers import GenerationConfig

        draw: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            draw = {
                "do_sample": True,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
            }
        config = GenerationConfig(
            max_new_tokens=sampling.max_tokens,
            num_return_sequences=sampling.n,
            eos_token_id=self._end_ids,
            pad_token_id=pad_id,
            stop_strings=list(sampling.stop) or None,
            **draw,
        )
        stop = {"tokenizer": self._tokenizer} if sampling.stop else {}
        return {"generation_config": config, **stop}

    def _cut(self, row: list[int], sampling: Sampling) -> Generated:
        """Take the padding off, and say whether the answer ended by itself."""
        for place, token in enumerate(row):
            if token in self._end_ids:
                is_padding = self._has_stop(row[:place], sampling)  # it had ended before
                return Generated(row[: place if is_padding else place + 1], is_truncated=False)
        is_truncated = len(row) >= sampling.max_tokens and not self._has_stop(row, sampling)
        return Generated(row, is_truncated)

    def _has_stop(self, row: list[int], sampling: Sampling) -> bool:
        return bool(sampling.stop) and any(word in self._tokenizer.decode(row) for word in sampling.stop)


def answer_text(tokenizer: Any, answer: Generated, stop: Sequence[str] = ()) -> str:
    """An answer as text, without its end-of-turn token and without a stop string that ended it."""
    text = str(tokenizer.decode(answer.token_ids, skip_special_tokens=True))
    ends = [text.find(word) for word in stop if word in text]
    return text[: min(ends)] if ends else text
