"""Style sheet and scripts, under an address that holds a hash of them all, so that browsers keep them for good."""

import gzip
import hashlib
import mimetypes
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.errors import NotFound

router = APIRouter(include_in_schema=False)
FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
PLOTLY = "plotly.min.js"


@cache
def contents() -> dict[str, bytes]:
    """Files of `static`, and the plotly.js that the plotly package ships, by name."""
    folder = files("app.dashboard").joinpath("static")
    found = {item.name: item.read_bytes() for item in folder.iterdir() if item.is_file()}
    return {**found, PLOTLY: files("plotly").joinpath(f"package_data/{PLOTLY}").read_bytes()}


@cache
def version() -> str:
    """A hash of all contents: modules name each other by relative addresses, and stay of one version."""
    whole = hashlib.blake2b(digest_size=8)
    for name, content in sorted(contents().items()):
        whole.update(name.encode() + b"\x00" + content)
    return whole.hexdigest()


@cache
def _zipped(name: str) -> bytes:
    return gzip.compress(contents()[name], 6)


def static(name: str) -> str:
    """The address of a file."""
    if name not in contents():
        raise KeyError(f"app/dashboard/static has no {name}")
    return f"/static/{version()}/{name}"


@router.get("/static/{_version}/{name}")
def serve(request: Request, _version: str, name: str) -> Response:
    """One file; older addresses lead to what there is now."""
    if name not in contents():
        raise NotFound(f"there is no file {name!r} here; load the page again")
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    headers = {**FOR_EVER, "X-Content-Type-Options": "nosniff"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(_zipped(name), media_type=media_type, headers={**headers, "Content-Encoding": "gzip"})
    return Response(contents()[name], media_type=media_type, headers=headers)
