"""A real model over real HTTP in the shape of vLLM's completions, for tests: its log-probabilities are the model's."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from worker.distill.model import load_model, load_tokenizer

Body = dict[str, Any]


@dataclass
class Serving:
    """A running server; `alter` may change an answer before it is sent, `n_scored` counts scored prompts."""

    folder: Path
    url: str = ""
    max_logprobs: int = 20
    key: str | None = None
    alter: Callable[[Body], Body] = lambda answer: answer
    stuck: threading.Event | None = None
    n_scored: int = 0
    n_written: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.model = load_model(self.folder, torch.float32, torch.device("cpu"))
        self.tokenizer = load_tokenizer(self.folder)

    def models(self) -> Body:
        return {"data": [{"id": self.folder.name, "max_model_len": 1024}]}

    @torch.no_grad()
    def completion(self, body: Body) -> Body:
        is_text = isinstance(body["prompt"], str)
        ids = self.tokenizer.encode(body["prompt"], add_special_tokens=False) if is_text else body["prompt"]
        with self.lock:
            choices = [self._written(ids, body, number) for number in range(body.get("n", 1))]
            choices[0]["prompt_token_ids"] = ids
            if "prompt_logprobs" in body:
                choices[0]["prompt_logprobs"] = self._scored(ids, body["prompt_logprobs"])
                self.n_scored += 1
            else:
                self.n_written += 1
        return self.alter({"choices": choices})

    def _scored(self, ids: list[int], top_k: int) -> list[Any]:
        lp = self.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        places: list[Any] = [None]
        for row, own in zip(lp[:-1], ids[1:], strict=True):
            listed = dict.fromkeys([own, *row.topk(top_k).indices.tolist()])
            places.append({str(t): {"logprob": float(row[t]), "decoded_token": None} for t in listed})
        return places

    def _written(self, ids: list[int], body: Body, number: int) -> Body:
        generator = torch.Generator().manual_seed((body.get("seed") or 0) + number)
        written: list[int] = []
        while len(written) < body["max_tokens"] and not (written and written[-1] in body.get("stop_token_ids", [])):
            logits = self.model(torch.tensor([ids + written])).logits[0, -1].float() / max(body["temperature"], 1e-3)
            written.append(int(torch.multinomial(logits.softmax(-1), 1, generator=generator)))
        is_cut = written[-1] not in body.get("stop_token_ids", [])
        text = self.tokenizer.decode(written, skip_special_tokens=True)
        return {"index": number, "text": text, "token_ids": written, "finish_reason": "length" if is_cut else "stop"}


@contextlib.contextmanager
def serving(folder: Path, **fields: Any) -> Iterator[Serving]:
    """Serve the model in a folder until the block ends."""
    made = Serving(folder, **fields)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._send(200, made.models()) if self.path == "/v1/models" else self._refuse(404, "Not Found")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if made.stuck is not None:
                made.stuck.wait(30)
            if made.key is not None and self.headers.get("Authorization") != f"Bearer {made.key}":
                self._refuse(401, "Unauthorized")
            elif body.get("prompt_logprobs", 0) > made.max_logprobs:
                wanted = body["prompt_logprobs"]
                self._refuse(400, f"Requested prompt logprobs of {wanted}, which is greater than max allowed")
            else:
                self._send(200, made.completion(body))

        def _refuse(self, status: int, message: str) -> None:
            self._send(status, {"error": {"message": message}})

        def _send(self, status: int, body: Body) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):  # who asked has gone
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        if made.stuck is not None:
            made.stuck.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
