"""TRL's GRPOTrainer on a curriculum: its sampler draws weighted batches, its rewards become observations.

`class Trainer(Weighted, GRPOTrainer): ...`, then `Trainer(curriculum=..., reward_funcs=curriculum.observed(f), ...)`.
Tested with TRL 1.16, which is not imported here.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerState, TrainingArguments

from paced import wire
from paced.client import Client
from paced.integrations.graded import send, verdict
from paced.prompts import chat_messages
from paced.stream import Draw, Ranks, Source, count_steps, curriculum_named

Reward = Callable[..., list[float | None]]


class Curriculum:
    """One run of a training job on a curriculum, given by name or id; the run is made where there is none.

    Every process of the job makes its own, and all draw the same batches; the first acknowledges, with the graded
    answers of all. `register` names each checkpoint that the trainer saves to the service, to be measured.
    """

    def __init__(self, client: Client, curriculum: str, run: str, *, register: bool = False) -> None:
        found = curriculum_named(client, curriculum)
        self.client, self.found, self.register = client, found, register
        self.run_id = client.create_run(wire.RunCreate(curriculum_id=found.curriculum_id, name=run)).run_id
        self.drawn: list[Draw] = []
        self._verdicts: dict[int, Counter[str]] = defaultdict(Counter)
        self._rows: dict[int, int] = {}

    def dataset(self) -> Any:
        """A `datasets.Dataset` of the problem set: chat `prompt` as the profile has it, `answer`, `problem_id`."""
        from datasets import Dataset

        profile = self.client.profile(self.found.profile_id)
        problems = list(self.client.problems(self.found.problem_set, limit=1000))
        self._rows = {problem.problem_id: row for row, problem in enumerate(problems)}
        chats = [chat_messages(problem.prompt, profile) for problem in problems]
        columns = {
            "prompt": [[message.model_dump() for message in chat] for chat in chats],
            "answer": [problem.answer for problem in problems],
            "problem_id": list(self._rows),
        }
        return Dataset.from_dict(columns)

    def place_of(self, problem_id: int) -> int:
        """The row of a problem in the data set. Raises ValueError where it was imported later."""
        if problem_id not in self._rows:
            raise ValueError(
                f"problem {problem_id} was imported after this data set was made: start again, the run goes on "
                "where it was"
            )
        return self._rows[problem_id]

    def observed(self, reward: Reward, *, passes: float = 1.0, max_completion_length: int | None = None) -> Reward:
        """A reward function whose results are counted: a reward of at least `passes` is a pass, a lower one a fail.

        Give it the function that judges right or wrong, not a shaped one. With `max_completion_length`, answers of that
        many tokens that did not pass count as truncated. Rows of a data set without `problem_id`, such as one for
        evaluation, are not counted.
        """

        def counted(**columns: Any) -> list[float | None]:
            rewards = reward(**columns)
            if "problem_id" not in columns:
                return rewards
            lengths = [len(ids) for ids in columns.get("completion_ids") or [()] * len(rewards)]
            for problem_id, value, length in zip(columns["problem_id"], rewards, lengths, strict=True):
                if value is not None:
                    is_cut = max_completion_length is not None and length >= max_completion_length
                    self._verdicts[int(problem_id)][verdict(value, passes, is_cut)] += 1
            return rewards

        counted.__name__ = getattr(reward, "__name__", "reward")
        return counted

    def finish(self) -> None:
        """Acknowledge the oldest draw, with every rank's verdicts on its problems."""
        batch = self.drawn.pop(0).batch
        mine = {problem_id: self._verdicts.pop(problem_id, Counter()) for problem_id in batch.problem_id}
        everyone = _gathered(mine)
        if _rank() != 0:
            return
        counts = {i: sum((theirs[i] for theirs in everyone), Counter()) for i in batch.problem_id}
        send(self.client, self.found.student, batch.batch_id, counts)

    def saved(self, folder: Path, step: int) -> None:
        """Register a checkpoint that the trainer saved."""
        if self.register and _rank() == 0:
            body = wire.CheckpointCreate(uri=str(folder.resolve()), run_id=self.run_id, step=step)
            self.client.register_checkpoint(self.found.student, body, key=f"{self.run_id}:ckpt:{step}")


