"""NeMo-RL on a curriculum: a data set of datums for its `setup`, and an environment's answers as observations.

Set `data.shuffle=false`. Written to the interfaces of NeMo-RL's repository as they were read, not to a release; it is
not imported here, and was not run.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from paced.integrations.graded import Graded
from paced.integrations.rows import Rows, Ticket


class Prompts(Dataset[dict[str, Any]]):
    """Rows as NeMo-RL's DatumSpec: one message log with token ids, int64, shape (n_tokens,).

    `loss_multiplier` is the problem's loss weight, 0 for a prompt of more than `max_tokens`, which is cut. NeMo-RL
    divides a step's loss by the sum of the multipliers, so that weights count relative to their batch's mean.
    """

    def __init__(self, rows: Rows, tokenizer: Any, *, task_name: str = "math", max_tokens: int | None = None) -> None:
        self.rows = rows
        self._tokenizer, self._task_name, self._max_tokens = tokenizer, task_name, max_tokens

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        text = self._tokenizer.apply_chat_template(row.prompt, tokenize=False, add_generation_prompt=True)
        ids = self._tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"][0]
        is_long = self._max_tokens is not None and len(ids) > self._max_tokens
        ids = ids[: self._max_tokens]
        return {
            "message_log": [{"role": "user", "content": text, "token_ids": ids}],
            "length": len(ids),
            "extra_env_info": {"ground_truth": row.ticket.answer, "paced": row.ticket.label()},
            "loss_multiplier": 0.0 if is_long else row.loss_weight,
            "idx": index,
            "task_name": self._task_name,
        }


class Reporting:
    """Goes before an environment in a class of yours, below `ray.remote`: what ends an episode is counted."""

    graded: Graded

    def step(self, message_log_batch: list[Any], metadata: list[dict[str, Any]], *rest: Any, **named: Any) -> Any:
        """The environment's own step."""
        labels = [datum.get("paced") for datum in metadata]  # the environment may change its metadata
        done = super().step(message_log_batch, metadata, *rest, **named)  # type: ignore[misc]
        report(self.graded, labels, done.rewards, done.terminateds)
        return done


def report(graded: Graded, labels: Sequence[str | None], rewards: torch.Tensor, terminateds: torch.Tensor) -> None:
    """Count the rewards, shape (n_answers,), of the episodes that ended; a label is None in other data sets."""
    for label, reward, is_done in zip(labels, rewards.tolist(), terminateds.tolist(), strict=True):
        if is_done and label is not None:
            graded.add(Ticket.read(label), reward)
