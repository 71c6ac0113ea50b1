"""Weighted batches as a PyTorch data set: `DataLoader(BatchStream(...), batch_size=None, num_workers=...)`."""

import os
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch.utils.data import IterableDataset, get_worker_info

from paced.client import Client
from paced.stream import Draw, Ranks, Stream

__all__ = ["BatchStream", "Draw"]


class BatchStream(Stream, IterableDataset[Draw]):
    """A `Stream` for data loaders: worker w of n draws every n-th batch, and the loader puts them into one order.

    Ranks are those of `torch.distributed`, or of the variables that torchrun sets, unless they are given; make the
    stream in the training process, not in a loader's worker. With the stock DataLoader, save and load the stream's
    own state; `torchdata.stateful_dataloader` saves that of its workers and asks for the same number of them again.
    """

    def __init__(
        self,
        client: Client,
        curriculum: str,
        run: str,
        size: int,
        *,
        mode: Literal["share", "own"] = "share",
        rank: int | None = None,
        n_ranks: int | None = None,
        n_ahead: int = 2,
        patience_s: float = 600.0,
    ) -> None:
        own_rank, world_size = _place()
        ranks = Ranks(own_rank if rank is None else rank, world_size if n_ranks is None else n_ranks, mode)
        Stream.__init__(self, client, curriculum, run, size, ranks=ranks, n_ahead=n_ahead, patience_s=patience_s)
        self._stride: int | None = None  # set where a loader's worker resumes: its next draws are that far apart

    def __iter__(self) -> Iterator[Draw]:
        worker = get_worker_info()
        if worker is None:
            yield from Stream.__iter__(self)
            return
        if self._stride not in {None, worker.num_workers}:
            raise ValueError(f"the state is of {self._stride} workers, the loader has {worker.num_workers}")
        start = self._position + (worker.id if self._stride is None else 0)
        self._stride = worker.num_workers
        self._position = start
        for draw in self.source.draws(start, worker.num_workers, self._n_ahead):
            self._position = draw.position + worker.num_workers
            yield draw

    def state_dict(self) -> dict[str, Any]:
        """Where the run is: behind the last draw acknowledged, in a loader's worker behind the last handed out."""
        return {**Stream.state_dict(self), **({"stride": self._stride} if self._stride else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; raises ValueError when it is another run's."""
        Stream.load_state_dict(self, state)
        self._stride = state.get("stride")


def _place() -> tuple[int, int]:
    """(rank, number of ranks) of this process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
