"""What every part of the contract shares: the two base models, names, messages, pages, problem details."""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

T = TypeVar("T")


def example(**fields: Any) -> ConfigDict:
    """Model configuration with one example, shown in the OpenAPI document.

    FastAPI drops nulls there: required fields need a value.
    """
    return ConfigDict(json_schema_extra={"examples": [fields]})


class Request(BaseModel):
    """A body that a client sends: unknown fields, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Resource(BaseModel):
    """A body that the service answers: fields unknown to this version are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


Name = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
    Field(description="1 to 64 letters, digits, dots, dashes or underscores; it stands in URLs"),
]
NO_NUL = r"^[^\x00]*$"  # PostgreSQL stores no NUL character
Text = Annotated[str, StringConstraints(max_length=1_000_000, pattern=NO_NUL)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=NO_NUL)]
ProblemId = Annotated[int, Field(ge=0, lt=2**63)]
Index = Annotated[int, Field(ge=0, lt=2**31, description="Checkpoint index or step")]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Message(Resource):
    """One turn of a chat prompt."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


Prompt = str | list[Message]


def _page_example(schema: dict[str, Any], page: type[BaseModel]) -> None:
    item = page.__pydantic_generic_metadata__["args"][0]
    shown = getattr(item, "model_config", {}).get("json_schema_extra", {})
    schema["examples"] = [{"items": shown.get("examples", []), "next_cursor": None}]


class Page(Resource, Generic[T]):
    """One page of a list; `next_cursor` is null on the last one."""

    model_config = ConfigDict(json_schema_extra=_page_example)

    items: list[T]
    next_cursor: str | None = None


class ProblemDetail(Resource):
    """Every error answer (RFC 9457); `code` is stable, extension members depend on it."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:paced:error:not_found",
                    "title": "Not found",
                    "status": 404,
                    "detail": "There is no problem set 'gsm8k'. Import one with `paced import FILE --set gsm8k`.",
                    "code": "not_found",
                }
            ]
        },
    )

    type: str
    title: str
    status: int
    detail: str
    code: str
