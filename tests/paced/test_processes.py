"""A client in worker processes: forked or spawned, none speaks on another's connection."""

import json
import multiprocessing
import os
import pickle
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.pool import ThreadPool
from typing import Any

import httpx2
import pytest

from paced import Client

N_PROCESSES, N_CALLS = 4, 20


@dataclass
class Seen:
    """Which processes spoke on which connection."""

    url: str = ""
    pids: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))


@pytest.fixture
def seen() -> Iterator[Seen]:
    """A server that answers `GET /v1/students/PID` and notes the connection."""
    found = Seen()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            pid = self.path.rpartition("/")[2]
            found.pids[self.client_address[1]].add(pid)
            shown = {"name": pid, "description": "", "latest_checkpoint": None, "created_at": "2026-11-25T08:00:00Z"}
            body = json.dumps(shown).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()


def ask(client: Client) -> None:
    """Each answer must be the one to this process's question."""
    name = str(os.getpid())
    for _ in range(N_CALLS):
        assert client.student(name).name == name


def ask_and_close(client: Client) -> None:
    with client:
        ask(client)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_open_connections_of_their_own(seen: Seen, method: str) -> None:
    context = multiprocessing.get_context(method)
    with Client(seen.url, retry_s=0.0) as client:
        ask(client)
        workers = [context.Process(target=ask_and_close, args=(client,)) for _ in range(N_PROCESSES)]
        for worker in workers:
            worker.start()
            ask(client)
        for worker in workers:
            worker.join(60)
        ask(client)  # its connection outlived the children, who closed theirs
    assert [worker.exitcode for worker in workers] == [0] * N_PROCESSES
    assert all(len(pids) == 1 for pids in seen.pids.values())
    spoke = {pid for pids in seen.pids.values() for pid in pids}
    assert spoke == {str(os.getpid()), *(str(worker.pid) for worker in workers)}
    of_parent = [port for port, pids in seen.pids.items() if str(os.getpid()) in pids]
    assert len(of_parent) == 1, "the parent's connection was closed by a child"


def test_a_fork_while_other_threads_are_sending(seen: Seen) -> None:
    """A child that inherited a lock held by one of the parent's threads would hang."""
    context = multiprocessing.get_context("fork")
    with Client(seen.url, retry_s=0.0) as client, ThreadPool(4) as threads:
        for _ in range(5):
            sending = threads.map_async(ask, [client] * 4)
            workers = [context.Process(target=ask, args=(client,)) for _ in range(2)]
            for worker in workers:
                worker.start()
            sending.get(30)
            for worker in workers:
                worker.join(30)
            assert [worker.exitcode for worker in workers] == [0, 0]


def test_connections_are_pooled(seen: Seen) -> None:
    with Client(seen.url, retry_s=0.0) as client:
        ask(client)
        assert len(seen.pids) == 1
        with ThreadPool(6) as threads:
            threads.map(ask, [client] * 6)
    assert len(seen.pids) <= 6


def test_a_copy_keeps_how_the_client_was_made(tmp_path: Any) -> None:
    with (
        Client("http://far:1", "secret", timeout_s=3.0, retry_s=7.0, texts=tmp_path / "texts") as client,
        pickle.loads(pickle.dumps(client)) as copy,
    ):
        assert (copy.url, copy.key) == ("http://far:1", "secret")
        assert copy._transport.target == client._transport.target
        assert copy._texts.file == tmp_path / "texts"
        assert copy._transport._http is not client._transport._http
        assert copy._transport._http.timeout == httpx2.Timeout(3.0)
