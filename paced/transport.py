"""One HTTP exchange with the service: authentication, retries with back-off and Retry-After, typed errors."""

from typing import Any

import httpx2
import stamina

from paced.errors import Unreachable, api_error

RETRIED_STATUS = frozenset({429, 502, 503, 504})
MAX_RETRY_AFTER_S = 60.0


class _TryAgain(Exception):
    """An answer that asks for a retry; `retry_after_s` is the service's own wish, or None."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self.retry_after_s = _seconds(response.headers.get("Retry-After"))


def _seconds(header: str | None) -> float | None:
    try:
        return min(max(float(header), 0.0), MAX_RETRY_AFTER_S) if header is not None else None
    except ValueError:
        return None  # an HTTP date: fall back to our own back-off


def _backoff(error: Exception) -> bool | float:
    if isinstance(error, _TryAgain):
        return True if error.retry_after_s is None else error.retry_after_s
    return isinstance(error, httpx2.TransportError)


class Transport:
    """Sends requests until one is answered; safe to share between threads.

    `timeout_s` bounds one try, `retry_s` the time over all tries (0 means one try). Retrying is safe
    because every creating POST carries an Idempotency-Key. Raises Unreachable and ApiError.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        timeout_s: float = 60.0,
        retry_s: float = 120.0,
        http_transport: httpx2.BaseTransport | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.url = url.rstrip("/")
        self.key = key
        self.retry_s = retry_s
        self._http = httpx2.Client(base_url=self.url, headers=headers, timeout=timeout_s, transport=http_transport)

    def close(self) -> None:
        """Close the pooled connections."""
        self._http.close()

    def exchange(self, method: str, path: str, **arguments: Any) -> httpx2.Response:
        """Send one request and return its successful answer."""
        try:
            response = self._retried(method, path, arguments)
        except _TryAgain as error:
            response = error.response
        except httpx2.TransportError as error:
            raise Unreachable(
                f"no answer from {self.url} ({type(error).__name__}: {error}). "
                "Is `paced serve` running there? `paced doctor` checks."
            ) from error
        if response.is_success or response.status_code == 304:
            return response
        raise api_error(response.status_code, _json_object(response))

    def _retried(self, method: str, path: str, arguments: dict[str, Any]) -> httpx2.Response:
        if self.retry_s <= 0:
            return self._http.request(method, path, **arguments)
        attempts = stamina.retry_context(
            on=_backoff, attempts=None, timeout=self.retry_s, wait_initial=0.1, wait_max=5.0, wait_jitter=0.5
        )
        for attempt in attempts:
            with attempt:
                response = self._http.request(method, path, **arguments)
                if response.status_code in RETRIED_STATUS:
                    raise _TryAgain(response)
                return response
        raise AssertionError("stamina either returns or raises")


def _json_object(response: httpx2.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {"detail": f"the service answered HTTP {response.status_code}: {response.text[:200]!r}"}
    return body if isinstance(body, dict) else {}
