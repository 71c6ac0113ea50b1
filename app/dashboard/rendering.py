"""Templates to HTML, with headers under which the page can load nothing but what this service has."""

import datetime as dt
from typing import Any

import orjson
from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from app.dashboard.navigation import MENU
from app.dashboard.statics import static
from paced import __version__

OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS
THEMES = ("light", "dark")
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        # the sheet of a library of maps, which plotly.min.js 7.1 adds whether there is a map or not
        "style-src 'self' 'sha256-ji27qzEtxXZW+7dun6UwjHXJ18e6WAin1VvNtkzIE/o='",
        # and a style attribute that is empty, which it gives to the bar of a heat map's colours
        "style-src-attr 'unsafe-hashes' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='",
        "img-src 'self' data: blob:",  # Plotly draws a PNG by way of both
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}
STEPS = ((60.0, "s"), (60.0, "min"), (24.0, "h"), (365.0, "d"))


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page of a template; `session` and `now` are known to every one."""
    session = getattr(request.state, "session", None)
    theme = request.cookies.get("paced_theme", "")
    known = {
        "request": request,
        "session": session,
        "now": request.app.state.clock(),
        "theme": theme if theme in THEMES else "",
        "menu": MENU,
        "choice": None,
        "live": (),
    }
    text = ENVIRONMENT.get_template(template).render({**known, **values})
    return HTMLResponse(text, status_code=status, headers=HEADERS)


def as_json(content: Any) -> bytes:
    """JSON bytes of dataclasses, models, arrays and times; what is no number becomes null."""
    return orjson.dumps(content, option=OPTIONS, default=_plain)


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def data_block(content: Any) -> Markup:
    """JSON for a `script` element of data: no text in it can end the element."""
    return Markup(as_json(content).decode().replace("<", "\\u003c"))  # noqa: S704 - escaped here


def age(moment: dt.datetime | None, now: dt.datetime) -> str:
    """How long ago, in the largest unit that gives at least one."""
    if moment is None:
        return "never"
    left = max((now - moment).total_seconds(), 0.0)
    for size, unit in STEPS:
        if left < size:
            return f"{left:.0f} {unit} ago"
        left /= size
    return f"{left:.0f} y ago"


def number(value: float | None, digits: int = 3) -> str:
    """A number for reading: whole ones with thousands apart, others to some significant digits."""
    if value is None or value != value:
        return "–"
    if isinstance(value, int) or float(value).is_integer():
        return f"{value:,.0f}"
    rounded = float(f"{value:.{digits}g}")
    return f"{value:,.{digits}g}" if abs(rounded) < 10**digits else f"{value:,.0f}"


def exact(value: float) -> str:
    """A number that is read back as the same one."""
    return f"{value:.0f}" if float(value).is_integer() else repr(value)


def percent(value: float | None, digits: int = 0) -> str:
    """A share for reading."""
    return "–" if value is None or value != value else f"{100 * value:.{digits}f} %"


ENVIRONMENT = Environment(
    loader=PackageLoader("app.dashboard"),
    autoescape=True,
    auto_reload=False,  # templates and code of one version, though files change under a running process
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.globals.update(static=static, version=__version__)
ENVIRONMENT.filters.update(age=age, number=number, exact=exact, percent=percent, data_block=data_block)
