"""Requests to an OpenAI-compatible URL: 429, 5xx and lost connections are tried again for a while."""

from typing import Any

import httpx2
import stamina

from worker.rollout.engine import EngineDown, EngineFailure

RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})
MAX_RETRY_AFTER_S = 60.0


class _Busy(Exception):
    """An answer that asks for another try."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        super().__init__(reason(response))
        self.retry_after_s = _seconds(response.headers.get("Retry-After"))


class Exchange:
    """One server: an answer may take `timeout_s`, trying again `retry_s`; the caller bounds what is in flight."""

    def __init__(self, url: str, key: str | None, timeout_s: float, retry_s: float) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._retry_s = retry_s
        self._http = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(timeout_s, connect=min(10.0, timeout_s)),
            limits=httpx2.Limits(max_connections=None),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def request(self, method: str, path: str, body: dict[str, Any] | None) -> httpx2.Response:
        """The answer, whatever its status. Raises EngineFailure, and EngineDown where there is no server."""
        try:
            return await self._retried(method, path, body)
        except _Busy as error:
            raise EngineFailure(f"{self.url} stays busy: {reason(error.response)}") from error
        except httpx2.ReadTimeout as error:
            raise EngineFailure(f"no answer from the server in {self._timeout_s:.0f} s") from error
        except httpx2.TransportError as error:
            raise EngineDown(
                f"no answer from {self.url} ({type(error).__name__}: {error}); is the server running?"
            ) from error

    async def _retried(self, method: str, path: str, body: dict[str, Any] | None) -> httpx2.Response:
        attempts = stamina.retry_context(
            on=_backoff, attempts=None, timeout=self._retry_s, wait_initial=0.2, wait_max=10.0, wait_jitter=0.5
        )
        async for attempt in attempts:
            with attempt:
                response = await self._http.request(method, self.url + path, json=body)
                if response.status_code in RETRIED_STATUS:
                    raise _Busy(response)
                return response
        raise AssertionError("stamina either returns or raises")


def reason(response: httpx2.Response) -> str:
    """The server's own words, with the status."""
    try:
        error = response.json()["error"]
        return f"HTTP {response.status_code}: {error['message'] if isinstance(error, dict) else error}"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}: {response.text[:200]!r}"


def _backoff(error: Exception) -> bool | float:
    if isinstance(error, _Busy):
        return True if error.retry_after_s is None else error.retry_after_s
    return isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.ReadTimeout)


def _seconds(header: str | None) -> float | None:
    try:
        return min(max(float(header), 0.0), MAX_RETRY_AFTER_S) if header is not None else None
    except ValueError:
        return None
