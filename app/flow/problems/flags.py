r"""Rows that no grader can judge, told by their text: stored, but not served until someone decides.

Each rule would rather miss a row than flag a good one; docs/importing.md counts what they find in real sets.
"""

import re

from paced.wire.problems import Flag

from .reading.drafts import Prompt

Found = tuple[Flag, str]
_SHOWN = 80
_PROSE_WORDS = 8

_PLACEHOLDER = re.compile(
    r"(?:n\s*/\s*a|none given|not (?:provided|given|available|applicable)|no answer(?: given| provided)?|unknown|tbd"
    r"|todo|null|nan|placeholder|to be (?:added|done|determined)|answers? (?:may|will) vary|(?:see|refer to)\b.{0,60}"
    r"|answer(?: here)?|omitted|proof(?: omitted)?|略|见解析|证明略|无)[.!]?",
    re.IGNORECASE,
)
_DOTS = re.compile(r"[.…?_\-–—*xX]{2,}|[…?_\-–—]|None")
_PROOF = re.compile(
    r"(?:^|[.:;!?)]\s*|\n\s*|\b(?:please|and|then|also|to|or)\s+)(?:prove|show|verify|demonstrate)\b(?!\s+(?:your|all|work))"
    r"|\b(?:prove|show) that\b|证明",
    re.IGNORECASE,
)
_IMAGE = re.compile(r"!\[[^\]\n]*\]\([^)\n]+\)|<img\b|\\includegraphics\b", re.IGNORECASE)
_NOUN = r"(?:figure|diagram|picture|image|illustration|drawing)"
_WHERE = r"(?:below|above|at (?:the )?(?:right|left)|(?:to|on) the (?:right|left))"
_FIGURE = re.compile(
    r"\b(?:in|from|on|see|by) (?:the|this) "
    r"(?:(?:adjacent|adjoining|accompanying|following|given|attached|first|second) )?"
    rf"(?:(?:figure|diagram)s?\b(?! skating)|{_NOUN}s? {_WHERE})"
    rf"|\b(?:following|given|attached|accompanying) {_NOUN}\b"
    rf"|\b(?:the|this) (?:figure|diagram|{_NOUN} {_WHERE}),? (?:{_WHERE} )?(?:shown\b|shows?\b|represents?\b)"
    rf"|\b(?:as|is|are) (?:shown|pictured|depicted|illustrated) (?:{_WHERE}|here\b|in the {_NOUN})"
    r"|\bas (?:shown|pictured|illustrated)(?:[.,]| in (?:this|figure|diagram|fig)\b)"
    r"|\b(?:graph|chart|plot)s?,? (?:(?:is |are )?shown (?:below|above|here)|below)\b|如[下右左上]?图|[下右左上]图",
    re.IGNORECASE,
)
# A figure in code, or a table in the text itself, is there to be read.
_DRAWN = re.compile(r"\[asy\]|\\begin\{(?:tikzpicture|asy|picture|array|tabular)\}|\n\s*\|", re.IGNORECASE)
_ASKS = (
    r"(?:find|determine|compute|calculate|evaluate|what|how|which|who|when|where|why|is|are|does|do|can|write|solve|give"
    r"|state|show|prove|sketch|graph|draw|describe|explain|express|estimate|use|simplify|list|identify|if)\b"
)
_PARTS = (
    re.compile(rf"(?:^|[\s.;:,?!])\(?(?-i:a)[).]\s*\$?\s*{_ASKS}", re.IGNORECASE),
    re.compile(rf"(?:^|[\s.;:,?!])\(?(?-i:b)[).]\s*\$?\s*{_ASKS}", re.IGNORECASE),
)


def find_flag(prompt: Prompt, answer: str) -> Found | None:
    """Why a problem waits for a decision, with what was found; None for one that can be judged."""
    asked = prompt if isinstance(prompt, str) else "\n".join(turn["content"] for turn in prompt)
    return _judge_answer(asked, answer) or _judge_prompt(asked)


def _judge_answer(asked: str, answer: str) -> Found | None:
    bare = answer.strip().strip("$").strip()
    is_placeholder = bool(_PLACEHOLDER.fullmatch(bare) or _DOTS.fullmatch(bare))
    if not bare or is_placeholder or _is_prose(bare):
        found = _PROOF.search(asked)
        if found:
            said = found[0].strip(" \n.:;!?)")
            return Flag.PROOF, f"the prompt asks for a proof ('{said}') and the answer is {_kind(bare, is_placeholder)}"
    if not bare:
        return Flag.NO_ANSWER, "the row has no answer"
    return (Flag.PLACEHOLDER, f"the answer is '{bare[:_SHOWN]}'") if is_placeholder else None


def _judge_prompt(asked: str) -> Found | None:
    image = _IMAGE.search(asked)
    if image:
        return Flag.MISSING_FIGURE, f"the prompt shows an image: '{image[0][:_SHOWN]}'"
    figure = _FIGURE.search(asked)
    if figure and not _DRAWN.search(asked):
        return Flag.MISSING_FIGURE, f"the prompt speaks of a figure: '{_around(asked, figure)}'"
    if all(part.search(asked) for part in _PARTS):
        return Flag.MULTI_PART, "the prompt asks several questions, (a), (b) and so on, with one answer"
    return None


def _is_prose(text: str) -> bool:
    words = re.findall(r"(?<![\\A-Za-z])[A-Za-z]{2,}", text)
    return len(words) >= _PROSE_WORDS


def _kind(bare: str, is_placeholder: bool) -> str:
    if not bare:
        return "empty"
    return f"'{bare[:_SHOWN]}'" if is_placeholder else "prose"


def _around(text: str, found: re.Match[str]) -> str:
    return " ".join(text[max(0, found.start() - 20) : found.end() + 20].split())
