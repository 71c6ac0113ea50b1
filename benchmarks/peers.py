"""Prioritised replay systems handing out items on this machine, for comparison with durable draws over HTTP.

Each peer holds n items of one int64 id with priority p(1-p), p spread evenly over (0, 1), in a virtual environment of
its own under `.benchmarks/peers`, made on first use. The service's batches are on disk before they are returned and
hold no problem twice; these draw with replacement and keep nothing. Times are wall seconds of a batch at the consumer.

reverb_streaming: DeepMind Reverb, a server process, and `TimestepDataset` over loopback gRPC, the fastest of `STREAMS`.
It fetches ahead, so many batches lie ready: `items_per_s`, items over elapsed time, is the figure, not the median.
reverb_one_shot: a `Client.sample` call for each batch, which fetches one item at a time.
torchrl: `TensorDictReplayBuffer` with `PrioritizedSampler` in the consumer's process, without any transport.

This file is also the script that runs inside those environments, where only numpy and the peer can be imported.
"""

import argparse
import contextlib
import importlib.metadata
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

HOME = Path(".benchmarks/peers")
FILL_LIMIT_S = 180.0
N_WRITERS = 4
TABLE = "t"
WARM_UP = 10  # batches
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONWARNINGS": "ignore"}


@dataclass(frozen=True)
class Peer:
    """A system with the packages that it needs; bounds are releases whose binaries fit together."""

    name: str
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Stream:
    """Settings of Reverb's dataset: samples under way for each worker, and workers (-1: Reverb chooses)."""

    in_flight: int
    workers: int


PEERS = (
    Peer("reverb", ("dm-reverb>=0.14,<0.15", "tensorflow>=2.15,<2.16", "numpy>=1.26,<2")),
    Peer("torchrl", ("torchrl>=0.14,<0.15", "torch>=2.14,<2.15", "numpy>=2")),
)
STREAMS = (Stream(1024, -1), Stream(1024, 1), Stream(4096, 4))


