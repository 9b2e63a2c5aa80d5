"""What one who asks much, slowly or for long can't do to a server."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sqlite3
import time
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from corpora import WordEncoder, build, titles_like, unit_vectors
from serving import served
from starlette.exceptions import HTTPException

from sentence_forge.encoders.similarity import FloatArray
from sentence_forge.search.indexing import index_corpus
from sentence_forge.search.pairs import most_similar_pairs
from sentence_forge.search.serve.live import LiveIndex
from sentence_forge.search.serve.meters import Meters
from sentence_forge.search.serve.pairs import MOST, Pairs
from sentence_forge.search.serve.searcher import Searcher

TITLES = ["storm hits coast", "storm hits the coast", "opera opens", "markets fall"]


@pytest.mark.parametrize(("path", "name"), [("/", "filter"), ("/", "is.source"), ("/api/search", "filter")])
def test_conditions_are_bounded(tmp_path: Path, path: str, name: str) -> None:
    index_corpus(tmp_path, list("1234"), TITLES, WordEncoder(), kept={"source": list("abcd")})
    start = "source=" if name == "filter" else ""
    with served(tmp_path) as client:
        for values, status in ((["a"] * 20, 200), (["a"] * 21, 422), (["a" * 493], 200), (["a" * 494], 422)):
            assert client.get(path, **{"q": "storm", name: [start + value for value in values]}).status == status


HEAD = b"POST /api/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 22\r\n\r\n"
WHOLE = HEAD + b'{"queries": ["storm"]}'


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize(("sent", "at_once"), [
    (b"", True), (HEAD[:40], True), (WHOLE[:-1], True), (WHOLE + HEAD[:40], True), (WHOLE + HEAD, True), (HEAD, False)])
def test_who_does_not_send_a_request_to_its_end_is_cut_off(tmp_path: Path, sent: bytes, at_once: bool,
                                                           answered: bool) -> None:
    build(tmp_path, TITLES)
    with served(tmp_path, idle=1) as client, socket.create_connection(("127.0.0.1", client.port)) as caller:
        if answered:
            caller.sendall(WHOLE)
            assert caller.recv(4096).startswith(b"HTTP/1.1 200")
        begun, left = time.monotonic(), sent
        caller.settimeout(0.2)
        if at_once:
            caller.sendall(left)
        with contextlib.suppress(ConnectionError):
            while True:
                with contextlib.suppress(TimeoutError):
                    if not caller.recv(4096):
                        break
                assert time.monotonic() - begun < 8
                if not at_once:
                    caller.sendall(left[:1])
                    left = left[1:]


class Slow(WordEncoder):
    """It takes longer than a client is waited for."""

    def encode(self, texts: Sequence[str], role: str | None = None) -> np.ndarray:
        time.sleep(3.5)
        return super().encode(texts, role)


def test_who_waits_for_an_answer_is_not_cut_off(tmp_path: Path) -> None:
    build(tmp_path, TITLES)
    with served(tmp_path, idle=1, encoder=Slow()) as client:
        assert client.post("/api/search", {"queries": ["storm"]}).status == 200


def test_what_is_remembered_of_texts_does_not_grow_with_their_length(tmp_path: Path) -> None:
    class Forgetful(WordEncoder):
        def encode(self, texts: Sequence[str], role: str | None = None) -> FloatArray:
            return np.ones((len(texts), self.dim), np.float32)

    build(tmp_path, TITLES)
    live = LiveIndex(tmp_path, Forgetful(), seconds=600)
    searcher = Searcher(live, Meters())
    tracemalloc.start()
    try:
        for number in range(200):
            assert len(searcher.encode([f"{number} " + "x" * 50_000], None).result().vectors) == 1
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()
        searcher.close()
        live.close()


def test_marks_that_another_process_holds_for_too_long_are_refused_for_now(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentence_forge.search.serve.marks.WAIT", 0.1)
    build(tmp_path, TITLES)
    with served(tmp_path) as client:
        other = sqlite3.connect(tmp_path / "marks.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        mark = {"query": "storm", "id": "1", "mark": "right"}
        refused = client.form("/marks", mark)
        assert refused.status == 503 and "the marks can't be read or written now" in refused.text
        other.execute("ROLLBACK")
        other.close()
        assert client.form("/marks", mark).status in (200, 303)


@pytest.mark.parametrize("path", ["/queue", "/pairs"])
def test_the_server_answers_while_marks_wait_for_another_process(tmp_path: Path, path: str) -> None:
    build(tmp_path, TITLES)
    with served(tmp_path) as client, ThreadPoolExecutor(2) as callers:
        other = sqlite3.connect(tmp_path / "marks.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        mark = callers.submit(client.form, "/marks", {"query": "storm", "id": "1", "mark": "right"})
        time.sleep(2)
        page = callers.submit(client.get, path)
        time.sleep(0.5)
        begun = time.monotonic()
        assert client.get("/healthz").status == 200
        took = time.monotonic() - begun
        waits = not mark.done() and not page.done()
        other.close()
        assert mark.result().status == 303 and page.result().status == 200
        assert waits and took < 2


@pytest.mark.parametrize("exact_up_to", [10_000, 1000])
def test_a_search_for_pairs_can_be_ended(exact_up_to: int) -> None:
    class EndedError(Exception):
        pass

    def after(calls: int) -> Callable[[], None]:
        left = iter(range(calls))

        def check() -> None:
            if next(left, None) is None:
                raise EndedError
        return check

    vectors = unit_vectors(5000, 8)
    for calls in range(6):
        with pytest.raises(EndedError):
            most_similar_pairs(vectors, np.arange(5000), 10, exact_up_to, after(calls))


def test_a_server_ends_while_pairs_are_looked_for(tmp_path: Path) -> None:
    build(tmp_path, titles_like(20_000))
    live = LiveIndex(tmp_path, WordEncoder(), seconds=600)
    pairs = Pairs(live)

    async def impatient() -> float:
        with pytest.raises(HTTPException, match="still being looked for"):
            await pairs.best(0.01)
        begun = time.monotonic()
        pairs.close()
        return time.monotonic() - begun

    try:
        with live.reading() as index:
            begun = time.monotonic()
            assert len(index.pairs(MOST)) == MOST
            took = time.monotonic() - begun
        assert asyncio.run(impatient()) < took / 2
    finally:
        live.close()
