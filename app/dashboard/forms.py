"""What a form posts: checked for its session, then read into a model."""

from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.responses import RedirectResponse

from app.auth.guard import requires
from app.auth.sessions import check_csrf
from app.errors import Forbidden, Invalid
from paced.wire import Scope


class Nothing(BaseModel):
    """A form that is a button alone."""


def posted(model: type[BaseModel], scope: Scope) -> Any:
    """A dependency: the form as a model, from a page of this session and a key with this scope.

    A name that stands several times gives a list. Empty fields are left out, so that they take their default.
    """

    async def read(request: Request) -> BaseModel:
        fields = await fields_of(request)
        check_csrf(request.state.session, str(fields.pop("csrf", "")))
        try:
            return model.model_validate(fields)
        except ValidationError as error:
            raise RequestValidationError(error.errors(include_url=False)) from error

    async def allowed(read: Annotated[BaseModel, Depends(read)], _scope: Annotated[None, requires(scope)]) -> BaseModel:
        return read

    return Depends(allowed)


async def fields_of(request: Request) -> dict[str, str | list[str]]:
    """The fields of a form, each not empty."""
    check_origin(request)
    try:
        text = (await request.body()).decode()
    except UnicodeDecodeError as error:
        raise Invalid("the form is not text in UTF-8", code="bad_form") from error
    return {name: values if len(values) > 1 else values[0] for name, values in parse_qs(text).items()}


def check_origin(request: Request) -> None:
    """Refuse what another site sends."""
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise Forbidden("this form comes from another site; open the dashboard and send it from there", code="csrf")


def back(url: str) -> RedirectResponse:
    """After a form, to a page: reloading it sends nothing again."""
    return RedirectResponse(url, 303)
