"""The processes that train together: what they agree on, and whose gradients make up a step's.

`torchrun` and `accelerate launch` start them and tell each its rank. The first rank decides: it alone asks the service
for the run and its batches, and writes its folder. What it finds, or the error that it meets, all others are told.
Collectives are met in the same order on every rank, else all of them wait.
"""

import contextlib
import datetime as dt
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, distributed, nn

from paced import stream
from paced.wire import Batch
from worker.distill.errors import DistillError, RankLost

T = TypeVar("T")

Kind = Literal["ddp", "fsdp"]
LOST = ("gloo", "nccl", "connection", "timed out")  # words of torch's messages, lower case


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those of the run; one alone needs no launcher."""

    rank: int = 0
    n_ranks: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process decides and writes."""
        return self.rank == 0

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first rank makes, on every rank; what it raises, others raise as a DistillError."""
        if self.n_ranks == 1:
            return make()
        made: list[Any] = [None, None]
        error: Exception | None = None
        if self.is_first:
            try:
                made[0] = make()
            except Exception as caught:
                error, made[1] = caught, f"rank 0: {caught}"
        distributed.broadcast_object_list(made, src=0)
        if error is not None:
            raise error
        if made[1] is not None:
            raise DistillError(made[1])
        found: T = made[0]
        return found

    def gathered(self, value: T) -> list[T]:
        """The value of each rank, by rank, on every rank."""
        found: list[Any] = [value] * self.n_ranks
        if self.n_ranks > 1:
            distributed.all_gather_object(found, value)
        return found

    def summed(self, values: Sequence[float]) -> list[float]:
        """Numbers added up over ranks, the same on every rank."""
        return [sum(column) for column in zip(*self.gathered(tuple(values)), strict=True)]

    def share(self, batch: Batch) -> Batch:
        """Every n-th problem of a batch: this rank's, perhaps none."""
        return stream.Ranks(self.rank, self.n_ranks).cut(batch)


def is_first_launched() -> bool:
    """Whether the launcher, if there is one, started this process as the first."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def joined(timeout_s: float) -> Iterator[Ranks]:
    """The ranks that the launcher started, connected; a rank that hears nothing for `timeout_s` gives up."""
    n_ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if n_ranks == 1:
        yield Ranks()
        return
    is_gpu = torch.cuda.is_available()
    if is_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not distributed.is_initialized():
        with minded(n_ranks):
            backend = "cpu:gloo,cuda:nccl" if is_gpu else "gloo"
            distributed.init_process_group(backend, timeout=dt.timedelta(seconds=timeout_s))
    with minded(n_ranks):
        yield Ranks(distributed.get_rank(), n_ranks)
        distributed.barrier()
    if is_gpu:  # gloo's own end needs none, and may wait for a lock that Python holds
        distributed.destroy_process_group()


@contextlib.contextmanager
def minded(n_ranks: int) -> Iterator[None]:
    """Say in plain words that another rank has gone; torch's message stands behind."""
    try:
        yield
    except RuntimeError as error:
        is_lost = isinstance(error, distributed.DistError) or any(word in str(error).lower() for word in LOST)
        if n_ranks == 1 or not is_lost:
            raise
        raise RankLost(
            f"another rank ended or does not answer, so this one of {n_ranks} cannot go on; if that rank failed, its "
            f"message says why. Start all ranks again: the run resumes at the last saved step. ({error})"
        ) from error


def spread(body: nn.Module, layers: Sequence[nn.Module], kind: Kind, ranks: Ranks) -> nn.Module:
    """A module whose backward averages gradients over ranks; FSDP2 (`fsdp`) also gives each rank a part of weights."""
    if ranks.n_ranks == 1:
        return body
    if kind == "ddp":
        return nn.parallel.DistributedDataParallel(body, gradient_as_bucket_view=True)
    from torch.distributed.fsdp import fully_shard

    for layer in layers:
        fully_shard(layer)
    fully_shard(body)
    return body


def accumulating(body: nn.Module, *, is_last: bool) -> AbstractContextManager[Any]:
    """Around forward and backward of a micro-batch: DDP adds up over ranks at the last one of a step alone."""
    if isinstance(body, nn.parallel.DistributedDataParallel) and not is_last:
        return body.no_sync()
    return contextlib.nullcontext()


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may lie in parts on several ranks, all of which must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, distributed.tensor.DTensor) else tensor
