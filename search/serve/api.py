"""The API: search, neighbours, near-duplicates, embeddings in OpenAI's form, health and counters."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, StringConstraints
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse

from sentence_forge.encoders.protocol import Role
from sentence_forge.encoders.similarity import FloatArray, normalise
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.kept import conditions
from sentence_forge.search.serve.searcher import Encoded, Found
from sentence_forge.search.text_search import TextSearch

if TYPE_CHECKING:
    from sentence_forge.search.serve.app import Service

MOST_HITS = 100
MOST_PAIRS = 1000
MOST_QUERIES = 256
MOST_INPUTS = 2048
LONGEST_QUERY = 2000
LONGEST_INPUT = 50_000
MOST_CONDITIONS = 20
LONGEST_CONDITION = 500
_ENCODED_AT_ONCE = 32  # of a long list, so that searches come in between
_PAIRS_PATIENCE = 20.0

Text = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_QUERY)]
Input = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_INPUT)]
Condition = Annotated[str, StringConstraints(max_length=LONGEST_CONDITION)]
K = Annotated[int, Query(ge=1, le=MOST_HITS, description="hits a query")]
Where = Annotated[list[Condition], Query(
    max_length=MOST_CONDITIONS, description="conditions on kept columns, such as source=x or date>=2026-01-01")]


class SearchBatch(BaseModel):
    """Several queries at once."""

    queries: Annotated[list[Text], Field(min_length=1, max_length=MOST_QUERIES)]
    k: Annotated[int, Field(ge=1, le=MOST_HITS)] = 10
    exact: bool = False
    filter: Annotated[list[Condition], Field(max_length=MOST_CONDITIONS)] = []


class Embeddings(BaseModel):
    """OpenAI's request for embeddings; ``input_type`` is ours: what the texts are in a search."""

    input: Input | Annotated[list[Input], Field(min_length=1, max_length=MOST_INPUTS)]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None
    input_type: Role | None = None


def api_routes(service: Service) -> APIRouter:
    """Return the routes of the API."""
    routes = APIRouter()

    @routes.get("/api/search", summary="The titles most similar to a query")
    async def search(q: Annotated[str, Query(min_length=1, max_length=LONGEST_QUERY)], k: K = 10,
                     exact: bool = False, filter: Where = []) -> JSONResponse:  # noqa: B006
        begun = time.perf_counter()
        found = await ask(service, [q], k, exact=exact, where=filter)
        return JSONResponse({"took_ms": _ms(begun), **_json(q, found[0])})

    @routes.post("/api/search", summary="Several queries at once")
    async def search_batch(asked: SearchBatch) -> JSONResponse:
        begun = time.perf_counter()
        found = await ask(service, asked.queries, asked.k, exact=asked.exact, where=asked.filter)
        return JSONResponse({"took_ms": _ms(begun), "results": [
            _json(query, each) for query, each in zip(asked.queries, found, strict=True)]})

    @routes.get("/api/similar/{row_id:path}", summary="The titles most similar to one of the index")
    async def similar(row_id: str, k: K = 10) -> JSONResponse:
        begun = time.perf_counter()
        title, found = await ask_similar(service, row_id, k)
        return JSONResponse({"took_ms": _ms(begun), "id": row_id, **_json(title, found)})

    @routes.get("/api/pairs", summary="The most similar pairs of different titles")
    async def pairs(k: Annotated[int, Query(ge=1, le=MOST_PAIRS)] = 100) -> JSONResponse:
        generation, found = await service.pairs.best(_PAIRS_PATIENCE)
        return JSONResponse({"generation": generation, "pairs": [pair._asdict() for pair in found[:k]]})

    _embedding_routes(routes, service)
    _health_routes(routes, service)
    return routes


def _embedding_routes(routes: APIRouter, service: Service) -> None:
    @routes.post("/v1/embeddings", summary="Texts to vectors, as OpenAI's API has it")
    async def embeddings(asked: Embeddings) -> JSONResponse:
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        _check_texts(texts)
        vectors, tokens = await _encode(service, texts, asked.input_type)
        if asked.dimensions is not None and asked.dimensions != vectors.shape[1]:
            if asked.dimensions > vectors.shape[1]:
                raise HTTPException(400, f"dimensions: the model's vectors have {vectors.shape[1]} numbers")
            vectors = normalise(vectors[:, :asked.dimensions])
        data = [{"object": "embedding", "index": number,
                 "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode()
                 if asked.encoding_format == "base64" else vector.tolist()} for number, vector in enumerate(vectors)]
        return JSONResponse({"object": "list", "data": data, "model": service.name,
                             "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})

    @routes.get("/v1/models", summary="The one model that is served")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": service.name, "object": "model", "created": 0,
                                            "owned_by": "sentence-forge"}]}


