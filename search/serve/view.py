"""Pages from templates: every value is escaped, in the words of the reader's language."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from sentence_forge.search.serve.proposals import TO_TRAIN

if TYPE_CHECKING:
    from sentence_forge.search.serve.app import Service

LABELLER = "labeller"
LONGEST_NAME = 60
LONGEST_SHOWN = 600
NOBODY = "anonymous"
# what a browser obeys within a text: control characters, and marks of direction that reach beyond it
_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def render(service: Service, request: Request, template: str, status: int = 200, **context: object) -> HTMLResponse:
    """Return a template of ``templates/``, filled in.

    Args:
        service: what the page is of.
        request: whose language, labeller and address the page is for.
        template: the file's name without ``.html.j2``.
        status: of the answer.
        **context: what the template needs.
    """
    language = language_of(request.headers.get("accept-language", ""))
    here = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
    page = _environment().get_template(f"{template}.html.j2").render(
        t=Words(language), lang={"zh": "zh-CN"}.get(language, language), service=service,
        path=request.url.path, here=here, labeller=labeller_of(request), **context)
    return HTMLResponse(page, status, {"vary": "accept-language, cookie"})


class Words:
    """The interface's words in one language; called with a key, and what stands in its braces."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._words = words()[language]

    def __call__(self, key: str, **values: object) -> str:
        """Return the words for ``key``."""
        return self._words[key].format(**values)

    @property
    def script(self) -> str:
        """What the script needs of them, as JSON."""
        words = {key: self._words[key] for key in ("failed", "undone")}
        return json.dumps({**words, "marked": self("enough_train", n="{n}", aim=TO_TRAIN)}, ensure_ascii=False)


@cache
def words() -> Mapping[str, Mapping[str, str]]:
    """Return the words of each language."""
    text = resources.files("sentence_forge.search.serve").joinpath("words.json").read_text(encoding="utf-8")
    found: Mapping[str, Mapping[str, str]] = json.loads(text)
    return found


def language_of(accepted: str) -> str:
    """Return the first language of an Accept-Language header, by its weights, that there are words in; else English."""
    weighed = []
    for place, part in enumerate(accepted.split(",")[:20]):
        name, _, weight = part.strip().partition(";q=")
        try:
            weighed.append((-float(weight or 1), place, name.lower().partition("-")[0]))
        except ValueError:
            continue
    return next((name for weight, _, name in sorted(weighed) if name in words() and weight < 0), "en")


def labeller_of(request: Request) -> str:
    """Return who marks: the name in the browser's cookie."""
    return clean_name(unquote(request.cookies.get(LABELLER, "")))


def clean_name(name: str) -> str:
    """Return a labeller's name in one short line, or `NOBODY`."""
    return " ".join(_HARMFUL.sub("", name).split())[:LONGEST_NAME].strip() or NOBODY


def shown(text: str) -> str:
    """Return a text in which every control character and mark of direction is U+FFFD."""
    return _HARMFUL.sub("\ufffd", text)


def short(text: str) -> str:
    """Return a text of at most `LONGEST_SHOWN` characters."""
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"


def web_address(text: str) -> bool:
    """Return whether a text is an address of the web that a page may link to."""
    return re.match(r"https?://[^\s\"'<>\\]+$", text) is not None and len(text) <= 2000


def quoted(text: str) -> str:
    """Return a text percent-encoded, for addresses and for fields of forms: it comes back as it was."""
    return quote(text, safe="")


@cache
def _environment() -> Environment:
    made = Environment(loader=PackageLoader("sentence_forge.search.serve"), autoescape=True, undefined=StrictUndefined,
                       finalize=_finalize, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"count": "{:,}".format, "quoted": quoted, "short": short}
    made.tests |= {"web_address": web_address}
    return made


def _finalize(value: object) -> object:
    return value if isinstance(value, Markup) or not isinstance(value, str) else shown(value)
