"""What a worker shows while it runs: one live line in a terminal, a log line now and then elsewhere."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from rich.console import Console

from worker.rollout.tally import Tally

LIVE_S = 0.5
LOG_S = 30.0

log = structlog.get_logger(__name__)


class _ConsoleFile:
    """Lets log lines pass above the live line."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def write(self, text: str) -> None:
        self._console.print(text, end="", markup=False, highlight=False, soft_wrap=True)

    def flush(self) -> None:
        """Rich flushes by itself."""


def configure_logs(console: Console) -> None:
    """Send log lines to the console: coloured in a terminal, one JSON object a line elsewhere."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=False) if console.is_terminal else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        logger_factory=structlog.WriteLoggerFactory(file=_ConsoleFile(console)),  # type: ignore[arg-type]
    )


@contextlib.asynccontextmanager
async def shown(tally: Tally, console: Console) -> AsyncIterator[None]:
    """Show the tally until the block ends."""
    showing = asyncio.create_task(_live(tally, console) if console.is_terminal else _logged(tally))
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.wait({showing})


async def _live(tally: Tally, console: Console) -> None:
    with console.status(summary(tally)) as status:
        while True:
            await asyncio.sleep(LIVE_S)
            status.update(summary(tally))


async def _logged(tally: Tally) -> None:
    shown = ""
    while True:
        await asyncio.sleep(LOG_S)
        if summary(tally) != shown:  # an idle worker is silent
            shown = summary(tally)
            log.info("progress", **tally.as_dict())


def summary(tally: Tally) -> str:
    """The tally in one line."""
    verdicts = ", ".join(f"{n} {verdict}" for verdict, n in tally.verdicts.most_common())
    lost = f", {tally.n_leases_lost} leases lost" if tally.n_leases_lost else ""
    checkpoint = "loading" if tally.checkpoint_index is None else f"checkpoint {tally.checkpoint_index}"
    return (
        f"{checkpoint}: {tally.n_groups} problems, {tally.n_rollouts} answers ({verdicts or 'none yet'}), "
        f"{tally.tokens_per_s:.0f} tokens/s, {tally.n_in_flight} in flight{lost}"
    )