def _health_routes(routes: APIRouter, service: Service) -> None:
    @routes.get("/healthz", summary="Whether the server answers, and from which generation")
    def health() -> dict[str, Any]:
        with service.live.reading() as index:
            return {"status": "ok", "generation": index.generation, "rows": len(index)}

    @routes.get("/metrics", summary="Counters for Prometheus")
    def metrics() -> PlainTextResponse:
        with service.live.reading() as index:
            gauges = {"index_generation": index.generation, "index_rows": len(index)}
        return PlainTextResponse(service.meters.text(gauges), media_type="text/plain; version=0.0.4")


async def ask(service: Service, queries: list[str], k: int, *, exact: bool = False,
              where: Sequence[str] = ()) -> list[Found]:
    """Return what each query finds.

    Raises:
        HTTPException: a query is blank, or can't be encoded; a condition is none, or on a column that isn't kept; there
            are too many, or one is too long.
    """
    _check_texts(queries)
    if len(where) > MOST_CONDITIONS or any(len(condition) > LONGEST_CONDITION for condition in where):
        raise HTTPException(422, f"at most {MOST_CONDITIONS} filters, of {LONGEST_CONDITION} characters each")
    if where:
        await asyncio.to_thread(_check_conditions, service, where)
    return await asyncio.wrap_future(service.searcher.search(queries, k, exact=exact, where=where))


def _check_conditions(service: Service, where: Sequence[str]) -> None:
    with service.live.reading() as index:
        try:
            conditions(where, index.kept.names)
        except UserError as error:
            raise HTTPException(422, str(error)) from None


async def ask_similar(service: Service, row_id: str, k: int) -> tuple[str, Found]:
    """Return a row's title and what is most similar to it, without itself.

    Raises:
        HTTPException: there is no such row.
    """
    title, vector = await asyncio.to_thread(_row, service, row_id)
    found = (await asyncio.wrap_future(service.searcher.search([title], k + 1, vectors=vector)))[0]
    return title, without(found, row_id, k)


def without(found: Found, row_id: str, k: int) -> Found:
    """Return the first ``k`` hits that are not the row ``row_id``."""
    kept = [place for place, hit in enumerate(found.hits) if hit.id != row_id][:k]
    new = {old: place for place, old in enumerate(kept)}
    hits = [found.hits[old]._replace(rank=place) for place, old in enumerate(kept, start=1)]
    firsts: dict[int, int] = {}  # those that stood under the row itself stand under the first of them
    under = [firsts.setdefault(found.under[old], new.get(found.under[old], new[old])) for old in kept]
    return found._replace(hits=hits, under=under)


def _row(service: Service, row_id: str) -> tuple[str, FloatArray]:
    with service.live.reading() as index:
        row = row_of(index, row_id)
        return index.titles_of([row])[0], index.vectors_of([row])


def row_of(index: TextSearch, row_id: str) -> int:
    """Return the row with an id.

    Raises:
        HTTPException: there is none.
    """
    row = index.row_of(row_id)
    if row is None:
        raise HTTPException(404, "there is no such id in the index")
    return row


async def _encode(service: Service, texts: list[str], role: Role | None) -> Encoded:
    made = [await asyncio.wrap_future(service.searcher.encode(texts[start:start + _ENCODED_AT_ONCE], role))
            for start in range(0, len(texts), _ENCODED_AT_ONCE)]
    return Encoded(np.concatenate([each.vectors for each in made]), sum(each.tokens for each in made))


def _check_texts(texts: list[str]) -> None:
    for text in texts:
        if not text.strip():
            raise HTTPException(422, "a text is blank; type some words")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise HTTPException(422, "a text holds half a character (a lone surrogate)") from None


def _json(query: str, found: Found) -> dict[str, Any]:
    thresholds = found.thresholds
    return {"query": query, "generation": found.generation, "rows": found.rows, "hits": [
        {**hit.as_json(), **({} if thresholds is None else {"mark": thresholds.of(hit.score)}),
         **({} if under == place else {"repeats": found.hits[under].id})}
        for place, (hit, under) in enumerate(zip(found.hits, found.under, strict=True))]}


def _ms(begun: float) -> float:
    return round((time.perf_counter() - begun) * 1000, 3)


