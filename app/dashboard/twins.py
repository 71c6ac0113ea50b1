"""One view, three forms: HTML at its path, JSON at `path.json`, CSV at `path.csv`."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.responses import Response

from app.auth.guard import requires
from app.dashboard.figures import Figure
from app.dashboard.rendering import as_json, render
from paced.wire import Scope

View = TypeVar("View", bound=Callable[..., Any])
MEDIA_TYPES = {"json": "application/json", "csv": "text/csv; charset=utf-8"}


def page(
    router: APIRouter,
    path: str,
    template: str,
    *,
    rows: type | None = None,
    figures: Callable[[Any], Mapping[str, Figure]] | None = None,
    live: Sequence[str] = (),
    scope: Scope = Scope.READ,
) -> Callable[[View], View]:
    """Serve what the decorated view returns.

    `rows` is the class of the items in its field `rows`, which are the CSV; `figures` makes the figures of the HTML;
    `live` names the topics of `live.TOPICS` that change the page.
    """
    formats = ["json", "csv"] if rows is not None else ["json"]

    def decorate(view: View) -> View:
        found_by = Annotated[Any, Depends(view)]

        async def html(request: Request, found: found_by) -> Response:
            made = {} if figures is None else figures(found)
            twins = {name: _twin(request, name) for name in formats}
            choice = getattr(found, "choice", None)
            return render(request, template, found=found, figures=made, choice=choice, live=live, twins=twins)

        async def json(found: found_by) -> Response:
            return Response(as_json(found), media_type=MEDIA_TYPES["json"])

        async def table(request: Request, found: found_by) -> Response:
            assert rows is not None
            name = request.url.path.rpartition("/")[2]
            headers = {"Content-Disposition": f'attachment; filename="{name}"'}
            return Response(as_csv(rows, found.rows), media_type=MEDIA_TYPES["csv"], headers=headers)

        endpoints: dict[str, Callable[..., Any]] = {".json": json}
        if rows is not None:
            endpoints[".csv"] = table
        for suffix, endpoint in {**endpoints, "": html}.items():  # a name in the path would swallow the suffix
            router.add_api_route(path + suffix, endpoint, dependencies=[requires(scope)], include_in_schema=False)
        return view

    return decorate


def _twin(request: Request, suffix: str) -> str:
    query = f"?{request.url.query}" if request.url.query else ""
    return f"{request.url.path}.{suffix}{query}"


def as_csv(kind: type, rows: Iterable[Any]) -> str:
    """A header of the class's fields and a line a row; lists within a cell are spaced, nested ones JSON."""
    fields = list(kind.model_fields) if issubclass(kind, BaseModel) else list(kind.__annotations__)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([_cell(getattr(row, name)) for name in fields] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, str | int | float) for item in value):
        return " ".join(str(item) for item in value)
    return as_json(value).decode().strip('"')
