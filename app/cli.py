"""Commands of the service: serve, migrate, rebuild, replay."""

import asyncio
import dataclasses
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.errors import AppError
from app.settings import Settings

if TYPE_CHECKING:
    from app.flow.estimates.rebuild import Rebuilt
    from app.flow.estimates.replay import Scores

Data = Annotated[Path | None, typer.Option(help="Folder of the SQLite file and the keys", envvar="PACED_DATA")]
DatabaseUrl = Annotated[
    str | None, typer.Option(help="postgresql://... instead of SQLite in the data folder", envvar="PACED_DATABASE")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object when ready")]


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.command()(serve)
    cli.command()(migrate)
    cli.command()(rebuild)
    cli.command()(replay)


def serve(
    data: Data = None,
    database: DatabaseUrl = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the service. SQLite in --data by default; the first admin key is written there too.

    Other settings come from PACED_* variables (docs/settings.md).
    """
    import uvicorn

    from app.auth.guard import SIGN_IN
    from app.main import create_app
    from app.telemetry import configure_logs

    settings = _settings(data=data, database=database, host=host, port=port, log_level=log_level)
    configure_logs(settings.log_level, as_json=settings.log_json)
    listener = _listen(settings.host, settings.port)
    app = create_app(settings)
    address = f"http://{settings.host}:{listener.getsockname()[1]}"
    key_file = settings.data.resolve() / "admin.key"
    said = {"url": address, "key_file": None if settings.admin_key else str(key_file)}
    where = "PACED_ADMIN_KEY is the admin key" if settings.admin_key else f"admin key in {key_file}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            text, _ = await app.state.sessions.link(app.state.admin_key)
            link = f"{address}{SIGN_IN}/{text}"
            if as_json:
                typer.echo(json.dumps({**said, "dashboard": link}))
            else:
                typer.echo(f"paced listens on {address}; {where}\ndashboard (works once, within an hour): {link}")

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.pulse.close()  # or open pages would hold the service up
            await super().shutdown(sockets)

    _check_schema(settings)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=10)
    Server(config).run(sockets=[listener])


def _check_schema(settings: Settings) -> None:
    """End with one plain line where the schema is not the one needed."""
    from app.db.migrate import SchemaMismatch, ensure_current

    settings.data.mkdir(parents=True, exist_ok=True)
    try:
        ensure_current(settings.database_url)
    except SchemaMismatch as error:
        typer.echo(f"error: {error.detail}", err=True)
        raise typer.Exit(1) from error


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise typer.BadParameter(f"cannot listen on {host}:{port}: {error.strerror}; take another --port") from error
    listener.listen(2048)
    return listener


def migrate(data: Data = None, database: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Bring the database's schema up to this version; stop every paced process and back it up first."""
    from app.db.migrate import upgrade

    settings = _settings(data=data, database=database)
    settings.data.mkdir(parents=True, exist_ok=True)
    upgrade(settings.database_url)
    shown = settings.database_url.render_as_string(hide_password=True)
    typer.echo(json.dumps({"database": shown, "schema": "head"}) if as_json else f"{shown} is at the newest schema")


def rebuild(
    data: Data = None,
    database: DatabaseUrl = None,
    check: Annotated[bool, typer.Option("--check", help="Only compare; exit code 1 on a difference")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array")] = False,
) -> None:
    """Make every estimate again from the observation log, bit for bit. Stop the service first, except with --check."""
    settings = _settings(data=data, database=database)
    _check_schema(settings)
    found = asyncio.run(_rebuild(settings, only_check=check))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(one) for one in found]))
    else:
        for one in found:
            what = f"{len(one.changed)} of {one.n_estimates} estimates, {one.n_abilities_changed} abilities"
            typer.echo(f"{one.measurement_id}: {one.n_observations} observations; {what} differed")
    if check and any(one.changed or one.n_abilities_changed for one in found):
        raise typer.Exit(1)


def replay(
    measurement: Annotated[str, typer.Argument(help="Measurement id, such as mea_1")],
    data: Data = None,
    database: DatabaseUrl = None,
    page: Annotated[Path | None, typer.Option("--html", help="Write tables and plots here as one page")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with calibration")] = False,
) -> None:
    """Score every estimator on the observation log: how well each forecast the next group of answers.

    Lower log loss is better. Take the best one for the curriculum: its `estimator` may change on a running one.
    Policies are scored too: what a draw by what was known before a checkpoint's answers would have been worth. `reach`
    is the share of the truly best fifth that it can draw, `waste` the share it spends on problems that then passed
    always or never, `recall` the share of the best fifth in a draw of a tenth.
    """
    from app.flow.estimates import plots

    settings = _settings(data=data, database=database)
    _check_schema(settings)
    try:
        found = asyncio.run(_replay(settings, measurement))
    except AppError as error:
        typer.echo(f"error: {error.detail}", err=True)
        raise typer.Exit(1) from error
    if page is not None:
        try:
            page.write_text(plots.page(found), encoding="utf-8")
        except OSError as error:
            raise typer.BadParameter(f"cannot write {page}: {error.strerror}; name another file") from error
    typer.echo(json.dumps(dataclasses.asdict(found)) if as_json else plots.text(found))


async def _replay(settings: Settings, measurement: str) -> "Scores":
    from app.db.engine import Database
    from app.flow.estimates.replay import ReplayStore
    from app.flow.rollouts.measurements import measurement_number

    async with Database(settings.database_url) as db:
        return await ReplayStore(db).score(measurement_number(measurement))


def _settings(**given: Any) -> Settings:
    return Settings(**{name: value for name, value in given.items() if value is not None})


async def _rebuild(settings: Settings, *, only_check: bool) -> "list[Rebuilt]":
    from app.db.engine import Database
    from app.flow.estimates.rebuild import RebuildStore

    async with Database(settings.database_url) as db:
        store = RebuildStore(db)
        method = store.check if only_check else store.rebuild
        return [await method(measurement_id) for measurement_id in await store.measurement_ids()]
