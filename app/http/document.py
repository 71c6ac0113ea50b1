"""What FastAPI's OpenAPI document leaves wrong: errors are application/problem+json, not application/json."""

from typing import Any

from fastapi import FastAPI

from app.http.problem_json import MEDIA_TYPE
from paced.wire import ProblemDetail

ERRORS: dict[int | str, dict[str, Any]] = {
    "default": {"description": "Problem detail with a stable `code` (RFC 9457)", "model": ProblemDetail}
}


def install(app: FastAPI) -> None:
    """Mend the document when it is first asked for; FastAPI keeps it."""
    made = app.openapi

    def mended() -> dict[str, Any]:
        if app.openapi_schema is None:
            for operation in [op for methods in made()["paths"].values() for op in methods.values()]:
                content = operation["responses"]["default"]["content"]
                schemas = [media["schema"] for media in content.values() if "schema" in media]
                operation["responses"]["default"]["content"] = {MEDIA_TYPE: {"schema": schemas[0]}}
        return made()

    app.openapi = mended  # type: ignore[method-assign]  # FastAPI's documented way to change it
