"""Clean a corpus's titles of HTML, invisible characters and the like, each only where it is asked for."""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from sentence_forge.runtime.errors import UserError, one_of

_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,500}>|<!--.*?-->", re.DOTALL)
_FULL_WIDTH = re.compile("[\u3000\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff61-\uff9f]+")
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")

CLEANINGS = {
    "tags": lambda text: _TAG.sub("", text),
    "entities": html.unescape,
    "width": lambda text: _FULL_WIDTH.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text),
    "invisible": lambda text: _INVISIBLE.sub("", text),
    "nul": lambda text: text.replace("\0", ""),
    "blanks": lambda text: " ".join(text.split()),
}
"""In the order in which they are done: HTML tags, HTML entities, full-width letters and digits and half-width kana made
plain, zero-width and other invisible characters, NUL, runs of white space made one space."""


class Cleaner:
    """Cleans titles, and counts which cleaning changed how many.

    Args:
        names: of ``CLEANINGS``, or ``all``.

    Raises:
        UserError: there is no such cleaning.

    >>> Cleaner(["entities"]).clean("Tom &amp; Jerry")
    'Tom & Jerry'
    """

    def __init__(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in CLEANINGS and name != "all":
                raise UserError(f"corpus.clean: there is no {name!r}; {one_of([*CLEANINGS, 'all'], name)}")
        self.names = [name for name in CLEANINGS if name in names or "all" in names]
        self.changed: Counter[str] = Counter()

    def clean(self, text: str) -> str:
        """Return a title cleaned."""
        for name in self.names:
            cleaned = CLEANINGS[name](text)
            self.changed[name] += cleaned != text
            text = cleaned
        return text
