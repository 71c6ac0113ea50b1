"""A service that fails at random: 429, 500, connections reset before and after the work is done, answers that stall."""

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx2

FAULTS = {
    "429": "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
    "500": "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    "reset": "",  # before the service sees the request
    "lost": "",  # the service did the work, and the answer never arrives
    "cut": "",  # it breaks off in the middle
    "stall": "",
}


@dataclass
class Faulty:
    """Where the failing service is, and what it did so far: `passed` and each fault."""

    url: str
    share: float
    stall_s: float
    seed: int
    done: Counter[str] = field(default_factory=Counter)


@contextmanager
def faulty(upstream: str, share: float, stall_s: float, seed: int = 0) -> Iterator[Faulty]:
    """A proxy before `upstream` that spoils this share of the requests, each fault as often as the others."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    found = Faulty("", share, stall_s, seed)

    async def start() -> tuple[asyncio.Server, httpx2.AsyncClient]:
        http = httpx2.AsyncClient(base_url=upstream, timeout=60)
        proxy = _Proxy(found, http)
        return await asyncio.start_server(proxy.serve, "127.0.0.1", 0), http

    server, http = asyncio.run_coroutine_threadsafe(start(), loop).result()
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def stop() -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await http.aclose()

    try:
        yield found
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _Proxy:
    def __init__(self, settings: Faulty, http: httpx2.AsyncClient) -> None:
        self._settings = settings
        self._http = http
        self._random = random.Random(settings.seed)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer, or spoil, one request; returns whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        low = {name.lower(): value for name, value in headers.items()}
        body = await reader.readexactly(int(low.get("content-length", "0")))
        fault = self._random.choice(list(FAULTS)) if self._random.random() < self._settings.share else "passed"
        self._settings.done[fault] += 1
        if fault in {"429", "500"}:
            writer.write(FAULTS[fault].encode())
            return True
        if fault == "reset":
            return _reset(writer)
        kept = {name: value for name, value in headers.items() if name.lower() not in {"host", "connection"}}
        answer = await self._http.request(method, path, content=body, headers=kept)
        if fault == "lost":
            return _reset(writer)
        if fault == "stall":
            await asyncio.sleep(self._settings.stall_s)
        raw = [f"{name}: {value}" for name, value in answer.headers.items() if name.lower() != "connection"]
        start = "\r\n".join([f"HTTP/1.1 {answer.status_code} -", *raw, "", ""]).encode()
        if fault == "cut":
            writer.write(start + answer.content[: len(answer.content) // 2])
            await writer.drain()
            return _reset(writer)
        writer.write(start + answer.content)
        return True


def _reset(writer: asyncio.StreamWriter) -> bool:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False
