"""A service process on SQLite with a pool of measured problems, of any size."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from app.db.migrate import ensure_current
from app.settings import Settings
from paced import Client, wire

KEY = "benchmark-key"
N_SKILLS = 40
FILLING = """
WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n + 1 < :size)
INSERT INTO problems (problem_set, ordinal, fingerprint, prompt, answer, grader, tags, source, multiplicity, state,
    state_version, import_id, import_count, holdout_key, created_at)
SELECT 'p', n, printf('%032x', n), '"Compute ' || n || ' + 1."', n + 1, 'math', '["t' || (n % :skills) || '"]', 'made',
    1, 'ready', 0, 'imp', 1, (n * 40503) % 65536, :now
FROM i
"""
MEASURING = """
UPDATE estimates SET n_groups = 1, n_counted = 8, last_counted = 8, first_counted = 8, checkpoint_index = 0,
    n_passed = ordinal % 9, last_passed = ordinal % 9, first_passed = ordinal % 9, discounted_passed = ordinal % 9,
    discounted_failed = 8 - ordinal % 9, n_failed = 8 - ordinal % 9,
    logit_mean = (ordinal % 9 - 4) * 0.7, logit_variance = 0.6, alone_mean = (ordinal % 9 - 4) * 0.7,
    alone_variance = 0.6
"""


@contextmanager
def service(folder: Path, size: int) -> Iterator[tuple[Client, str]]:
    """A service process on a pool of measured problems; yields a client and the curriculum's id."""
    settings = Settings(data=folder)
    ensure_current(settings.database_url)
    _fill(folder / "paced.sqlite3", size)
    arguments = ["serve", "--data", str(folder), "--port", "0", "--json", "--log-level", "error"]
    command = [sys.executable, "-m", "paced", *arguments]
    environment = {**os.environ, "PACED_ADMIN_KEY": KEY}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            with Client(url, KEY, timeout_s=1800) as client:
                yield client, _curriculum(client, folder / "paced.sqlite3")
        finally:
            process.terminate()


def _curriculum(client: Client, database: Path) -> str:
    client.create_student(wire.StudentCreate(name="s"))
    client.register_checkpoint("s", wire.CheckpointCreate(uri="/m/0"))
    profile = client.create_profile(wire.ProfileCreate())
    body = wire.CurriculumCreate(name="c", student="s", problem_set="p", profile_id=profile.profile_id)
    made = client.create_curriculum(body)
    with closing(sqlite3.connect(database)) as conn, conn:
        conn.execute(MEASURING)
    return made.curriculum_id


def _fill(database: Path, size: int) -> None:
    """Problems straight into the tables: importing is another benchmark's business."""
    now = "2026-11-25 08:00:00.000000"
    with closing(sqlite3.connect(database)) as conn, conn:
        conn.execute(
            "INSERT INTO problem_sets (name, description, grader, policy, n_problems, n_flagged, n_rows, state_version,"
            " created_at) VALUES ('p', '', 'math', '{}', ?, 0, ?, 0, ?)",
            (size, size, now),
        )
        conn.execute(FILLING, {"size": size, "skills": N_SKILLS, "now": now})
