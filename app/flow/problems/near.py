"""Near-twins: rows that say the same in other words, with the same numbers and formulas.

Two problems are compared only if their numbers, number words, operators, variables, commands and turning words (most,
least, not, ...) are the same, in the same order: problems of one template that differ in a number are different
problems. The words and word pairs of those are compared by MinHash. rensa computes it: one compiled call a problem and
nothing to depend on, where datasketch hashes in Python and brings SciPy.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from unicodedata import normalize

import rensa

from paced.wire.problems import NearTwin

from .reading.drafts import ProblemDraft, Prompt
from .reading.fingerprint import bare_text
from .spelling import answer_key

THRESHOLD = 0.75
MAX_INDEXED = 100_000
MAX_COMPARED = 100
_N_PERMUTATIONS = 128
_SEED = 7
_SHOWN = 160


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NUMBER_WORDS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million dozen half third "
    "quarter twice thrice double triple once first second fourth fifth sixth seventh eighth ninth tenth last"
)
_TURNING_WORDS = _words(
    "not no never without except most least more less fewer greatest smallest largest maximum minimum maximal minimal "
    "max min highest lowest increases decreases increase decrease increased decreased sum difference product quotient "
    "ratio odd even positive negative real complex integer rational irrational before after perimeter area volume "
    "mean median mode range left right north south east west above below with distinct either both neither all any "
    "morning afternoon day week month year hours minutes seconds row column rows columns radius diameter add subtract "
    "multiply divide multiplied divided won lost gave bought sold convex concave inside outside"
)
_STYLING = _words(
    "left right displaystyle text textbf textit textrm mathrm mathbf mbox quad qquad boxed begin end large big bigl "
    "bigr ldots cdots dots"
)
_TOKEN = re.compile(
    r"\\(?P<command>[A-Za-z]+)|(?P<number>[0-9]+(?:[.,][0-9]+)*)|(?P<word>[^\W\d_]+)|(?P<sign>[-+*/^_=<>!|%&~≤≥≠×÷·])"
)
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_SPELLED = {"dfrac": "frac", "tfrac": "frac", "leq": "le", "geq": "ge", "neq": "ne"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A problem that later ones are compared with."""

    fingerprint: str
    answer: str
    text: str
    line: int | None
    ordinal: int | None
    sketch: rensa.RMinHash


class NearIndex:
    """Finds for a new problem the most similar earlier one; holds `MAX_INDEXED` at most."""

    def __init__(self) -> None:
        self._buckets: dict[int, list[Entry]] = defaultdict(list)
        self._n_entries = 0
        self.is_full = False

    def add_stored(self, fingerprint: str, ordinal: int, prompt: Prompt, answer: str) -> None:
        """Compare later rows with a stored problem."""
        text = bare_text(prompt)
        signature, words = describe(text)
        self._keep(signature, Entry(fingerprint, answer, text[:_SHOWN], None, ordinal, _sketch(words)))

    def match(self, draft: ProblemDraft, *, merge: bool) -> tuple[NearTwin, str] | None:
        """The near-twin of a new row and its fingerprint; a row that is not merged is compared with later ones.

        Rows with another answer are never merged.
        """
        text = bare_text(draft.prompt)
        signature, words = describe(text)
        entry = Entry(draft.fingerprint, draft.answer, text[:_SHOWN], draft.line, None, _sketch(words))
        others = self._buckets[signature][-MAX_COMPARED:] if words else []
        compared = [(other.sketch.jaccard(entry.sketch), other) for other in others]
        near = [found for found in compared if found[0] >= THRESHOLD]
        if not near:
            self._keep(signature, entry)
            return None
        key = answer_key(draft.answer)
        similarity, is_same, other = max(
            ((similarity, answer_key(other.answer) == key, other) for similarity, other in near), key=_rank
        )
        if not (merge and is_same):
            self._keep(signature, entry)
        return _pair(entry, other, similarity, draft.line, merge and is_same), other.fingerprint

    def _keep(self, signature: int, entry: Entry) -> None:
        self.is_full = self._n_entries >= MAX_INDEXED
        if not self.is_full:
            self._buckets[signature].append(entry)
            self._n_entries += 1


def describe(text: str) -> tuple[int, list[str]]:
    """What near-twins have in common exactly, as a hash; and their words and word pairs."""
    signature, words = [], []
    for token in _TOKEN.finditer(normalize("NFKC", text).replace("−", "-").replace("{,}", ",")):
        kind, said = token.lastgroup, token[token.lastgroup or 0]
        if kind == "word" and len(said) > 1 and not _WIDE.match(said):
            said = said.casefold()
            words.append(said)
            if said in _NUMBER_WORDS or said in _TURNING_WORDS:
                signature.append(said)
        elif kind == "word" and _WIDE.match(said):
            words += said
        elif kind == "command":
            signature += [] if said in _STYLING else [_SPELLED.get(said, said)]
        elif kind == "number":
            signature.append(said.replace(",", ""))
        elif not (_is_hyphen(token) or _is_article(token)):
            signature.append(said)
    pairs = [f"{one} {two}" for one, two in pairwise(words)]
    return hash(tuple(signature)), words + pairs


def _is_hyphen(token: re.Match[str]) -> bool:
    text, at = token.string, token.start()
    return token[0] == "-" and 0 < at < len(text) - 1 and text[at - 1].isalpha() and text[at + 1].isalpha()


def _is_article(token: re.Match[str]) -> bool:
    text, end = token.string, token.end()
    return token[0] in "aAI" and text[end : end + 1] == " " and text[end + 1 : end + 2].isalpha()


def _sketch(words: list[str]) -> rensa.RMinHash:
    sketch = rensa.RMinHash(num_perm=_N_PERMUTATIONS, seed=_SEED)
    sketch.update(words)
    return sketch


def _rank(found: tuple[float, bool, Entry]) -> tuple[float, bool]:
    return found[:2]


def _pair(entry: Entry, other: Entry, similarity: float, line: int, is_merged: bool) -> NearTwin:
    return NearTwin(
        line=line,
        other_line=other.line,
        other_ordinal=other.ordinal,
        similarity=round(similarity, 3),
        is_merged=is_merged,
        prompt=entry.text,
        other_prompt=other.text,
        answer=entry.answer[:_SHOWN],
        other_answer=other.answer[:_SHOWN],
    )
