"""The OpenAI-compatible engine against a small real HTTP server."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from paced.wire import Message
from worker.rollout.engine import Answer, EngineDown, EngineFailure, EngineOptions, Sampling
from worker.rollout.openai_engine import OpenaiEngine

SAMPLING = Sampling(n=4, temperature=0.5, top_p=0.9, top_k=7, max_tokens=9, stop=("END",), seed=3)
CHAT = [Message(role="system", content="Be brief."), Message(role="user", content="Compute 1 + 1.")]
Reply = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


class Server(ThreadingHTTPServer):
    """Answers chat completions by `reply`; keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.reply: Reply = completion

    def handle_error(self, *arguments: object) -> None:
        """The engine hung up on work that it no longer needs."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._send(200, {"data": []})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self.server.keys.add(self.headers["Authorization"])
        self._send(*self.server.reply(body))

    def _send(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


def completion(body: dict[str, Any], n: int | None = None) -> tuple[int, dict[str, Any]]:
    n = body.get("n", 1) if n is None else n
    choices = [
        {"message": {"content": "2" * (i + 1)}, "finish_reason": "length" if i == 2 else "stop"} for i in range(n)
    ]
    return 200, {"choices": choices, "usage": {"completion_tokens": 10 * n}}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


async def ask(server: Server, sampling: Sampling = SAMPLING, **options: Any) -> list[Answer]:
    engine = OpenaiEngine(EngineOptions(**{"openai_url": server.url, "model": "m", "retry_s": 5.0, **options}))
    await engine.start()
    try:
        return await engine.generate(CHAT, sampling)
    finally:
        await engine.stop()


async def test_asks_once_for_all_answers(server: Server) -> None:
    answers = await ask(server, openai_key="secret")
    assert server.asked == [
        {
            "model": "m",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Compute 1 + 1."}],
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 7,
            "max_tokens": 9,
            "stop": ["END"],
            "seed": 3,
            "n": 4,
        }
    ]
    assert server.keys == {"Bearer secret"}
    assert [(answer.text, answer.is_truncated) for answer in answers] == [
        ("2", False), ("22", False), ("222", True), ("2222", False)
    ]  # fmt: skip
    assert sum(answer.n_tokens for answer in answers) == 40


async def test_a_server_that_gives_one_answer_is_asked_for_each(server: Server) -> None:
    server.reply = lambda body: completion(body, n=1)
    answers = await ask(server)
    assert answers == [Answer("2", 10, is_truncated=False)] * 4
    assert sorted(body["seed"] for body in server.asked) == [3, 4, 5, 6]


async def test_a_server_that_refuses_n_is_asked_for_each(server: Server) -> None:
    server.reply = lambda body: (400, {"error": {"message": "n must be 1"}}) if "n" in body else completion(body)
    assert len(await ask(server)) == 4
    assert len(server.asked) == 5


async def test_a_refused_prompt_is_a_failure_with_the_servers_words(server: Server) -> None:
    server.reply = lambda _: (400, {"error": {"message": "prompt of 9000 tokens is too long"}})
    with pytest.raises(EngineFailure, match="9000 tokens is too long"):
        await ask(server)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_tries_again_when_the_server_is_busy(server: Server, status: int) -> None:
    server.reply = lambda body: completion(body) if len(server.asked) > 2 else (status, {})
    assert len(await ask(server)) == 4
    assert len(server.asked) == 3


async def test_gives_up_on_a_server_that_stays_busy(server: Server) -> None:
    server.reply = lambda _: (503, {"error": "overloaded"})
    with pytest.raises(EngineFailure, match="stays busy: HTTP 503: overloaded"):
        await ask(server, retry_s=0.5)


async def test_a_wrong_key_ends_the_engine(server: Server) -> None:
    server.reply = lambda _: (401, {"error": {"message": "invalid key"}})
    with pytest.raises(EngineDown, match="invalid key"):
        await ask(server)


async def test_no_server_is_said_at_the_start() -> None:
    engine = OpenaiEngine(EngineOptions(openai_url="http://127.0.0.1:9/v1", model="m", retry_s=0.3))
    with pytest.raises(EngineDown, match="is the server running"):
        await engine.start()
    await engine.stop()


async def test_an_answer_that_is_no_completion_is_a_failure(server: Server) -> None:
    server.reply = lambda _: (200, {"text": "hello"})
    with pytest.raises(EngineFailure, match="not a chat completion"):
        await ask(server)


async def test_a_name_template_asks_for_each_checkpoint(server: Server) -> None:
    engine = OpenaiEngine(EngineOptions(openai_url=server.url, model="adapters/{name}"))
    await engine.start()
    for uri in ("/runs/a/step-1", "/runs/a/step-2/"):
        await engine.load_checkpoint(uri)
        await engine.generate(CHAT, SAMPLING)
    await engine.stop()
    assert [body["model"] for body in server.asked] == ["adapters/step-1", "adapters/step-2"]


async def test_a_fixed_name_serves_one_checkpoint(server: Server) -> None:
    engine = OpenaiEngine(EngineOptions(openai_url=server.url, model="m"))
    await engine.load_checkpoint("/runs/a/step-1")
    await engine.load_checkpoint("/runs/a/step-1")
    with pytest.raises(EngineFailure, match="cannot be told to load /runs/a/step-2"):
        await engine.load_checkpoint("/runs/a/step-2")
