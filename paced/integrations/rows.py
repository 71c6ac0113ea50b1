"""A run's batches as a data set of rows, for trainers that ask for row numbers in order.

Row i is problem i % size of the batch at position i // size. The batch is drawn when its first row is asked for;
whoever asks again, in whatever process and after whatever crash, gets the same one.
"""

import json
import threading
from dataclasses import dataclass
from typing import Any, Final

from paced import wire
from paced.client import Client
from paced.prompts import chat_messages
from paced.stream import Draw, Source, count_steps, curriculum_named

SCHEME: Final = "paced:"
N_KEPT: Final = 4  # batches whose rows may be asked for by turns


@dataclass(frozen=True, slots=True)
class Ticket:
    """What must travel with a prompt for its graded answers to find their way back."""

    batch_id: str
    problem_id: int
    answer: str

    def label(self) -> str:
        """The ticket as one string, for trainers that hand a label to their reward function."""
        return json.dumps([self.batch_id, self.problem_id, self.answer])

    @classmethod
    def read(cls, label: str) -> "Ticket":
        """A ticket from its label; raises ValueError when it is none."""
        try:
            batch_id, problem_id, answer = json.loads(label)
        except (TypeError, ValueError) as error:
            raise ValueError(f"this label was not made by paced: {label!r:.100}") from error
        return cls(batch_id, problem_id, answer)


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt to train on, as a chat."""

    prompt: list[dict[str, str]]
    grader: str
    loss_weight: float
    ticket: Ticket


class Rows:
    """The rows of a run, `size` problems in each of `n_steps` batches; the run is made where there is none.

    `curriculum` and `run` are names (a curriculum's id will do). `n_steps` may be left out where the schedule has an
    end. A batch that falls short is filled up by its first problems, so that rows and batches stay aligned.
    """

    def __init__(
        self,
        client: Client,
        curriculum: str,
        run: str,
        size: int,
        n_steps: int | None = None,
        *,
        patience_s: float = 600.0,
    ) -> None:
        found = curriculum_named(client, curriculum)
        n_planned = count_steps(found.schedule)
        if n_steps is None and n_planned is None:
            raise ValueError(f"the schedule of {found.name} has no end: say how many steps to train for")
        self.client, self.student, self.problem_set, self.size = client, found.student, found.problem_set, size
        self.n_steps = min(n for n in (n_steps, n_planned) if n is not None)
        made = client.create_run(wire.RunCreate(curriculum_id=found.curriculum_id, name=run))
        self._source = Source(client, found.curriculum_id, made.run_id, size, n_planned, patience_s=patience_s)
        self._profile = client.profile(found.profile_id)
        self._kept: dict[int, Draw] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_kept": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __len__(self) -> int:
        return self.n_steps * self.size

    def __getitem__(self, index: int) -> Row:
        """Row `index`; raises IndexError behind the last step, NothingEligible when none can be drawn for too long."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        batch = self._draw(index // self.size).batch
        problem, loss_weight = list(batch.items())[index % self.size % batch.size]
        chat = [message.model_dump() for message in chat_messages(problem.prompt, self._profile)]
        return Row(chat, problem.grader, loss_weight, Ticket(batch.batch_id, problem.problem_id, problem.answer))

    def _draw(self, position: int) -> Draw:
        with self._lock:
            if position not in self._kept:
                draw = self._source.draw(position, threading.Event())
                if draw is None:
                    raise IndexError(f"the schedule ended before step {position}")
                self._kept = {**dict(list(self._kept.items())[1 - N_KEPT :]), position: draw}
            return self._kept[position]


def parsed(name: str) -> tuple[str, str]:
    """(curriculum, run) of `paced:CURRICULUM/RUN`; raises ValueError where one is missing."""
    curriculum, _, run = name.removeprefix(SCHEME).partition("/")
    if not curriculum or not run:
        raise ValueError(f"name the curriculum and the run as {SCHEME}CURRICULUM/RUN, not {name!r}")
    return curriculum, run
