r"""Find the final answer in a text: the last \boxed{...}, else what follows the last "####", "Answer:" or "answer is".

Every function here is linear in the text, or nearly so.
"""

import re
from collections.abc import Iterator

BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
# "and" or a comma, behind at most one word: `\boxed{1}` papers and `\boxed{2}` bins.
JOINT = re.compile(r"(?:[^\W\d_]{1,20}\b)?\s?(?:[,;]|[,;]?\s?(?:and|or))", re.IGNORECASE)
SPACING = re.compile(r"\\(?:q?quad|text|[,;! ()\[\]])|[\s${}~]+")
MARKER = re.compile(
    r"^[ \t]*####[ \t]"
    r"|\banswer\b\s{0,3}\*{0,2}\s{0,3}(?:[:：=]|\bis\b)"
    r"|\banswer\b[^.:：=\n]{1,80}?\bis\b"
    r"|答案\s{0,3}(?:[:：=]|是|为)",
    re.IGNORECASE | re.MULTILINE,
)
HOPE = re.compile(r"\.?\s*I hope (?:it|this) is correct.*", re.IGNORECASE)
TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL | re.IGNORECASE)
MATH_DELIMITERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
ADJACENT = ("", " ", "$$", "$ $")  # two boxes with nothing between them
MAX_GAP = 80  # characters between two boxes that are one answer


def find_answer(text: str) -> str | None:
    """Return the final answer that the text marks as such, stripped, or None where it marks none."""
    boxes = boxed_answers(text)
    return ", ".join(boxes) if boxes else marked_answer(text)


def find_tagged(text: str) -> str | None:
    """Return what the last pair of <answer> tags encloses, stripped, or None."""
    last = None
    for match in TAG.finditer(text):
        last = match
    return last[1].strip() or None if last else None


def boxed_answers(text: str) -> list[str]:
    """Return the content of the last boxed answer; of the last few where words such as "and" join them."""
    run: list[str] = []
    last_end = 0
    for start, end, content in _boxes(text):
        gap = SPACING.sub(" ", text[last_end:start]).strip() if start - last_end <= MAX_GAP else ""
        is_joined = bool(run) and (JOINT.fullmatch(gap) is not None or text[last_end:start] in ADJACENT)
        if not is_joined:
            run = [content]
        elif content not in run:
            run.append(content)
        last_end = end
    return run


def _boxes(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, content) of each balanced, non-empty box that lies in no other box."""
    position = 0
    while opening := BOX.search(text, position):
        closing = _closing_brace(text, opening.end())
        if closing is None:  # unbalanced to the end: the boxes within it may still be whole
            position = _skip_unclosed(text, opening.end())
            continue
        content = strip_math(text[opening.end() : closing])
        if content:
            yield opening.start(), closing + 1, content
        position = closing + 1


def _closing_brace(text: str, start: int) -> int | None:
    depth = 1
    for match in BRACE.finditer(text, start):
        if match[0] == "{":
            depth += 1
        elif match[0] == "}":
            depth -= 1
            if depth == 0:
                return match.start()
    return None


def _skip_unclosed(text: str, start: int) -> int:
    """Return where to look on after a box that is never closed: the nearest box that is, else the end.

    Braces are matched once from the right, so that a text of nothing but open boxes stays linear.
    """
    closers = 0
    nearest = len(text)
    for match in reversed(list(BRACE.finditer(text, start))):
        if match[0] == "}":
            closers += 1
        elif match[0] == "{" and closers:
            closers -= 1
            opening = text.rfind("\\", start, match.start())
            if opening >= 0 and BOX.fullmatch(text, opening, match.end()):
                nearest = opening
    return nearest


def marked_answer(text: str) -> str | None:
    """Return the line that follows the last marker such as "####", "Answer:" or "The final answer is"."""
    last = None
    for match in MARKER.finditer(text):
        last = match
    if last is None:
        return None
    rest = text[last.end() :].lstrip(" \t\r\n*:：")
    line = HOPE.sub("", rest.split("\n", 1)[0])
    return strip_math(strip_sentence(line)) or None


def strip_sentence(line: str) -> str:
    """Take emphasis, quotes and the final stop off a line: `**Paris**.` is `Paris`."""
    return line.strip().rstrip('.。*`" ').lstrip('*`" ')


def strip_math(text: str) -> str:
    r"""Take off the math delimiters that enclose the whole text: `$x$` and `\(x\)` are `x`."""
    text = text.strip()
    for opening, closing in MATH_DELIMITERS:
        is_enclosed = len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing)
        if is_enclosed and opening not in text[len(opening) : -len(closing)]:
            return text[len(opening) : -len(closing)].strip()
    return text