def measure(n: int, batches: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """Rows of every peer at each batch size; a peer that cannot be measured is a row `skipped` that says why."""
    return [row for peer in PEERS for row in _rows(peer, n, batches, seconds)]


def _rows(peer: Peer, n: int, batches: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    try:
        command = [_python(peer), __file__, peer.name, "--n", n, "--seconds", seconds, "--batches", *batches]
        _say(f"measuring {peer.name}")
        rows: list[dict[str, Any]] = json.loads(_last_line(command, timeout=600 + 20 * seconds))
    except Exception as error:
        return _skipped(peer.name, error)
    return rows


def _skipped(name: str, error: Exception) -> list[dict[str, Any]]:
    return [{"engine": name, "skipped": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}]


def _python(peer: Peer) -> Path:
    """The interpreter of the peer's environment, made anew where the last attempt did not end well."""
    folder, wanted = HOME.absolute() / peer.name, "\n".join(peer.packages)
    python, installed = folder / "bin" / "python", folder / "packages.txt"
    if not installed.exists() or installed.read_text() != wanted:
        _say(f"installing {', '.join(peer.packages)} into {folder}, some minutes")
        venv.create(folder, clear=True, with_pip=True)
        _last_line([python, "-m", "pip", "install", "--progress-bar", "off", *peer.packages], timeout=1800)
        installed.write_text(wanted)
    return python


def _last_line(command: Sequence[Any], timeout: float) -> str:
    words, environment = [str(word) for word in command], {**os.environ, **QUIET}
    is_pip = "pip" in words
    done = subprocess.run(
        words,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if is_pip else None,  # pip says on it why it failed, a script how far it is
        text=True,
        env=environment,
        timeout=timeout,
    )
    last = ["", *done.stdout.splitlines()][-1]
    if done.returncode:
        raise RuntimeError(last or f"ended with {done.returncode}")
    return last


def _say(text: str) -> None:
    print(f"peers: {text}", file=sys.stderr, flush=True)


# From here on: inside a peer's environment.


def _priorities(n: int) -> Any:
    p = (np.arange(n) + 0.5) / n
    return p * (1 - p)


def _row(engine: str, n: int, batch: int, draw: Callable[[], Any], seconds: float, **more: Any) -> dict[str, Any]:
    times: list[float] = []
    for _ in range(WARM_UP):
        draw()
    begun = last = time.perf_counter()
    while last - begun < seconds:
        draw()
        times.append(time.perf_counter() - last)
        last += times[-1]
    per_s = round(batch * len(times) / (last - begun))
    return {
        "engine": engine,
        "n": n,
        "batch": batch,
        "median_s": statistics.median(times),
        "items_per_s": per_s,
        **more,
    }


def reverb(n: int, batches: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """Reverb in its own process; every one of `STREAMS` is tried for a second, and the fastest measured."""
    rows = []
    with _filled(n) as (client, size):
        more = {"version": importlib.metadata.version("dm-reverb")}
        if size < n:
            more["note"] = f"{size} of {n} items, a random part: filling takes over {FILL_LIMIT_S:.0f} s"
        for batch in batches:
            trials = {stream: _streaming(client, stream, size, batch, 1.0)["items_per_s"] for stream in STREAMS}
            best = max(STREAMS, key=lambda stream: trials[stream])
            _say(f"reverb, batches of {batch}, items/s: {trials}")
            rows += [_streaming(client, best, size, batch, seconds), _one_shot(client, size, batch, seconds)]
    return [{**row, **more} for row in rows]


def _streaming(client: Any, stream: Stream, n: int, batch: int, seconds: float) -> dict[str, Any]:
    import reverb as dm_reverb

    dataset = dm_reverb.TimestepDataset.from_table_signature(
        client.server_address,
        TABLE,
        max_in_flight_samples_per_worker=stream.in_flight,
        num_workers_per_iterator=stream.workers,
    )
    drawn = (sample.data["id"].numpy() for sample in dataset.batch(batch).prefetch(4))
    return _row("reverb_streaming", n, batch, drawn.__next__, seconds, **asdict(stream))


def _one_shot(client: Any, n: int, batch: int, seconds: float) -> dict[str, Any]:
    def draw() -> list[Any]:
        return list(client.sample(TABLE, num_samples=batch, emit_timesteps=False))

    return _row("reverb_one_shot", n, batch, draw, seconds)


@contextlib.contextmanager
def _filled(n: int) -> Iterator[tuple[Any, int]]:
    """A server process with one prioritised table; yields a client, and how many of n items were stored in time."""
    import reverb as dm_reverb

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(n, theirs), daemon=True)
    process.start()
    theirs.close()  # so that a server that fails ends the wait
    try:
        client = dm_reverb.Client(f"localhost:{ours.recv()}")
        _say(f"filling reverb with {n} items, at most {FILL_LIMIT_S:.0f} s")
        _fill(client, n)
        yield client, client.server_info()[TABLE].current_size
    finally:
        process.terminate()
        process.join(30)


def _serve(n: int, pipe: Connection) -> None:
    import reverb as dm_reverb
    import tensorflow as tf

    table = dm_reverb.Table(
        name=TABLE,
        sampler=dm_reverb.selectors.Prioritized(priority_exponent=1.0),
        remover=dm_reverb.selectors.Fifo(),
        max_size=n,
        rate_limiter=dm_reverb.rate_limiters.MinSize(1),
        signature={"id": tf.TensorSpec((), tf.int64)},
    )
    server = dm_reverb.Server([table])
    with contextlib.suppress(EOFError):  # the other side is gone
        pipe.send(server.port)
        pipe.recv()


def _fill(client: Any, n: int) -> None:
    """Several streams of chunks of one item: longer chunks fill sooner, but a sampled item brings its chunk along."""
    weights, ids, deadline = _priorities(n).tolist(), np.random.default_rng(0).permutation(n), time.monotonic()
    deadline += FILL_LIMIT_S

    def write(mine: Any) -> None:
        with client.writer(max_sequence_length=1, max_in_flight_items=10_000) as writer:
            for i in mine:
                writer.append({"id": i})
                writer.create_item(TABLE, num_timesteps=1, priority=weights[i])
                if time.monotonic() > deadline:
                    return

    threads = [threading.Thread(target=write, args=(ids[k::N_WRITERS],)) for k in range(N_WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def torchrl(n: int, batches: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """TorchRL's sum trees in this process, ids in a tensor storage."""
    import torch
    from tensordict import TensorDict
    from torchrl.data.replay_buffers import LazyTensorStorage, PrioritizedSampler, TensorDictReplayBuffer

    sampler = PrioritizedSampler(n, alpha=1.0, beta=1.0, eps=0.0)
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(n), sampler=sampler)
    buffer.extend(TensorDict({"id": torch.arange(n)}, [n]))
    sampler.update_priority(torch.arange(n), torch.from_numpy(_priorities(n)).float())
    more = {"version": importlib.metadata.version("torchrl"), "torch": torch.__version__}
    return [_row("torchrl", n, b, lambda b=b: buffer.sample(b)["id"].numpy(), seconds, **more) for b in batches]


def main() -> None:
    """Measure one peer in this environment; prints one JSON list."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("peer", choices=["reverb", "torchrl"])
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    try:
        rows = {"reverb": reverb, "torchrl": torchrl}[given.peer](given.n, given.batches, given.seconds)
    except Exception as error:
        rows = _skipped(given.peer, error)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
