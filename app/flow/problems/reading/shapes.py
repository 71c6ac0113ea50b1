"""From one raw row, whatever trainer or data set wrote it, to a problem draft or a plain refusal."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from paced.wire.grading import USER_GRADER, GraderName

from .answers import read_answer, read_solution
from .chats import chat_in_text, read_chat
from .drafts import ProblemDraft, Prompt, ReadOptions, RefusedRowError, RowRefused
from .fields import ANSWERS, MISSING, PROMPTS, Path, Plan, fetch, plan_fields
from .fingerprint import Fingerprints
from .templates import Template

MAX_TAG_CHARS = 64
MAX_TAGS = 16
_GRADER = re.compile("|".join([USER_GRADER, *(f"^{grader}$" for grader in GraderName)]))
_MAX_PLANS = 1024
_MAX_FIELDS_NAMED = 12


class Shaper:
    """Shapes the rows of one file. Rows may differ in shape; one plan is kept for each set of field names.

    `columns` are the file's columns if rows hold only some of them: refusals then name all.
    """

    def __init__(self, source: str, options: ReadOptions, columns: Sequence[str] | None = None) -> None:
        self._source = options.source or source
        self._options = options
        self._columns = columns
        self._plans: dict[tuple[str, ...], Plan] = {}
        self._n_shaped: Counter[str] = Counter()
        self._fingerprint = Fingerprints()
        self._tags: dict[tuple[Any, ...], tuple[str, ...]] = {}
        self._prompt_template = Template.of("prompt_template", options.prompt_template)
        self._answer_template = Template.of("answer_template", options.answer_template)

    @property
    def shape(self) -> str:
        """The shape of most drafts so far, `unknown` before the first."""
        return self._n_shaped.most_common(1)[0][0] if self._n_shaped else "unknown"

    @property
    def template_fields(self) -> frozenset[str]:
        """Names that the templates read."""
        templates = (self._prompt_template, self._answer_template)
        return frozenset().union(*(template.fields for template in templates if template))

    def draft(self, line: int, row: Any) -> ProblemDraft | RowRefused:
        """The problem that a row holds, or why it holds none; never raises for what a row contains."""
        try:
            return self._shape(line, row)
        except RefusedRowError as refused:
            return RowRefused(line, refused.code, refused.reason)

    def _shape(self, line: int, row: Any) -> ProblemDraft:
        if type(row) is not dict:
            raise RefusedRowError("not_an_object", _not_an_object(row))
        fields = tuple(row)
        plan = self._plans.get(fields) or self._plan(fields)
        prompt, last_turn = self._read_prompt(plan, row)
        answer, worked = self._read_answer(plan, row, last_turn)
        solution = self._read_solution(plan, row) or worked or (last_turn if last_turn != answer else None)
        _refuse_nul(prompt, answer, solution)
        is_gsm8k = plan.shape == "plain" and worked is not None and "####" in worked
        self._n_shaped["gsm8k" if is_gsm8k else plan.shape] += 1
        return ProblemDraft(
            prompt=prompt,
            answer=answer,
            grader=_read_grader(plan, row),
            tags=self._read_tags(plan.tags, row) if plan.tags else (),
            source=self._source,
            solution=solution,
            fingerprint=self._fingerprint(prompt),
            line=line,
        )

    def _plan(self, fields: tuple[str, ...]) -> Plan:
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        plan = self._plans[fields] = plan_fields(fields, self._options)
        return plan

    def _read_prompt(self, plan: Plan, row: dict[str, Any]) -> tuple[Prompt, str | None]:
        """The prompt, and the text of the assistant turn that ended it if that is the answer."""
        if self._prompt_template:
            return _prompt_of(self._prompt_template.render(row), "prompt_template", is_chat=False), None
        if not plan.prompt:
            raise self._missing("prompt", self._options.prompt_field, PROMPTS, row)
        if len(plan.prompt) > 1:
            return _join_texts(plan, row), None
        path = plan.prompt[0]
        value = fetch(row, path)
        if value is MISSING:
            raise self._missing("prompt", ".".join(path), PROMPTS, row)
        prompt = _prompt_of(value, ".".join(path), is_chat=plan.ends_in_answer)
        if plan.ends_in_answer and not isinstance(prompt, str) and prompt[-1]["role"] == "assistant":
            return prompt[:-1], prompt[-1]["content"]
        return prompt, None

    def _read_answer(self, plan: Plan, row: dict[str, Any], last_turn: str | None) -> tuple[str, str | None]:
        if self._answer_template:
            return read_answer(self._answer_template.render(row), "answer_template", is_worked=False)
        if plan.answer is None and last_turn is not None and not self._options.answer_field:
            return read_answer(last_turn, "last assistant turn", is_worked=True)
        value = fetch(row, plan.answer) if plan.answer else MISSING
        if plan.answer is None or value is MISSING:
            if self._options.allow_no_answer and not self._options.answer_field:
                return "", None
            asked = ".".join(plan.answer) if plan.answer else self._options.answer_field
            raise self._missing("answer", asked, ANSWERS, row)
        return read_answer(value, ".".join(plan.answer), is_worked=plan.is_worked)

    def _read_solution(self, plan: Plan, row: dict[str, Any]) -> str | None:
        if plan.solution is None:
            return None
        text = read_solution(fetch(row, plan.solution))
        # verl keeps in extra_info.answer whatever the data set had; only worked text is a solution.
        is_loose = len(plan.solution) > 1
        return text if text and (not is_loose or "####" in text or "\\boxed" in text) else None

    def _read_tags(self, paths: tuple[Path, ...], row: dict[str, Any]) -> tuple[str, ...]:
        """`read_tags`, remembering texts: few rows have tags of their own."""
        values = [fetch(row, path) for path in paths]
        for value in values:
            if type(value) is not str:
                return read_tags(paths, row)
        key = (*paths, *values)
        tags = self._tags.get(key)
        if tags is None:
            if len(self._tags) >= _MAX_PLANS:
                self._tags.clear()
            tags = self._tags[key] = read_tags(paths, row)
        return tags

    def _missing(self, part: str, asked: str | None, known: Sequence[str], row: dict[str, Any]) -> RefusedRowError:
        fields = list(self._columns or row)
        shown = ", ".join(fields[:_MAX_FIELDS_NAMED]) + (", ..." if len(fields) > _MAX_FIELDS_NAMED else "")
        found = f"no field '{asked}'" if asked else f"no field holds the {part}"
        return RefusedRowError(
            f"missing_{part}",
            f"{found}; the row has {shown or 'no fields'}. "
            f"Name it with {part}_field, or call it {', '.join(known[:-1])} or {known[-1]}"
            + ("; allow_no_answer stores such rows flagged" if part == "answer" else ""),
        )


def read_tags(paths: Sequence[Path], row: dict[str, Any]) -> tuple[str, ...]:
    """Short distinct labels of a row; a bare number gets its field's name: `level 5`."""
    tags: list[str] = []
    for path in paths:
        value = fetch(row, path)
        if isinstance(value, str):
            tags.extend(value.split(",") if path[-1].lower() == "tags" else (value,))
        elif isinstance(value, list):
            tags.extend(item for item in value if isinstance(item, str))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            tags.append(f"{path[-1].lower()} {value:g}")
    stripped = (tag.strip() for tag in tags)
    kept = (tag for tag in stripped if 0 < len(tag) <= MAX_TAG_CHARS and "\0" not in tag)
    return tuple(dict.fromkeys(kept))[:MAX_TAGS]


