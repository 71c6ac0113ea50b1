r"""The content hash by which two rows are the same problem.

It ignores white space, Unicode form (NFKC), system turns and known prompt wrappers. It keeps operators, signs,
decimal points and letter case: `X` and `x` are different variables. White space between two digits counts as one
mark, for `1 2/3` is not `12/3`. Superscripts, subscripts and vulgar fractions become `^`, `_` and `/` before NFKC
would flatten them: `2⁵` is not `25`.
"""

import re
from collections.abc import Callable, Iterable
from hashlib import blake2b
from unicodedata import normalize

from .drafts import Message, Prompt

# What trainers and data sets put around a question; the order does not matter, white space neither.
PREFIXES = (
    "Please solve the following math problem: ",
    "Solve the following math problem step by step.",
    "Solve the following math problem step by step. The last line of your response should be of the form "
    "Answer: $Answer (without quotes) where $Answer is the answer to the problem.",
    "Solve the following math problem step by step. The last line of your response should be of the form "
    "Answer: $ANSWER (without quotes) where $ANSWER is the answer to the problem.",
    r"Solve the following math problem step by step. The last line of your response should be of the form "
    r"Answer: \boxed{$Answer} where $Answer is the answer to the problem.",
    r"Solve the following math problem. Make sure to put the answer (and only answer) inside \boxed{}.",
    r"Solve the following problem. Make sure to put the answer (and only answer) inside \boxed{}.",
    r"Please reason step by step, and put your final answer within \boxed{}.",
    "Question:",
    "Problem:",
)
SUFFIXES = (
    r"Let's think step by step and output the final answer within \boxed{}.",
    'Let\'s think step by step and output the final answer after "####".',
    'Let\'s think step by step and output the final answer after "####"',
    ". The assistant first thinks about the reasoning process step by step and then provides the user with the "
    r"answer. Return the final answer in \boxed{} tags, for example \boxed{1}. Let's solve this step by step.",
    "Think step by step, then output the final result on a single line exactly as: Answer: <number>",
    'Remember to put your answer on its own line after "Answer:".',
    r'Remember to put your answer on its own line after "Answer:", and you do not need to use a \boxed command.',
    r"Please reason step by step, and put your final answer within \boxed{}.",
    r"Reason step by step and put your final answer within \boxed{}.",
    r"Put your final answer within \boxed{}.",
    r"Present the answer in LaTex format: \boxed{Your answer}",
    "You FIRST think about the reasoning process as an internal monologue and then provide the final answer. The "
    r"reasoning process MUST BE enclosed within <think> </think> tags. The final answer MUST BE put in \boxed{}.",
    "Let's think step by step.",
    "Answer:",
)

MAX_REMEMBERED_CHARS = 50_000_000

