"""Prompts and answers made of a row's fields by a Jinja template, in Jinja's sandbox."""

from dataclasses import dataclass
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .drafts import RefusedRowError, UnreadableFile

MAX_CHARS = 1_000_000
_JINJA = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
_JINJA.globals.clear()
_COSTLY = (nodes.Macro, nodes.CallBlock, nodes.Mul, nodes.Pow, nodes.Mod)


@dataclass(frozen=True, slots=True)
class Template:
    """A template given as `option`; `fields` are the names that it reads."""

    option: str
    fields: frozenset[str]
    compiled: jinja2.Template

    @classmethod
    def of(cls, option: str, text: str | None) -> "Template | None":
        """The template, None without one; raises UnreadableFile if it is not Jinja, or costs without bound."""
        if not text:
            return None
        try:
            tree = _JINJA.parse(text)
            compiled = _JINJA.from_string(text)
        except jinja2.TemplateError as error:
            raise UnreadableFile("bad_template", f"{option} is not a Jinja template: {error}") from None
        fields = frozenset(meta.find_undeclared_variables(tree))
        if "range" in fields or next(tree.find_all(_COSTLY), None):
            raise UnreadableFile(
                "bad_template", f"{option} may not use range, macros, * or **: they cost without bound"
            )
        return cls(option, fields, compiled)

    def render(self, row: dict[str, Any]) -> str:
        """The text for a row; raises RefusedRowError with `bad_template`."""
        try:
            text = self.compiled.render(row)
        except Exception as error:  # a filter may raise anything
            shown = ", ".join(list(row)[:12])
            raise RefusedRowError(
                "bad_template", f"{self.option} cannot be filled: {error}; the row has {shown}"
            ) from None
        if len(text) > MAX_CHARS:
            raise RefusedRowError("bad_template", f"{self.option} gives more than {MAX_CHARS} characters")
        return text
