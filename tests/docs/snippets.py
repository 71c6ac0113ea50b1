"""Code that the documentation shows, for tests that run it."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def snippet(page: str, word: str, language: str = "python") -> str:
    """The one block of a page, in a language, that holds a word."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    (found,) = [text for text in blocks if word in text]
    return str(found)
