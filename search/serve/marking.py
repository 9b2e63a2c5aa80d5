"""Giving marks: the routes behind the buttons, and the page that proposes what to mark next."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from sentence_forge.search.serve.api import ask, row_of
from sentence_forge.search.serve.judged import judged
from sentence_forge.search.serve.marks import KINDS, Mark
from sentence_forge.search.serve.proposals import LOOKED_AT, QUERIES, TO_TRAIN, enough, propose, queries_to_ask
from sentence_forge.search.serve.training import STEPS
from sentence_forge.search.serve.view import LABELLER, clean_name, labeller_of, render
from sentence_forge.search.text_search import Hit, TextSearch
from sentence_forge.search.thresholds import Thresholds

if TYPE_CHECKING:
    from sentence_forge.search.serve.app import Service

MOST_CHARACTERS = 20_000  # of a marked query: titles are queries, too
_LATEST = 8
_YEAR = 365 * 86400


def marking_routes(service: Service) -> APIRouter:
    """Return the routes that marks go through."""
    routes = APIRouter(include_in_schema=False)

    @routes.post("/marks")
    async def mark(request: Request) -> Response:
        form = await fields(request)
        query, row_id, kind = unquote(form.get("query", "")), unquote(form.get("id", "")), form.get("mark", "")
        if kind not in KINDS or not query.strip() or len(query) > MOST_CHARACTERS:
            raise HTTPException(422, "a mark needs a query, an id and one of " + ", ".join(KINDS))
        given = await asyncio.to_thread(_toggle, service, query, row_id, kind, labeller_of(request))
        return _done(request, form, {"mark": given, **await asyncio.to_thread(service.marks.counts)})

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

    @routes.get("/queue")
    async def queue(request: Request) -> HTMLResponse:
        marks = await asyncio.to_thread(service.marks.all)
        mine = [mark for mark in marks if mark.labeller == labeller_of(request)]
        drawn, thresholds = await asyncio.to_thread(_drawn, service)
        queries = queries_to_ask([mark.query for mark in mine], drawn)
        found = await ask(service, queries, LOOKED_AT)
        other = None if service.other is None else await asyncio.to_thread(_ask_other, service.other, queries)
        known = {query: {mark.text for mark in mine if mark.query == query} for query in queries}
        proposals = propose({query: each.hits for query, each in zip(queries, found, strict=True)}, other, thresholds,
                            known)
        return render(service, request, "queue", proposals=proposals, latest=mine[:_LATEST], thresholds=thresholds,
                      enough=enough(Counter(mark.mark for mark in marks)), to_train=TO_TRAIN,
                      queries=_both_sides(marks))

    _training(routes, service)
    return routes


def _training(routes: APIRouter, service: Service) -> None:
    @routes.get("/train")
    def train(request: Request, part: bool = False) -> HTMLResponse:
        return render(service, request, "training" if part else "train", progress=service.trainer.progress,
                      steps=STEPS, why_not=service.trainer.why_not, commands=service.trainer.shown(),
                      marks=sum(service.marks.counts().values()), to_train=TO_TRAIN,
                      queries=_both_sides(service.marks.all()))

    @routes.post("/train")
    def start(request: Request) -> Response:
        if not service.trainer.start():
            raise HTTPException(409, "a training is under way already, or there is no model to train on")
        return RedirectResponse("/train", 303)

    @routes.post("/train/stop")
    def stop(request: Request) -> Response:
        service.trainer.stop()
        return RedirectResponse("/train", 303)


def _both_sides(marks: list[Mark]) -> int:
    """Return how many queries have right and wrong hits."""
    return sum(bool(texts["right"] and texts["wrong"]) for texts in judged(marks).queries.values())


def _drawn(service: Service) -> tuple[list[str], Thresholds | None]:
    """Return titles drawn by chance, the same until the index changes, and the index's thresholds."""
    with service.live.reading() as index:
        return [title for _, title in index.drawn(QUERIES, seed=sum(index.state))], index.thresholds


def _ask_other(other: TextSearch, queries: list[str]) -> dict[str, list[Hit]]:
    return dict(zip(queries, other.search(queries, LOOKED_AT), strict=True))


def _toggle(service: Service, query: str, row_id: str, kind: str, name: str) -> str:
    """Give a mark, or take it back where it stands already; return what stands then, or nothing."""
    with service.live.reading() as index:
        text = index.titles_of([row_of(index, row_id)])[0]
    if service.marks.of(query, [text], name).get(text) == kind:
        service.marks.remove(query, text, name)
        return ""
    service.marks.set(query, row_id, text, kind, name)
    return kind


async def fields(request: Request) -> dict[str, str]:
    """Return a form's fields; of those that repeat the first.

    Raises:
        HTTPException: the body is no form.
    """
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise HTTPException(415, "send a form (application/x-www-form-urlencoded)")
    try:
        found = parse_qs((await request.body()).decode(), max_num_fields=50)
    except ValueError:
        raise HTTPException(422, "the form can't be read") from None
    return {name: values[0] for name, values in found.items()}


def _done(request: Request, form: dict[str, str], answer: dict[str, Any]) -> Response:
    """Answer the script with JSON, and a form without script with the page it was on."""
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse(answer)
    return RedirectResponse(local(unquote(form.get("back", "/"))), 303)


def local(address: str) -> str:
    """Return an address of this server, or its first page where it is none."""
    safe = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if safe else "/"
