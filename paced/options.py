"""Options that several commands share: the service and its key, JSON, a grader and the policy of its judging."""

from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from paced.wire import GradingPolicy

M = TypeVar("M", bound=BaseModel)
Url = Annotated[str | None, typer.Option("--url", help="Address of the service", envvar="PACED_URL")]
Key = Annotated[
    str | None, typer.Option("--key", help="API key; a local service's first key if left out", envvar="PACED_KEY")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text")]
GRADERS = "exact, numeric, choice, math, code, reasoning_gym, or user:NAME"
PolicyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--policy", help="NAME=VALUE of the grading policy (docs/grading.md), such as percent=number. Repeatable"
    ),
]


def policy_of(assignments: list[str] | None) -> GradingPolicy | None:
    """The policy that NAME=VALUE options name, None without any; raises BadParameter."""
    if not assignments:
        return None
    pairs = [text.partition("=") for text in assignments]
    return checked(GradingPolicy, {name.strip(): value.strip() for name, _, value in pairs})


def checked(model: type[M], body: dict[str, Any]) -> M:
    """The model of a body that options made; raises BadParameter with the field and what is wrong with it."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        raise typer.BadParameter(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
