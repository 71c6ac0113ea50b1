"""verl on a curriculum: a data set for `data.custom_cls` whose prompts are a run's batches, and which reports steps.

`data.train_files=paced:CURRICULUM/RUN data.shuffle=False data.custom_cls.path=pkg://paced.integrations.verl
data.custom_cls.name=CurriculumDataset`. Written to verl 0.9.1 and tested with its hooks (0.7.1 and 0.8.0 call
`on_batch_end` too); its trainers were not run. It is imported for other files only.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.data import Dataset

from paced.client import Client
from paced.integrations.graded import Graded, Judge, send, verdict
from paced.integrations.rows import SCHEME, Rows, Ticket, parsed


class CurriculumDataset(Dataset[dict[str, Any]]):
    """Rows as verl's rollout wants them; files without `paced:` (those for validation) become verl's own data set.

    Batches are of `data.train_batch_size` prompts. `+data.paced.n_steps` says how long to train where the schedule has
    no end, `+data.paced.passes` from which reward on an answer is right (1.0), where the judge gives no `acc`.
    """

    def __new__(cls, data_files: Any, *arguments: Any, **named: Any) -> Any:
        """Make this data set, or verl's own for other files."""
        if _names(data_files) is not None:
            return super().__new__(cls)
        from verl.utils.dataset.rl_dataset import RLHFDataset

        return RLHFDataset(data_files, *arguments, **named)

    def __init__(
        self,
        data_files: Any,
        tokenizer: Any,  # noqa: ARG002 - verl's own signature
        config: Mapping[str, Any],
        processor: Any = None,  # noqa: ARG002
        max_samples: int = -1,  # noqa: ARG002
        client: Client | None = None,
    ) -> None:
        names = _names(data_files)
        if names is None:
            raise ValueError(f"these are no names of a curriculum and a run: {data_files}")
        if config.get("shuffle", False):
            raise ValueError("the order of rows is the curriculum's: set data.shuffle=False")
        own = config.get("paced") or {}
        size = int(config["train_batch_size"])
        self.rows = Rows(client or Client(), *names, size, own.get("n_steps"))
        self._passes = float(own.get("passes", 1.0))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        return {
            "raw_prompt": row.prompt,
            "dummy_tensor": torch.zeros(1, dtype=torch.uint8),
            "data_source": "paced",
            "reward_model": {"style": "rule", "ground_truth": row.ticket.answer},
            "extra_info": {"index": index, "paced": row.ticket.label()},
            "index": index,
            "tools_kwargs": {},
            "interaction_kwargs": {},
        }

    def on_batch_end(self, batch: Any) -> None:
        """Report a step that is done; verl's `ray_trainer` calls this with its DataProto."""
        right = batch.non_tensor_batch.get("acc")
        if right is None:
            right = batch.batch["token_level_scores"].sum(-1).tolist()
        counts: dict[str, dict[int, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        for extra, value in zip(batch.non_tensor_batch["extra_info"], right, strict=True):
            ticket = Ticket.read(extra["paced"])
            counts[ticket.batch_id][ticket.problem_id][verdict(float(value), self._passes)] += 1
        for batch_id, of_problems in counts.items():
            send(self.rows.client, self.rows.student, batch_id, of_problems)


def scored(graded: Graded, judge: Judge) -> Callable[..., float]:
    """A `compute_score` that counts what it judges, for trainers of verl that do not call `on_batch_end`.

    Rows of other data sets, such as those for validation, are judged and not counted.
    """

    def compute_score(
        data_source: str,  # noqa: ARG001 - verl's own signature
        solution_str: str,
        ground_truth: str,
        extra_info: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> float:
        if extra_info is None or "paced" not in extra_info:
            return float(judge(solution_str, ground_truth))
        return graded.judged(judge, [solution_str], [extra_info["paced"]])[0]

    return compute_score


def _names(data_files: Any) -> tuple[str, str] | None:
    """(curriculum, run) where the files name them."""
    files = [data_files] if isinstance(data_files, str) else list(data_files)
    if len(files) != 1 or not str(files[0]).startswith(SCHEME):
        return None
    return parsed(str(files[0]))
