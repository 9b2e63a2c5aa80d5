"""The pages: search, similar titles, near-duplicates, signing in; and the marks that are given on them."""

from __future__ import annotations

import asyncio
import hmac
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qs, quote, unquote

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from sentence_forge.search.index import Hit
from sentence_forge.search.serve.api import LONGEST_QUERY, MOST_HITS, ask, ask_similar, row_of
from sentence_forge.search.serve.errors import Refused
from sentence_forge.search.serve.guard import COOKIE, session_of
from sentence_forge.search.serve.marks import KINDS
from sentence_forge.search.serve.searcher import Found
from sentence_forge.search.serve.view import LABELLER, clean_name, labeller_of, render
from sentence_forge.search.thresholds import Thresholds

if TYPE_CHECKING:
    from sentence_forge.search.serve.app import Service

HITS = 20
_EXAMPLES = 5
_PAIRS_SHOWN = 100
_PATIENCE = 5.0  # seconds that the page of pairs waits
MOST_CHARACTERS = 20_000  # of a marked query: titles are queries, too
_YEAR = 365 * 86400


@dataclass
class Line:
    """A hit on a page: what the export's thresholds say of its score, what the reader said of it, those under it."""

    hit: Hit
    level: str
    mark: str
    alike: list[Line] = field(default_factory=list)


def page_routes(service: Service) -> APIRouter:
    """Return the routes of the pages; they are no part of the API's description."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    async def home(request: Request, q: Annotated[str, Query(max_length=LONGEST_QUERY)] = "",
                   k: Annotated[int, Query(ge=1, le=MOST_HITS)] = HITS, part: bool = False) -> HTMLResponse:
        begun = time.perf_counter()
        found = None if not q.strip() else (await ask(service, [q], k))[0]
        return _hits_page(service, request, "hits" if part else "search", q, found, begun)

    @routes.get("/similar")
    async def similar(request: Request, id: str, k: Annotated[int, Query(ge=1, le=MOST_HITS)] = HITS) -> HTMLResponse:
        begun = time.perf_counter()
        title, found = await ask_similar(service, id, k)
        return _hits_page(service, request, "similar", title, found, begun)

    @routes.get("/pairs")
    async def pairs(request: Request) -> HTMLResponse:
        try:
            _, found = await service.pairs.best(_PATIENCE)
        except Refused:
            return render(service, request, "pairs", 503, lines=None)
        thresholds = _thresholds(service)
        name = labeller_of(request)
        lines = [(pair, "" if thresholds is None else thresholds.of(pair.score),
                  service.marks.of(pair.title1, [pair.title2], name).get(pair.title2, ""))
                 for pair in found[:_PAIRS_SHOWN]]
        return render(service, request, "pairs", lines=lines)

    @routes.get("/api")
    async def api(request: Request) -> HTMLResponse:
        return render(service, request, "api", schema=request.app.openapi())

    _marking(routes, service)
    _signing_in(routes, service)
    return routes


def _marking(routes: APIRouter, service: Service) -> None:
    @routes.post("/marks")
    async def mark(request: Request) -> Response:
        form = await fields(request)
        query, row_id, kind = unquote(form.get("query", "")), unquote(form.get("id", "")), form.get("mark", "")
        if kind not in KINDS or not query.strip() or len(query) > MOST_CHARACTERS:
            raise Refused(422, "a mark needs a query, an id and one of " + ", ".join(KINDS))
        name = labeller_of(request)
        given = await asyncio.to_thread(_toggle, service, query, row_id, kind, name)
        return _done(request, form, {"mark": given, **service.marks.counts()})

    @routes.post("/undo")
    async def undo(request: Request) -> Response:
        form = await fields(request)
        undone = await asyncio.to_thread(service.marks.undo, labeller_of(request))
        return _done(request, form, {"undone": None if undone is None else undone._asdict()})

    @routes.post("/labeller")
    async def labeller(request: Request) -> Response:
        form = await fields(request)
        answer = _done(request, form, {"labeller": clean_name(form.get("name", ""))})
        answer.set_cookie(LABELLER, quote(clean_name(form.get("name", ""))), max_age=_YEAR, samesite="strict",
                          httponly=True)
        return answer


def _toggle(service: Service, query: str, row_id: str, kind: str, name: str) -> str:
    """Give a mark, or take it back where it stands already; return what stands then, or nothing."""
    with service.live.reading() as index:
        text = index.titles[row_of(index, row_id)]
    if service.marks.of(query, [text], name).get(text) == kind:
        service.marks.remove(query, text, name)
        return ""
    service.marks.set(query, row_id, text, kind, name)
    return kind


def _signing_in(routes: APIRouter, service: Service) -> None:
    @routes.get("/login")
    async def login(request: Request, back: str = "/") -> HTMLResponse:
        return render(service, request, "login", back=_local(back), wrong=False)

    @routes.post("/login")
    async def sign_in(request: Request) -> Response:
        form = await fields(request)
        given, token = form.get("token", ""), service.token or ""
        if not token or not hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode()):
            return render(service, request, "login", 403, back=_local(form.get("back", "/")), wrong=True)
        answer = RedirectResponse(_local(form.get("back", "/")), 303)
        answer.set_cookie(COOKIE, session_of(token), max_age=30 * 86400, samesite="strict", httponly=True,
                          secure=request.url.scheme == "https")
        return answer


async def fields(request: Request) -> dict[str, str]:
    """Return a form's fields; of those that repeat the first.

    Raises:
        Refused: the body is no form.
    """
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise Refused(415, "send a form (application/x-www-form-urlencoded)")
    try:
        found = parse_qs((await request.body()).decode(), max_num_fields=50)
    except ValueError:
        raise Refused(422, "the form can't be read") from None
    return {name: values[0] for name, values in found.items()}


def _done(request: Request, form: dict[str, str], answer: dict[str, Any]) -> Response:
    """Answer the script with JSON, and a form without script with the page it was on."""
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse(answer)
    return RedirectResponse(_local(unquote(form.get("back", "/"))), 303)


def _local(address: str) -> str:
    """Return an address of this server, or its first page where it is none."""
    safe = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if safe else "/"


def _thresholds(service: Service) -> Thresholds | None:
    with service.live.reading() as index:
        return index.thresholds


def _hits_page(service: Service, request: Request, template: str, query: str, found: Found | None,
               begun: float) -> HTMLResponse:
    lines = [] if found is None else lines_of(service, query, found, labeller_of(request))
    took = f"{(time.perf_counter() - begun) * 1000:.1f}"
    with service.live.reading() as index:
        rows = len(index.ids)
        examples = [] if found is not None else [(index.ids[row], index.titles[row]) for row in drawn(rows, _EXAMPLES)]
    return render(service, request, template, q=query, found=found, lines=lines, took=took, rows=rows,
                  examples=examples)


def drawn(rows: int, count: int) -> list[int]:
    """Return ``count`` rows drawn by chance, others each time, rising."""
    return sorted(random.sample(range(rows), min(rows, count)))


def lines_of(service: Service, query: str, found: Found, name: str) -> list[Line]:
    """Return the hits as a page shows them: those that nearly repeat an earlier one under it."""
    thresholds = _thresholds(service)
    marks = service.marks.of(query, [hit.title for hit in found.hits], name)
    lines = [Line(hit, "" if thresholds is None else thresholds.of(hit.score), marks.get(hit.title, ""))
             for hit in found.hits]
    for place, first in enumerate(found.under):
        if first != place:
            lines[first].alike.append(lines[place])
    return [line for place, line in enumerate(lines) if found.under[place] == place]
