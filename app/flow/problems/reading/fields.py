"""Which fields of a row hold prompt, answer, solution and tags: one plan for each set of field names.

Shapes named here: verl, gsm8k, math, trl_prompt_only, trl_prompt_completion, openrlhf, slime, roll, messages, nemo,
svamp, olympiadbench, alpaca, sharegpt; `custom` where the user named fields or gave
templates, `plain` for any other pair of prompt and answer.
Names match in any letter case.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from .drafts import ReadOptions

CHATS = ("context_messages", "messages", "conversations")
PAIRS = (("body", "question"), ("context", "question"), ("instruction", "input"))
PROMPTS = ("prompt", "question", "problem", "input", "query", "instruction")
ANSWERS = (
    "expected_answer",
    "final_answer",
    "ground_truth",
    "reference_answer",
    "gold_answer",
    "answer",
    "label",
    "target",
    "gold",
)
WORKED = ("solution", "generated_solution", "completion", "output", "response")
SOLUTIONS = ("solution", "solutions", "generated_solution")
TAGS = ("tags", "type", "subject", "data_topic", "ability", "subfield", "topic", "category", "level")

_NAMES = {
    ("prompt", "completion"): "trl_prompt_completion",
    ("prompt", "solution"): "trl_prompt_only",
    ("prompt", "label"): "slime",
    ("input", "label"): "openrlhf",
    ("context_messages", "answer"): "openrlhf",
    ("messages", "ground_truth"): "roll",
    ("problem", "expected_answer"): "nemo",
    ("problem", "solution"): "math",
    ("question", "final_answer"): "olympiadbench",
    ("input", "output"): "alpaca",
    ("instruction", "output"): "alpaca",
}

Path = tuple[str, ...]
MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a row keeps its parts; an empty `prompt` or a None `answer` says that no field was found.

    Several prompt fields are joined. `is_worked`: the answer stands in worked text. `ends_in_answer`: a chat whose
    last assistant turn is not part of the prompt.
    """

    shape: str
    prompt: tuple[Path, ...]
    answer: Path | None
    solution: Path | None
    tags: tuple[Path, ...]
    grader: Path | None
    is_worked: bool
    ends_in_answer: bool


def plan_fields(fields: Iterable[str], options: ReadOptions) -> Plan:
    """The plan for rows with these field names; fields that the user names win over detection."""
    names = {field.lower(): field for field in reversed(list(fields))}
    prompt = _prompt_paths(names, options)
    answer, is_worked = _answer_path(names, options)
    last = prompt[-1][-1].lower() if prompt else ""
    return Plan(
        shape=_shape_name(names, prompt, answer, options),
        prompt=prompt,
        answer=answer,
        solution=_solution_path(names, answer),
        tags=_named(options.tags_field, names) or tuple((names[name],) for name in TAGS if name in names),
        grader=(names["grader"],) if "grader" in names else None,
        is_worked=is_worked,
        ends_in_answer=last in CHATS,
    )


def fetch(row: dict[str, Any], path: Path) -> Any:
    """The value at a path, or MISSING; an object on the way may be written as JSON text (CSV files do)."""
    if len(path) == 1:
        return row.get(path[0], MISSING)
    value: Any = row
    for key in path:
        if type(value) is not dict:
            value = _parse_object(value)
        if key not in value:
            return MISSING
        value = value[key]
    return value


def known_fields(options: ReadOptions) -> frozenset[str]:
    """Lower-case names of all fields that a plan may read: what a columnar file needs to load."""
    named = (options.prompt_field, options.answer_field, options.tags_field)
    asked = {part.lower() for name in named if name for part in (name, name.partition(".")[0])}
    pairs = {name for pair in PAIRS for name in pair}
    rest = {"reward_model", "extra_info", "grader"}
    return frozenset({*CHATS, *pairs, *PROMPTS, *ANSWERS, *WORKED, *SOLUTIONS, *TAGS, *rest, *asked})


def _parse_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, str) or not value.startswith("{"):
        return {}
    try:
        return dict(orjson.loads(value))
    except orjson.JSONDecodeError:
        return {}


def _prompt_paths(names: Mapping[str, str], options: ReadOptions) -> tuple[Path, ...]:
    if options.prompt_field:
        return _named(options.prompt_field, names)
    chat = [name for name in CHATS if name in names]
    pair = [pair for pair in PAIRS if all(name in names for name in pair)]
    found = chat[:1] or (pair[0] if pair else [name for name in PROMPTS if name in names][:1])
    return tuple((names[name],) for name in found)


def _answer_path(names: Mapping[str, str], options: ReadOptions) -> tuple[Path | None, bool]:
    if options.answer_field:
        return next(iter(_named(options.answer_field, names)), None), False
    if "reward_model" in names:
        return (names["reward_model"], "ground_truth"), False
    found = next((name for name in (*ANSWERS, *WORKED) if name in names), None)
    return ((names[found],), found in WORKED) if found else (None, False)


def _solution_path(names: Mapping[str, str], answer: Path | None) -> Path | None:
    if "reward_model" in names and "extra_info" in names:
        return (names["extra_info"], "answer")
    paths = ((names[name],) for name in SOLUTIONS if name in names)
    return next((path for path in paths if path != answer), None)


def _named(name: str | None, names: Mapping[str, str]) -> tuple[Path, ...]:
    """The path that a user wrote: a field of exactly that name, or `a.b`; none if the row has no such field."""
    if not name:
        return ()
    if name.lower() in names:
        return ((names[name.lower()],),)
    head, *rest = name.split(".")
    return ((names[head.lower()], *rest),) if rest and head.lower() in names else ()


def _shape_name(names: Mapping[str, str], prompt: tuple[Path, ...], answer: Path | None, options: ReadOptions) -> str:
    if options.prompt_field or options.answer_field or options.prompt_template or options.answer_template:
        return "custom"
    asked = prompt[-1][0].lower() if prompt else ""
    if asked == "prompt" and "reward_model" in names:
        return "verl"
    if asked == "question" and "body" in names:
        return "svamp"
    name = _NAMES.get((asked, answer[0].lower() if answer else ""))
    return name or ({"conversations": "sharegpt"}.get(asked, "messages") if asked in CHATS else "plain")
