"""Lists in pages: opaque cursors, a limit, and a Link header to the next page."""

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.errors import Invalid
from paced.wire import Page

T = TypeVar("T")
MAX_LIMIT = 1000


class PageQuery(BaseModel):
    """Query parameters of every list; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid")

    cursor: Annotated[str | None, Field(max_length=500, description="`next_cursor` of the page before")] = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="Items a page")] = 100

    def after(self, kind: type[T]) -> T | None:
        """The position that the cursor stands for, or None at the start."""
        if self.cursor is None:
            return None
        try:
            position = orjson.loads(base64.urlsafe_b64decode(self.cursor.encode()))
        except (binascii.Error, ValueError) as error:
            raise _bad_cursor() from error
        is_huge = isinstance(position, int) and abs(position) >= 2**63
        if not isinstance(position, kind) or isinstance(position, bool) or is_huge:
            raise _bad_cursor()
        return position


class NoQuery(BaseModel):
    """For routes without query parameters: any is refused."""

    model_config = ConfigDict(extra="forbid")


def _bad_cursor() -> Invalid:
    return Invalid("the cursor is not one that this list gave out; start again without it", code="bad_cursor")


def page(request: Request, response: Response, items: Sequence[T], limit: int, position: str) -> Page[T]:
    """A page from up to `limit + 1` items; the attribute `position` of the last one becomes the cursor."""
    kept = list(items[:limit])
    cursor = None
    if len(items) > limit:
        cursor = cursor_at(getattr(kept[-1], position))
        response.headers.update(link_next(request, cursor))
    return Page(items=kept, next_cursor=cursor)


def cursor_at(position: Any) -> str:
    """The cursor of the page that begins after a position."""
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode()


def link_next(request: Request, cursor: str) -> dict[str, str]:
    """The header that leads to the next page."""
    return {"Link": f'<{request.url.include_query_params(cursor=cursor)}>; rel="next"'}
