r"""Text with LaTeX as HTML with MathML, made on the server and safe whatever stands in it. Pure.

Formulas stand between $..$, $$..$$, \(..\) or \[..\]. One that cannot be read stays as it is written.
"""

import html
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from xml.etree import ElementTree

from latex2mathml.converter import convert_to_element
from markupsafe import Markup, escape

MAX_FORMULA = 1500  # characters
MAX_FORMULAS = 300  # of one text; later ones stay as they are written
MAX_TEXT = 60_000  # characters in which formulas are looked for
# as pandoc has it: no space inside the dollars, no digit after the closing one, so that prices are no formulas
FORMULA = re.compile(
    r"(?P<display>\$\$(?P<a>.+?)\$\$|\\\[(?P<b>.+?)\\\])|(?P<inline>(?<![\\$])\$(?=\S)(?P<c>(?:\\.|[^$\\\n])+?)(?<=\S)\$(?!\d)|\\\((?P<d>.+?)\\\))",
    re.DOTALL,
)
DEFINES = re.compile(r"\\(?:re|provide)?(?:newcommand|def|let|DeclareMathOperator)\b")  # which could grow without end
_ELEMENTS = (
    "math mrow mi mn mo mtext mspace ms mfrac msqrt mroot msub msup msubsup munder mover munderover mmultiscripts "
    "mprescripts none mtable mtr mtd mlabeledtr mstyle mpadded mphantom menclose merror"
)
_ATTRIBUTES = (
    "display displaystyle scriptlevel mathvariant stretchy fence form separator lspace rspace accent accentunder "
    "largeop movablelimits symmetric minsize maxsize linethickness columnalign rowalign columnlines rowlines "
    "columnspacing rowspacing width height depth voffset notation"
)
ELEMENTS, ATTRIBUTES = frozenset(_ELEMENTS.split()), frozenset(_ATTRIBUTES.split())
VALUE = re.compile(r"[\w.%# +-]{0,40}\Z")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text: where it stands, and the LaTeX in it if it is a formula."""

    start: int
    end: int
    latex: str | None = None
    is_display: bool = False


def pieces(text: str) -> Iterator[Piece]:
    """A text as plain parts and formulas, in order, without a gap."""
    place = 0
    for found in itertools.islice(FORMULA.finditer(text[:MAX_TEXT]), MAX_FORMULAS):
        if found.start() > place:
            yield Piece(place, found.start())
        latex = next(part for part in found.group("a", "b", "c", "d") if part is not None)
        place = found.end()
        yield Piece(found.start(), place, latex, found["display"] is not None)
    if place < len(text):
        yield Piece(place, len(text))


def with_formulas(text: str, marked: tuple[int, int] | None = None) -> Markup:
    """The text as HTML; what `marked` covers is in `mark` elements, a formula as a whole."""
    parts: list[Markup] = []
    after_display = False
    for found in pieces(text):
        start = found.start + (after_display and text[found.start] == "\n")  # a displayed formula ends its own line
        piece = replace(found, start=start)
        written = text[start : piece.end]
        made = None if piece.latex is None else mathml(piece.latex, is_display=piece.is_display)
        if marked is None or marked[1] <= piece.start or piece.end <= marked[0]:
            parts.append(escape(written) if made is None else made)
        elif made is not None:
            parts.append(_mark(made))
        else:
            low, high = (min(max(place - piece.start, 0), len(written)) for place in marked)
            parts += [escape(written[:low]), _mark(escape(written[low:high])), escape(written[high:])]
        after_display = made is not None and piece.is_display
    return Markup("").join(parts)


def extraction(text: str, extracted: str | None) -> tuple[int, int] | None:
    """Where the part that was judged stands in an answer: its last place, if it stands there word for word."""
    start = -1 if not extracted else text.rfind(extracted)
    return None if start < 0 or extracted is None else (start, start + len(extracted))


@lru_cache(maxsize=2048)
def mathml(latex: str, *, is_display: bool = False) -> Markup | None:
    """A formula as MathML of known elements and attributes alone; None where it cannot be made."""
    if len(latex) > MAX_FORMULA or DEFINES.search(latex) or "\x00" in latex:
        return None
    try:
        made = convert_to_element(latex, display="block" if is_display else "inline")
        clean = _cleaned(made)
    except Exception:  # the library's own errors, and those that strange input brings out of it
        return None
    if clean is None:
        return None
    return Markup(ElementTree.tostring(clean, encoding="unicode"))  # noqa: S704 - every name is known, texts are escaped


def _cleaned(element: ElementTree.Element) -> ElementTree.Element | None:
    """A copy without what a browser could act on; None where an element is none of MathML."""
    name = str(element.tag).rpartition("}")[2]
    if name not in ELEMENTS:
        return None
    kept = ElementTree.Element(name)
    for attribute, value in element.attrib.items():
        if attribute in ATTRIBUTES and VALUE.match(value):
            kept.set(attribute, value)
    kept.text = _shown(element.text)
    for child in element:
        clean = _cleaned(child)
        if clean is None:
            return None
        clean.tail = _shown(child.tail)
        kept.append(clean)
    return kept


def _shown(text: str | None) -> str | None:
    """Characters that the library writes as references; the tree's printer escapes them again."""
    if text is None:
        return None
    return "".join(character for character in html.unescape(text) if character.isprintable() or character.isspace())


def _mark(inside: Markup) -> Markup:
    return Markup("<mark>{}</mark>").format(inside)