def _prompt_of(value: Any, field: str, *, is_chat: bool) -> Prompt:
    if is_chat or isinstance(value, list):
        return read_chat(value, field)
    if value is None or value == "" or (isinstance(value, str) and value.isspace()):
        raise RefusedRowError("empty_prompt", f"field '{field}' is empty; give the problem or remove the row")
    if not isinstance(value, str):
        kind = type(value).__name__
        raise RefusedRowError("bad_prompt", f"field '{field}' holds {kind}; it must be text or a list of messages")
    turns = chat_in_text(value)
    return value if turns is None else read_chat(turns, field)


def _join_texts(plan: Plan, row: dict[str, Any]) -> str:
    """Context and question as one text; the first sentence gets the full stop that SVAMP leaves out."""
    values = [fetch(row, path) for path in plan.prompt]
    texts = [value.strip() for value in values if isinstance(value, str) and not value.isspace() and value]
    if not texts:
        names = " and ".join(f"'{path[-1]}'" for path in plan.prompt)
        raise RefusedRowError("empty_prompt", f"fields {names} are empty; give the problem or remove the row")
    if plan.shape == "svamp":
        return " ".join(text if text.endswith((".", "?", "!")) else text + "." for text in texts)
    return "\n\n".join(texts)


def _read_grader(plan: Plan, row: dict[str, Any]) -> str | None:
    """One of ours, or a package's; the set's where the field says something else."""
    grader = fetch(row, plan.grader) if plan.grader else None
    return grader if isinstance(grader, str) and _GRADER.fullmatch(grader) else None


def _refuse_nul(prompt: Prompt, answer: str, solution: str | None) -> None:
    has_nul = "\0" in answer or (solution is not None and "\0" in solution)
    if isinstance(prompt, str):
        has_nul = has_nul or "\0" in prompt
    else:
        for turn in prompt:
            has_nul = has_nul or "\0" in turn["content"]
    if has_nul:
        raise RefusedRowError("nul_character", "the row holds U+0000, which no database text can hold; remove it")


def _not_an_object(row: Any) -> str:
    kind = {list: "a list", str: "text", type(None): "null", bool: "true or false"}.get(type(row), "a number")
    return f"the row is {kind}, not an object with fields"
