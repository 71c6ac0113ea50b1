"""OpenRLHF on a curriculum: prompts in the place of its prompt data set, and rewards that are counted.

The trainer loads every prompt before it starts; `install` replaces the function that does so. Written to OpenRLHF
0.11.2, which only `install` imports.
"""

import json
import logging
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from torch.utils.data import Dataset

from paced.client import Client
from paced.integrations.graded import Graded, Judge
from paced.integrations.rows import Rows, parsed

Item = tuple[str, str, str, None]
Reward = Callable[[Sequence[str], Sequence[str], Sequence[str]], dict[str, Any]]
log = logging.getLogger(__name__)


class Prompts(Dataset[Item]):
    """Rows as (data source, prompt, label, no images); the label is the ticket that the reward function needs."""

    def __init__(self, rows: Rows, tokenizer: Any) -> None:
        self.rows, self._tokenizer = rows, tokenizer

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Item:
        row = self.rows[index]
        text = self._tokenizer.apply_chat_template(row.prompt, tokenize=False, add_generation_prompt=True)
        return "paced", text, row.ticket.label(), None

    def collate_fn(self, items: Sequence[Item]) -> tuple[list[Any], ...]:
        """Four lists."""
        return tuple(map(list, zip(*items, strict=True)))


def prepare_datasets(strategy: Any, tokenizer: Any, client: Client | None = None) -> tuple[Any, None, int]:
    """Loader of prompts, no loader for evaluation, and the number of optimiser steps, as OpenRLHF's own returns them.

    `data.prompt_dataset` is `paced:CURRICULUM/RUN`, a batch `rollout.batch_size` prompts, and the run is over after
    `data.max_samples` of them. One episode: there are no epochs of a weighted stream.
    """
    args = strategy.args
    if getattr(args.eval, "dataset", None):
        raise ValueError("evaluation data is not supported beside a curriculum: leave eval.dataset out")
    if args.train.num_episodes != 1:
        raise ValueError("a weighted stream has no epochs: set train.num_episodes to 1")
    size = args.rollout.batch_size
    rows = Rows(client or Client(), *parsed(args.data.prompt_dataset), size, int(args.data.max_samples) // size)
    prompts = Prompts(rows, tokenizer)
    loader = strategy.setup_dataloader(prompts, 1, True, False, prompts.collate_fn, num_workers=0)
    n_answers = len(prompts) * args.rollout.n_samples_per_prompt
    return loader, None, n_answers // args.train.batch_size * args.train.max_epochs


def install() -> None:
    """Make OpenRLHF's trainers of this process use a curriculum; Ray runs it as `worker_process_setup_hook`."""
    import openrlhf.trainer.ppo_trainer as trainer

    trainer.prepare_datasets = prepare_datasets


def rewarded(graded: Graded, judge: Judge) -> Reward:
    """A `reward_func` for a file that `reward.remote_url` names: judges what follows the prompt, and counts it.

    Its rewards and scores are float tensors, shape (n_queries,).
    """

    def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
        answers = [query.removeprefix(prompt) for query, prompt in zip(queries, prompts, strict=True)]
        rewards = torch.tensor(graded.judged(judge, answers, labels))
        return {"rewards": rewards, "scores": rewards, "extra_logs": {}}

    return reward_func


def server(reward: Reward, port: int = 5000, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """The same as a server that `reward.remote_url` names, for several engines; call its `serve_forever()`."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                found = reward(asked["query"], asked["prompts"], asked["labels"])
                body, status = {**found, "rewards": found["rewards"].tolist(), "scores": found["scores"].tolist()}, 200
            except (KeyError, TypeError, ValueError) as error:
                body, status = {"error": str(error)}, 422
            sent = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            log.debug(format, *args)

    return ThreadingHTTPServer((host, port), Answers)
