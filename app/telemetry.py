"""Logs, request metrics, and the /metrics text."""

import logging
import sys
import time

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def configure_logs(level: str, *, as_json: bool) -> None:
    """Structured logs on standard error; standard output is left to answers."""
    renderer = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.format_exc_info] if as_json else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


class Telemetry:
    """Counters of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "paced_http_requests", "Requests by route and status", ["route", "method", "status"], registry=self.registry
        )
        self.durations = Histogram(
            "paced_http_request_seconds", "Time to answer", ["route", "method"], registry=self.registry
        )

    def text(self) -> bytes:
        """The Prometheus exposition."""
        return generate_latest(self.registry)


class TelemetryMiddleware:
    """Counts and times each request under its route's template (pure ASGI)."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self.app = app
        self.telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Time one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            labels = {"route": route, "method": scope["method"]}
            self.telemetry.requests.labels(**labels, status=status).inc()
            self.telemetry.durations.labels(**labels).observe(time.perf_counter() - started)