class WeightedSampler(Sampler[int]):
    """Rows of each draw in turn: `n_generations` times each in a row, the whole `n_repeats` times, as TRL asks for.

    A trainer that resumes passes over the draws that it made before: asked for again, each is the same batch.
    """

    def __init__(self, curriculum: Curriculum, size: int, n_generations: int, n_repeats: int, n_draws: int) -> None:
        self.curriculum = curriculum
        self._n_generations, self._n_repeats, self._n_draws = n_generations, n_repeats, n_draws
        self._size = size
        found = curriculum.found
        self._source = Source(
            curriculum.client, found.curriculum_id, curriculum.run_id, size, count_steps(found.schedule), Ranks()
        )

    def __len__(self) -> int:
        return self._n_draws * self._size * self._n_generations * self._n_repeats

    def __iter__(self) -> Iterator[int]:
        for draw in self._source.draws(0, 1, 1, end=self._n_draws):
            self.curriculum.drawn.append(draw)
            places = itertools.cycle(map(self.curriculum.place_of, draw.batch.problem_id))
            rows = list(itertools.islice(places, self._size))  # a batch that fell short is filled up: groups stay whole
            for _ in range(self._n_repeats):
                for row in rows:
                    yield from [row] * self._n_generations


class Weighted:
    """Goes before TRL's trainer in a class of yours; `max_steps` says how long to train."""

    curriculum: Curriculum
    counting: "Acknowledging"
    args: Any
    num_generations: int
    num_iterations: int

    def __init__(self, *arguments: Any, curriculum: Curriculum, callbacks: Sequence[Any] = (), **named: Any) -> None:
        self.curriculum = curriculum
        self.counting = Acknowledging(curriculum, self)
        named.setdefault("train_dataset", curriculum.dataset())
        named["callbacks"] = [*callbacks, self.counting]
        super().__init__(*arguments, **named)

    @property
    def n_micro_steps(self) -> int:
        """Backward passes that one draw is good for."""
        return int(self.num_iterations * self.args.steps_per_generation)

    @property
    def draw_size(self) -> int:
        """Problems of one draw, which all ranks share."""
        return int(self.args.generation_batch_size // self.num_generations)

    def _get_train_sampler(self, dataset: Any = None) -> WeightedSampler:  # noqa: ARG002 - TRL's own signature
        if self.args.max_steps <= 0:
            raise ValueError("a weighted stream has no epochs: set `max_steps`")
        n_draws = -(-self.args.max_steps * self.args.gradient_accumulation_steps // self.n_micro_steps)
        return WeightedSampler(self.curriculum, self.draw_size, self.num_generations, self.n_micro_steps, n_draws)


class Acknowledging(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Counts backward passes: a draw is acknowledged after the optimiser step that used it for the last time."""

    def __init__(self, curriculum: Curriculum, trainer: Weighted) -> None:
        self._curriculum, self._trainer = curriculum, trainer
        self.n_micro_steps = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """A resumed trainer passes over what it did before."""
        self.n_micro_steps = state.global_step * args.gradient_accumulation_steps

    def on_substep_end(self, *_: Any, **__: Any) -> None:
        """One backward pass of a step that accumulates several."""
        self.n_micro_steps += 1

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """The optimiser step is done."""
        self.n_micro_steps += 1
        n_done = self.n_micro_steps // self._trainer.n_micro_steps
        while self._curriculum.drawn and self._curriculum.drawn[0].position < n_done:
            self._curriculum.finish()

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Weights are on disk."""
        self._curriculum.saved(Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step)


def _rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def _gathered(mine: dict[int, Counter[str]]) -> list[dict[int, Counter[str]]]:
    """Every rank's counts."""
    if not torch.distributed.is_initialized():
        return [mine]
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, mine)
    return everyone
