"""Importing a training file of a few distinct problems repeated many times, over HTTP into `paced serve` on SQLite.

The file is shaped like verl's DAPO-Math set: about 17,000 distinct problems, made by changing numbers in a real sample
(PACED_TEST_DATA, dapo_math_sample.jsonl; made-up problems without it), in 1.8 million rows. A repeated row differs in
white space or wrapper from its twin in three of four cases, so equal lines do not do the work. The service is a process
of its own with default settings, near-twins included; its peak memory is VmHWM. The other side is what polars takes to
read the same file into a data frame: `ratio_to_polars` is the import's time over that time.
"""

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paced import Client, wire

N_ROWS, N_DISTINCT = 1_800_000, 17_000
SMALL_ROWS, SMALL_DISTINCT = 60_000, 1_700
SEED = 7
PREFIXES = ("", "Please solve the following math problem: ", "Solve the following math problem step by step.\n\n")
SUFFIXES = (
    "",
    " ",
    "\n\nPlease reason step by step, and put your final answer within \\boxed{}.",
    " Let's think step by step and output the final answer within \\boxed{}.",
)
WRAPPED = re.compile(
    r"Please solve the following math problem: (.*?)\. The assistant first thinks about the reasoning process",
    re.DOTALL,
)
NUMBER = re.compile(r"(?<![\d.\\^_{])\d{1,3}(?![\d.}])")


def run(small: bool) -> dict[str, Any]:
    """Rows a second, peak memory of the service, and time over polars' time to read the file."""
    n_rows, n_distinct = (SMALL_ROWS, SMALL_DISTINCT) if small else (N_ROWS, N_DISTINCT)
    with tempfile.TemporaryDirectory(prefix="paced-bench-") as folder:
        path = Path(folder) / "train.jsonl"
        source = write_rows(path, n_rows, n_distinct)
        polars_s = _time_polars(path)
        with _serving(Path(folder) / "data") as (process_id, url, key):
            started = time.perf_counter()
            with Client(url, key) as client:
                client.create_problem_set(wire.ProblemSetCreate(name="bench"))
                report = client.import_problems("bench", path)
            import_s = time.perf_counter() - started
            peak_mb = _peak_mb(process_id)
        size_mb = path.stat().st_size / 1e6
    if report.n_rows != n_rows or report.n_refused:
        raise RuntimeError(f"{report.n_rows} rows read, {report.n_refused} refused, of {n_rows}")
    rows = [
        {"side": "paced", "time_s": round(import_s, 2), "rows_per_s": round(n_rows / import_s)},
        {"side": "polars", "time_s": round(polars_s, 2), "rows_per_s": round(n_rows / polars_s)},
    ]
    figures = {
        "rows_per_s": round(n_rows / import_s),
        "peak_rss_mb": round(peak_mb, 1),
        "ratio_to_polars": round(import_s / polars_s, 2),
        "n_imported": report.n_imported,
        "n_twins": report.n_twins,
        "n_flagged": report.n_flagged,
        "n_near_twins": report.n_near_twins,
    }
    settings = {"n_rows": n_rows, "n_distinct": n_distinct, "file_mb": round(size_mb, 1), "sample": source}
    return {"settings": settings, "rows": rows, "figures": figures}


def write_rows(path: Path, n_rows: int, n_distinct: int) -> str:
    """Write a verl-shaped file; returns the name of the sample that its problems come from."""
    rng = random.Random(SEED)
    texts, source = _sample()
    problems = _vary(texts, n_distinct, rng)
    with path.open("w") as file:
        for index in range(n_rows):
            text, answer = problems[index] if index < n_distinct else problems[rng.randrange(n_distinct)]
            kind = rng.randrange(4)
            if kind == 1:
                text = text.replace(" ", "  ", 3)
            elif kind:
                text = rng.choice(PREFIXES) + text + rng.choice(SUFFIXES)
            file.write(json.dumps(_row(text, answer, index), ensure_ascii=False) + "\n")
    return source


def _sample() -> tuple[list[tuple[str, str]], str]:
    folder = os.environ.get("PACED_TEST_DATA")
    path = Path(folder, "dapo_math_sample.jsonl") if folder else None
    if path is None or not path.exists():
        made = "A shop sells pens at {} coins and books at 7 coins. Ada buys 12 of each and pays with {} coins. Change?"
        return [(made.format(3 + n, 500 + n), str(n)) for n in range(1000)], "made up"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    pairs = [(row["prompt"][0]["content"], row["reward_model"]["ground_truth"]) for row in rows]
    bare = [(found[1] if (found := WRAPPED.search(text)) else text, answer) for text, answer in pairs]
    return bare, path.name


def _vary(texts: list[tuple[str, str]], n: int, rng: random.Random) -> list[tuple[str, str]]:
    """The texts, then the same with other numbers: `n` distinct ones."""
    made = dict(texts[:n])
    numbered = [text for text, _ in texts if NUMBER.search(text)]
    while len(made) < n:
        text = NUMBER.sub(lambda found: str(int(found[0]) + rng.randrange(1, 500)), rng.choice(numbered))
        made.setdefault(text, str(rng.randrange(1000)))
    return list(made.items())


def _row(text: str, answer: str, index: int) -> dict[str, Any]:
    return {
        "data_source": "math_dapo",
        "prompt": [{"content": text, "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": index},
    }


def _time_polars(path: Path) -> float:
    """Seconds that a process of its own needs for the read, without starting."""
    clock = "time.perf_counter()"
    code = f"import polars, sys, time; t = {clock}; polars.read_ndjson(sys.argv[1]); print({clock} - t)"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    return float(done.stdout)


@contextmanager
def _serving(data: Path) -> Iterator[tuple[int, str, str]]:
    """A service process: its id, address and key."""
    command = [sys.executable, "-m", "paced", "serve", "--data", str(data), "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        yield process.pid, said["url"], Path(said["key_file"]).read_text().strip()
    finally:
        process.terminate()
        process.wait(30)


def _peak_mb(process_id: int) -> float:
    for line in Path(f"/proc/{process_id}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("needs Linux: /proc/PID/status holds no VmHWM")
