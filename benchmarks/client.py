"""What a trainer waits for: batches of 256 fetched beside a training step of a second, and what travels for them.

A service process on SQLite holds word problems of the usual length. `loop`: a PyTorch data loader with two workers, as
a trainer uses it, each step a second long; `waited_s` is the time in which the trainer stood still for its batch.
`fetch`: one batch at a time with nothing drawn ahead, by two ways: texts in every batch, and ids with texts that are
kept. Acknowledging is timed apart. `bytes`: the bodies of the same batch both ways. `imports`: fresh processes.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from torch.utils.data import DataLoader

from benchmarks.processes import KEY
from paced import Client, wire
from paced.integrations.pytorch import BatchStream

SIZE = 256
STEP_S = 1.0
N_WORKERS = 2
QUESTION_CHARS, SOLUTION_CHARS = 235, 290  # medians of grade-school word problems and their worked solutions
TIMED = "import time; started = time.perf_counter(); {}; print(time.perf_counter() - started)"
IMPORTS = ("import paced", "from paced import Client", "import paced.integrations.pytorch")


def run(small: bool) -> dict[str, Any]:
    """The figures are of one trainer on the service's own machine."""
    n_problems, n_steps, n_fetches = (4_000, 15, 30) if small else (20_000, 60, 200)
    with tempfile.TemporaryDirectory(prefix="paced-client-") as folder, _service(Path(folder)) as client:
        curriculum = _build(client, Path(folder), n_problems)
        waits = _loop(client, n_steps)
        texts_s, kept_s, ack_s = _fetches(client, curriculum, n_fetches)
        sizes = _bytes(client, curriculum)
    imports = {statement: _import_s(statement) for statement in IMPORTS}
    rows = [
        {"part": "loop", "waited_s": waits},
        {"part": "fetch", "way": "texts in every batch", "median_s": statistics.median(texts_s)},
        {"part": "fetch", "way": "ids, texts kept", "median_s": statistics.median(kept_s), "first_s": kept_s[0]},
        {"part": "acknowledge", "median_s": statistics.median(ack_s)},
        {"part": "bytes", **sizes},
        {"part": "imports", **imports},
    ]
    return {
        "settings": {
            "size": SIZE,
            "step_s": STEP_S,
            "n_steps": n_steps,
            "n_problems": n_problems,
            "workers": N_WORKERS,
        },
        "rows": rows,
        "figures": {
            "fetch_share_of_step": round(statistics.median(waits) / STEP_S, 4),
            "fetch_share_of_step_p95": round(statistics.quantiles(waits, n=20)[-1] / STEP_S, 4),
            "fetch_ms_alone": round(1000 * statistics.median(kept_s), 1),
            "fetch_ms_alone_with_texts": round(1000 * statistics.median(texts_s), 1),
            "acknowledge_ms": round(1000 * statistics.median(ack_s), 1),
            "bytes_ids": sizes["ids"],
            "bytes_with_texts": sizes["problems"],
            "size_ratio": round(sizes["problems"] / sizes["ids"], 1),
            "import_s": round(imports["import paced"], 3),
            "import_client_s": round(imports["from paced import Client"], 3),
        },
    }


def _loop(client: Client, n_steps: int) -> list[float]:
    """Seconds that each step but the first waited for its batch."""
    stream = BatchStream(client, "c", "loop", SIZE)
    waits: list[float] = []
    draws = iter(DataLoader(stream, batch_size=None, num_workers=N_WORKERS))
    for _ in range(n_steps + 1):
        started = time.perf_counter()
        draw = next(draws)
        waits.append(time.perf_counter() - started)
        time.sleep(STEP_S)
        stream.acknowledge(draw)
    return waits[1:]


def _fetches(client: Client, curriculum: str, n: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds for a batch with texts, for one of ids with kept texts, and for acknowledging one; in turns."""
    acknowledged: list[float] = []

    def timed(fetch: Callable[[], wire.Batch]) -> float:
        started = time.perf_counter()
        batch = fetch()
        took = time.perf_counter() - started
        assert batch.problems is not None
        started = time.perf_counter()
        client.acknowledge(batch.batch_id)
        acknowledged.append(time.perf_counter() - started)
        return took

    whole: list[float] = []
    kept: list[float] = []
    for _ in range(n):
        whole.append(timed(lambda: client.draw_batch(curriculum, SIZE)))
        kept.append(timed(lambda: client.with_texts(client.draw_batch(curriculum, SIZE, include="ids"))))
    return whole, kept, acknowledged


def _bytes(client: Client, curriculum: str) -> dict[str, int]:
    batch = client.draw_batch(curriculum, SIZE, include="ids")
    headers = {"Authorization": f"Bearer {client.key}"}
    url = f"{client.url}/v1/batches/{batch.batch_id}"
    ways = ("ids", "problems")
    return {way: len(httpx2.get(url, params={"include": way}, headers=headers).content) for way in ways}


def _import_s(statement: str) -> float:
    command = [sys.executable, "-c", TIMED.format(statement)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(5)]
    return statistics.median(float(done.stdout) for done in runs)


def _build(client: Client, folder: Path, n_problems: int) -> str:
    rows = (
        {"question": _text(f"{i} baskets.", QUESTION_CHARS), "answer": f"{_text('So', SOLUTION_CHARS)} #### {i}"}
        for i in range(n_problems)
    )
    file = folder / "problems.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    client.create_problem_set(wire.ProblemSetCreate(name="p", grader=wire.GraderName.MATH))
    client.import_problems("p", file, near_twins="off")
    client.create_student(wire.StudentCreate(name="s"))
    client.register_checkpoint("s", wire.CheckpointCreate(uri="/m/0"))
    profile = client.create_profile(wire.ProfileCreate())
    body = wire.CurriculumCreate(name="c", student="s", problem_set="p", profile_id=profile.profile_id)
    return client.create_curriculum(body).curriculum_id


def _text(start: str, n_chars: int) -> str:
    words = "a farmer sells what the hens lay each morning at the market for two dollars "
    return f"{start} {words * (n_chars // len(words) + 1)}"[:n_chars]


@contextmanager
def _service(folder: Path) -> Iterator[Client]:
    command = [sys.executable, "-m", "paced", "serve", "--data", str(folder / "data"), "--port", "0", "--json"]
    environment = {"PACED_ADMIN_KEY": KEY, "PACED_LOG_LEVEL": "error"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    try:
        assert process.stdout is not None
        with Client(json.loads(process.stdout.readline())["url"], KEY) as client:
            yield client
    finally:
        process.terminate()
        process.wait(30)
