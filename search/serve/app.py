"""The application: an index, who searches it, the marks, and the routes over them."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.runtime.errors import UserError, printable
from sentence_forge.search.places import is_address
from sentence_forge.search.serve.guard import Guard, Limits, refusal
from sentence_forge.search.serve.live import LiveIndex
from sentence_forge.search.serve.marks import Marks
from sentence_forge.search.serve.meters import Meters
from sentence_forge.search.serve.pairs import Pairs
from sentence_forge.search.serve.searcher import Searcher
from sentence_forge.search.serve.training import Trainer
from sentence_forge.search.serve.view import render
from sentence_forge.search.text_search import TextSearch

log = logging.getLogger(__name__)
STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True)
class Service:
    """What the routes stand on.

    Args:
        name: how the model is called: the export's folder, without its path.
        live: the index.
        searcher: encodes and searches.
        pairs: near-duplicates.
        marks: what people said of hits.
        meters: counters.
        token: see `guard.Guard`.
        trainer: trains on the marks.
        other: another model's index of the corpus, whose hits are marked too where they differ.
    """

    name: str
    live: LiveIndex
    searcher: Searcher
    pairs: Pairs
    marks: Marks
    meters: Meters
    token: str | None
    trainer: Trainer
    other: TextSearch | None


def make_app(place: str | Path, *, token: str | None = None, encoder: TextEncoder | None = None,
             model: str | None = None, limits: Limits | None = None, other: TextSearch | None = None,
             work: str | Path = "outputs/serve") -> FastAPI:
    """Return the application over an index.

    Args:
        place: an export's output folder, the ``index`` folder in it, or a database's address.
        token: see `guard.Guard`.
        encoder: of the queries; by default the export's own.
        model: of a database, the export with the model; see `open_index`.
        limits: of one address.
        other: see `Service`; it is closed at the end.
        work: where trainings that are started from the page get their folders.

    Raises:
        UserError: there is no index, or no encoder for it.
    """
    from sentence_forge.search.serve.api import api_routes
    from sentence_forge.search.serve.marking import marking_routes
    from sentence_forge.search.serve.pages import page_routes

    live, meters = LiveIndex(place, encoder, model), Meters()
    with live.reading() as index:
        marks, export = Marks(index.marks_folder), index.export
    typed = str(export) if is_address(place) else str(place)
    service = Service(export.resolve().name, live, Searcher(live, meters), Pairs(live), marks, meters, token,
                      Trainer(typed, live, marks, Path(work)), other)

    @contextlib.asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.trainer.stop()
        service.searcher.close()
        service.pairs.close()
        service.marks.close()
        live.close()
        if other is not None:
            other.close()

    app = FastAPI(title="sentence-forge search", docs_url=None, redoc_url=None, lifespan=running,
                  description=f"Search over the index {service.name}.")
    app.state.service = service
    app.include_router(api_routes(service))
    app.include_router(page_routes(service))
    app.include_router(marking_routes(service))
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_middleware(Guard, token=token, limits=limits or Limits(), meters=meters)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(UserError, _unreadable)
    app.add_exception_handler(sqlite3.OperationalError, _marks_are_busy)
    app.add_exception_handler(Exception, _failed)
    return app


async def _http(request: Request, error: Exception) -> Response:
    """Say on a page what was refused to a person who went to one; in JSON to everybody else."""
    assert isinstance(error, HTTPException)
    programs = request.url.path.startswith(("/api/", "/v1/", "/static/")) or "part" in request.query_params
    if programs or "text/html" not in request.headers.get("accept", ""):
        return refusal(request.url.path, error)
    return render(request.app.state.service, request, "error", error.status_code, message=error.detail)


async def _invalid(request: Request, error: Exception) -> Response:
    """Say the first thing that is wrong with a request, without repeating what was sent."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(printable(str(part))[:80] for part in first["loc"] if part not in ("query", "body", "path"))
    status = 400 if request.url.path.startswith("/v1/") else 422
    return await _http(request, HTTPException(status, f"{where or 'request'}: {first['msg']}"))


async def _unreadable(request: Request, error: Exception) -> Response:
    log.warning("%s", error)
    return await _http(request, HTTPException(503, "the index can't be read now; try again later"))


async def _marks_are_busy(request: Request, error: Exception) -> Response:
    assert isinstance(error, sqlite3.OperationalError)
    if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL,
                                             sqlite3.SQLITE_IOERR):
        raise error
    log.warning("%s: %s", request.app.state.service.marks.path, error)
    return await _http(request, HTTPException(503, "the marks can't be read or written now; try again later"))


async def _failed(request: Request, error: Exception) -> Response:
    return refusal(request.url.path, HTTPException(500, "the server failed at this; its log says why"))