_SPACE = b" \t\n\v\f\r\x1c\x1d\x1e\x1f"
_DIGITS = b"0123456789"
_KINDS = bytes.maketrans(_DIGITS + _SPACE, b"0" * len(_DIGITS) + b" " * len(_SPACE))
_DIGIT_GAP = re.compile(rb"([0-9])[%b]+(?=[0-9])" % re.escape(_SPACE))
_GAP = b"\\1\0"
_SIGNS = {
    **{raised: "^" + normalize("NFKC", raised) for raised in "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ"},
    **{lowered: "_" + normalize("NFKC", lowered) for lowered in "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎"},
    **{vulgar: " " + normalize("NFKC", vulgar) for vulgar in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞⅐⅑⅒"},
    "−": "-",
    "⁄": "/",
    **dict.fromkeys("\x85\u1680\u2028\u2029", " "),  # white space that NFKC leaves
    **dict.fromkeys("\u00ad\u200b\u2060\ufeff", ""),  # soft hyphen, zero-width space and joiner, stray BOM
}
_SIGNS |= {sign: plain.replace("−", "-").replace("⁄", "/") for sign, plain in _SIGNS.items()}
_SIGN = re.compile(f"[{''.join(_SIGNS)}]")


def fingerprint(prompt: Prompt) -> str:
    """32 hexadecimal digits (BLAKE2b) that are equal for prompts of the same content.

    One user turn, with or without a system turn, equals the same text as a plain prompt.
    """
    content = canonical_text(prompt) if isinstance(prompt, str) else _canonical_chat(prompt)
    return blake2b(content, digest_size=16).hexdigest()


class Fingerprints:
    """`fingerprint`, remembering plain prompts and single user turns: training files repeat them literally."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._n_chars = 0

    def __call__(self, prompt: Prompt) -> str:
        """32 hexadecimal digits, as `fingerprint` gives them."""
        if type(prompt) is list and len(prompt) == 1 and prompt[0]["role"] == "user":
            prompt = prompt[0]["content"]
        if type(prompt) is not str:
            return fingerprint(prompt)
        found = self._known.get(prompt)
        if found is None:
            found = fingerprint(prompt)
            self._n_chars += len(prompt)
            if self._n_chars > MAX_REMEMBERED_CHARS:
                self._known.clear()
                self._n_chars = len(prompt)
            self._known[prompt] = found
        return found


def canonical_text(text: str) -> bytes:
    """UTF-8 of the text without white space, Unicode form and known wrappers; a wrapper alone stays as it is."""
    bare = _compact(text)
    stripped = bare
    while stripped.startswith(_PREFIXES):
        stripped = stripped[_longest(_PREFIXES, stripped.startswith) :]
    while stripped.endswith(_SUFFIXES):
        stripped = stripped[: -_longest(_SUFFIXES, stripped.endswith)]
    return stripped or bare


def bare_text(prompt: Prompt) -> str:
    """The text of the turns that the fingerprint counts, without known wrappers, white space kept."""
    texts = [prompt] if isinstance(prompt, str) else [turn["content"] for turn in prompt if turn["role"] != "system"]
    return "\n".join(_SUFFIX.sub("", _PREFIX.sub("", text)).strip() or text for text in texts)


def _canonical_chat(messages: list[Message]) -> bytes:
    turns = [turn for turn in messages if turn["role"] != "system"]
    if len(turns) == 1 and turns[0]["role"] == "user":
        return canonical_text(turns[0]["content"])
    # \x1e and \x1f are white space here, so no canonical text holds them.
    return b"".join(b"%b\x1f%b\x1e" % (turn["role"].encode(), canonical_text(turn["content"])) for turn in turns)


def _compact(text: str) -> bytes:
    if not text.isascii():
        text = normalize("NFKC", _SIGN.sub(_plain_sign, text))
    content = text.encode("utf-8", "surrogatepass")
    kinds = content.translate(_KINDS)
    # Few texts have a gap between digits, and two searches of bytes cost far less than the pattern.
    if b"0 0" in kinds or b"0  " in kinds:
        content = _DIGIT_GAP.sub(_GAP, content)
    return content.translate(None, _SPACE)


def _plain_sign(found: re.Match[str]) -> str:
    return _SIGNS[found[0]]


def _longest(wrappers: tuple[bytes, ...], matches: Callable[[bytes], bool]) -> int:
    return next(len(wrapper) for wrapper in wrappers if matches(wrapper))


def _compact_all(wrappers: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(sorted((_compact(wrapper) for wrapper in wrappers), key=len, reverse=True))


_PREFIXES = _compact_all(PREFIXES)
_SUFFIXES = _compact_all(SUFFIXES)


def _any_of(wrappers: Iterable[str]) -> str:
    longest_first = sorted(wrappers, key=len, reverse=True)
    return "|".join(r"\s*".join(re.escape(part) for part in wrapper.split()) for wrapper in longest_first)


_PREFIX = re.compile(rf"^\s*(?:(?:{_any_of(PREFIXES)})\s*)+")
_SUFFIX = re.compile(rf"(?:\s*(?:{_any_of(SUFFIXES)}))+\s*$")
