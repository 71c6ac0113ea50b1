"""A real service in a thread of the test's process, and real PostgreSQL databases to put under it."""

import contextlib
import datetime as dt
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psycopg
import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import make_url

from app.main import create_app
from app.settings import Settings
from paced import Client

ADMIN_KEY = "admin-key-of-the-tests"


class TestClock:
    """Real time plus whatever a test adds."""

    __test__ = False

    def __init__(self) -> None:
        self.ahead = dt.timedelta()

    def __call__(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC) + self.ahead

    def advance(self, seconds: float) -> None:
        self.ahead += dt.timedelta(seconds=seconds)


@dataclass(frozen=True)
class Service:
    """Where a running service is."""

    url: str
    settings: Settings
    app: FastAPI

    def client(self, key: str | None = ADMIN_KEY, retry_s: float = 0.0) -> Client:
        return Client(self.url, key, retry_s=retry_s)


@contextlib.contextmanager
def serve(data: Path, database: str | None, clock: TestClock | None = None, **settings: object) -> Iterator[Service]:
    """Run a service until the block ends; stopping and serving again on the same folder is a restart."""
    defaults: dict[str, object] = {"admin_key": ADMIN_KEY, "idle_retry_s": 0.05}
    made = Settings(data=data, database=database, **{**defaults, **settings})
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    app = create_app(made, clock or TestClock())
    config = uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive(), "the service stopped while starting"
        assert time.monotonic() < deadline, "the service did not start"
        time.sleep(0.005)
    try:
        yield Service(f"http://127.0.0.1:{listener.getsockname()[1]}", made, app)
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


@contextlib.contextmanager
def postgres_databases() -> Iterator[str]:
    """A fresh, empty PostgreSQL database, dropped at the end."""
    server = postgres_server()
    name = f"paced_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(f'CREATE DATABASE "{name}"')
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with psycopg.connect(server, autocommit=True) as conn:
            conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@cache
def postgres_server() -> str:
    """URL of a PostgreSQL server: PACED_TEST_POSTGRES, the one on this machine, or one started here."""
    given = os.environ.get("PACED_TEST_POSTGRES")
    for url in [given] if given else ["postgresql://postgres@127.0.0.1:5432/postgres"]:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(url, connect_timeout=3).close()
            return url
    started = None if given else _start_postgres()
    if started is None:
        pytest.skip("needs PostgreSQL: install it (Debian: apt-get install postgresql) or set PACED_TEST_POSTGRES")
    return started


def _start_postgres() -> str | None:
    """Start a throw-away server; PostgreSQL refuses to run as root, so root hands it to the user postgres."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = str(found[-1]) if found else shutil.which("initdb")
    if initdb is None:
        return None
    folder = Path(tempfile.mkdtemp(prefix="paced-postgres-"))
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cluster = str(folder / "cluster")
    pg_ctl = str(Path(initdb).with_name("pg_ctl"))
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    subprocess.run([*as_user, initdb, "-D", cluster, "-U", "postgres", "-A", "trust"], check=True, capture_output=True)
    subprocess.run([*as_user, pg_ctl, "-D", cluster, "-o", options, "-w", "-l", f"{folder}/log", "start"], check=True)
    import atexit

    atexit.register(subprocess.run, [*as_user, pg_ctl, "-D", cluster, "-m", "immediate", "stop"], check=False)
    return f"postgresql://postgres@127.0.0.1:{port}/postgres"
