"""The pages: search, similar titles, near-duplicates, signing in."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from sentence_forge.search.serve.api import LONGEST_QUERY, MOST_HITS, ask, ask_similar
from sentence_forge.search.serve.facets import facets, where_of
from sentence_forge.search.serve.guard import COOKIE, session_of
from sentence_forge.search.serve.marking import fields, local
from sentence_forge.search.serve.searcher import Found
from sentence_forge.search.serve.view import labeller_of, render
from sentence_forge.search.text_search import Hit, Pair

if TYPE_CHECKING:
    from sentence_forge.search.serve.app import Service

HITS = 20
_EXAMPLES = 5
_PAIRS_SHOWN = 100
_PATIENCE = 5.0  # seconds that the page of pairs waits


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
        where = where_of(request.query_params.multi_items())
        found = None if not q.strip() else (await ask(service, [q], k, where=where))[0]
        template = "hits" if part else "search"
        return await asyncio.to_thread(_hits_page, service, request, template, q, found, begun, where)

    @routes.get("/similar")
    async def similar(request: Request, id: str, k: Annotated[int, Query(ge=1, le=MOST_HITS)] = HITS) -> HTMLResponse:
        begun = time.perf_counter()
        title, found = await ask_similar(service, id, k)
        return await asyncio.to_thread(_hits_page, service, request, "similar", title, found, begun)

    @routes.get("/pairs")
    async def pairs(request: Request) -> HTMLResponse:
        try:
            _, found = await service.pairs.best(_PATIENCE)
        except HTTPException:
            return render(service, request, "pairs", 503, lines=None)
        return await asyncio.to_thread(_pairs_page, service, request, found[:_PAIRS_SHOWN])

    @routes.get("/api")
    async def api(request: Request) -> HTMLResponse:
        return render(service, request, "api", schema=request.app.openapi())

    _signing_in(routes, service)
    return routes


def _signing_in(routes: APIRouter, service: Service) -> None:
    @routes.get("/login")
    async def login(request: Request, back: str = "/") -> HTMLResponse:
        return render(service, request, "login", back=local(back), wrong=False)

    @routes.post("/login")
    async def sign_in(request: Request) -> Response:
        form = await fields(request)
        given, token = form.get("token", ""), service.token or ""
        if not token or not hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode()):
            return render(service, request, "login", 403, back=local(form.get("back", "/")), wrong=True)
        answer = RedirectResponse(local(form.get("back", "/")), 303)
        answer.set_cookie(COOKIE, session_of(token), max_age=30 * 86400, samesite="strict", httponly=True,
                          secure=request.url.scheme == "https")
        return answer


def _pairs_page(service: Service, request: Request, pairs: Sequence[Pair]) -> HTMLResponse:
    with service.live.reading() as index:
        thresholds = index.thresholds
    name = labeller_of(request)
    lines = [(pair, "" if thresholds is None else thresholds.of(pair.score),
              service.marks.of(pair.title1, [pair.title2], name).get(pair.title2, "")) for pair in pairs]
    return render(service, request, "pairs", lines=lines)


def _hits_page(service: Service, request: Request, template: str, query: str, found: Found | None,
               begun: float, where: Sequence[str] = ()) -> HTMLResponse:
    lines = [] if found is None else lines_of(service, query, found, labeller_of(request))
    took = f"{(time.perf_counter() - begun) * 1000:.1f}"
    with service.live.reading() as index:
        rows, shown = len(index), facets(index.kept) if template == "search" else []
        met = index.count_where(where) if where and found is not None else None
        examples = [] if found is not None else index.drawn(_EXAMPLES)
    return render(service, request, template, q=query, found=found, lines=lines, took=took, rows=rows,
                  examples=examples, facets=shown, chosen=request.query_params, met=met)


def lines_of(service: Service, query: str, found: Found, name: str) -> list[Line]:
    """Return the hits as a page shows them: those that nearly repeat an earlier one under it."""
    thresholds = found.thresholds
    marks = service.marks.of(query, [hit.title for hit in found.hits], name)
    lines = [Line(hit, "" if thresholds is None else thresholds.of(hit.score), marks.get(hit.title, ""))
             for hit in found.hits]
    for place, first in enumerate(found.under):
        if first != place:
            lines[first].alike.append(lines[place])
    return [line for place, line in enumerate(lines) if found.under[place] == place]
