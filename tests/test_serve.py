"""The server as programs use it: searches, embeddings, new generations, what it refuses."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from conftest import TINY, Done
from corpora import WordEncoder, build, titles_like
from serving import Client, Tags, served
from transformers import AutoTokenizer

from sentence_forge.encoders.similarity import normalise
from sentence_forge.search.index import Index
from sentence_forge.search.indexing import index_corpus
from sentence_forge.search.kept import Kept
from sentence_forge.search.serve.guard import Limits
from sentence_forge.search.serve.live import LiveIndex

TITLES = ["storm hits coast", "storm hits the coast", "opera opens", "markets fall", "京津冀 秋冬",
          "markets fall again"]
IDS = ["a/1", "b 2", "三", "d?#", "e", "f"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("served")
    build(folder, TITLES, IDS)
    with served(folder) as client:
        yield client


def test_a_search_finds_what_the_index_finds(tmp_path: Path) -> None:
    titles = titles_like(300)
    build(tmp_path, titles)
    queries = ["storm opera report", "drought robots"]
    with served(tmp_path) as client, Index.open(tmp_path, WordEncoder()) as index:
        expected = [[(hit.id, hit.title, pytest.approx(hit.score, abs=1e-6)) for hit in hits]
                    for hits in index.search(queries, 7)]
        one = client.get("/api/search", q=queries[0], k=7)
        assert one.status == 200 and one.json["rows"] == 300 and one.json["generation"] == 1
        assert [(hit["id"], hit["title"], hit["score"]) for hit in one.json["hits"]] == expected[0]
        both = client.post("/api/search", {"queries": queries, "k": 7}).json["results"]
        assert [[(hit["id"], hit["title"], hit["score"]) for hit in each["hits"]] for each in both] == expected


def test_rows_are_found_by_any_id_and_leave_themselves_out(client: Client) -> None:
    for name, title in zip(IDS, TITLES, strict=True):
        found = client.get(f"/api/similar/{quote(name, safe='')}", k=3).json
        assert found["query"] == title and len(found["hits"]) == 3
        assert name not in [hit["id"] for hit in found["hits"]]
        assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    assert client.get("/api/similar/nobody").status == 404


def test_near_duplicates_are_pairs_and_are_folded(tmp_path: Path) -> None:
    words = " ".join(f"word{number}" for number in range(30))
    build(tmp_path, [f"{words} a", "opera opens", f"{words} b", f"{words} c"])
    with served(tmp_path) as client:
        pairs = client.get("/api/pairs", k=3).json["pairs"]
        assert {frozenset((pair["id1"], pair["id2"])) for pair in pairs} == {
            frozenset("13"), frozenset("14"), frozenset("34")}
        hits = client.get("/api/search", q=words).json["hits"]
        first = hits[0]["id"]
        assert [hit.get("repeats") for hit in hits] == [None, first, first, None]
        page = client.get("/", q=words).text
        assert "2 more like this" in page and page.count('class="hit"') == 4


def test_the_openai_client_gets_our_vectors(client: Client) -> None:
    import openai

    asked = openai.OpenAI(base_url=f"{client.address}/v1", api_key="none")
    expected = normalise(WordEncoder().encode(TITLES))
    for form in ("float", "base64", None):
        options = {} if form is None else {"encoding_format": form}
        made = asked.embeddings.create(input=TITLES, model="text-embedding-3-small", **options)
        vectors = [each.embedding for each in sorted(made.data, key=lambda each: each.index)]
        if form == "base64":
            vectors = [np.frombuffer(base64.b64decode(vector), "<f4") for vector in vectors]
        np.testing.assert_allclose(vectors, expected, atol=1e-6)
    one = asked.embeddings.create(input=TITLES[0], model="any", dimensions=8).data[0].embedding
    np.testing.assert_allclose(one, normalise(expected[:1, :8])[0], atol=1e-6)
    assert len(asked.embeddings.create(input=["storm"] * 300, model="any").data) == 300
    assert [model.id for model in asked.models.list()]
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        asked.embeddings.create(input="storm", model="any", dimensions=99)


BAD = [
    ("GET", "/api/search", None, 422), ("GET", "/api/search?q=", None, 422), ("GET", "/api/search?q=%20%09", None, 422),
    ("GET", "/api/search?q=storm&k=0", None, 422), ("GET", "/api/search?q=storm&k=1000000", None, 422),
    ("GET", "/api/search?q=storm&k=x", None, 422), ("GET", f"/api/search?q={'x' * 3000}", None, 422),
    ("POST", "/api/search", b"{", 422), ("POST", "/api/search", b"[]", 422), ("POST", "/api/search", b"\xff\xfe", 422),
    ("POST", "/api/search", b'{"queries": []}', 422), ("POST", "/api/search", b'{"queries": ["\\ud800"]}', 422),
    ("POST", "/api/search", json.dumps({"queries": ["x"] * 300}).encode(), 422),
    ("POST", "/api/search", b'{"queries": [{}]}', 422), ("POST", "/api/search", b"[" * 100_000, 400),
    ("POST", "/v1/embeddings", b'{"input": [1, 2]}', 400), ("POST", "/v1/embeddings", b'{"input": ""}', 400),
    ("POST", "/v1/embeddings", b'{"input": "a", "encoding_format": "int8"}', 400),
    ("POST", "/v1/embeddings", b'{"input": "\\udc00"}', 400),
    ("GET", "/api/pairs?k=100000", None, 422), ("GET", "/api/similar/%00", None, 404), ("GET", "/nothing", None, 404),
    ("PUT", "/api/search", b"", 405), ("GET", "/static/../app.py", None, 404),
    ("GET", "/static/%2e%2e/app.py", None, 404),
    ("GET", "/static//etc/passwd", None, 404), ("POST", "/marks", b"mark=right&query=a&id=none", 404),
    ("POST", "/marks", b"mark=evil&query=a&id=e", 422), ("POST", "/marks", b"mark=right&query=&id=e", 422),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), BAD)
def test_bad_input_is_refused_in_a_line(client: Client, method: str, path: str, body: bytes | None,
                                        status: int) -> None:
    kind = "application/x-www-form-urlencoded" if path == "/marks" else "application/json"
    answer = client.ask(method, path, body, content_type=kind)
    assert answer.status == status, answer.text
    said = answer.json["error"]
    said = said["message"] if path.startswith("/v1") else said
    assert said and "\n" not in said and len(said) < 300
    assert "Traceback" not in answer.text and "sentence_forge" not in answer.text and ".py" not in said


def test_sizes_and_rates_are_bounded(tmp_path: Path) -> None:
    build(tmp_path, TITLES, IDS)
    with served(tmp_path, limits=Limits(body=1000, rate=20)) as client:
        large = json.dumps({"queries": ["storm" * 300]})
        assert client.ask("POST", "/api/search", large, content_type="application/json").status == 413

        def chunks() -> Iterator[bytes]:
            for _ in range(20):
                yield b"x" * 100

        assert client.ask("POST", "/api/search", chunks(), content_type="application/json").status == 413
        codes = [client.get("/healthz").status for _ in range(60)]
        assert set(codes) == {200, 429} and codes[:30] == [200] * 30


def test_who_may_ask(tmp_path: Path) -> None:
    build(tmp_path, TITLES, IDS)
    with served(tmp_path) as client:
        assert client.ask("GET", "/healthz", host="evil.example").status == 421  # a name that was made to lead here
        assert client.ask("GET", "/healthz", host=f"localhost:{client.port}").status == 200
        for origin in ("http://evil.example", "null", f"http://localhost:{client.port + 1}"):
            assert client.form("/marks", {"query": "storm", "id": "e", "mark": "right"}, origin=origin).status == 403
        assert client.form("/undo", {}, sec_fetch_site="cross-site").status == 403
        mine = client.form("/marks", {"query": "storm", "id": "e", "mark": "right"}, origin=client.address)
        assert mine.status == 303
    with served(tmp_path, token="open sesame") as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "open sesame"},
                        {"cookie": "session=open sesame"}):
            assert client.ask("GET", "/api/search?q=storm", **headers).status == 401
            assert client.ask("POST", "/marks", "", **headers).status == 401
        assert client.ask("GET", "/api/search?q=storm", authorization="Bearer open sesame").status == 200
        assert client.get("/healthz").status == 200
        away = client.ask("GET", "/?q=storm", accept="text/html")
        assert away.status == 303 and away.headers["location"] == "/login?back=/%3Fq%3Dstorm"
        assert client.form("/login", {"token": "wrong"}).status == 403
        inside = client.form("/login", {"token": "open sesame", "back": "//evil.example"})
        assert inside.status == 303 and inside.headers["location"] == "/"
        cookie = inside.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "sesame" not in cookie
        assert client.ask("GET", "/?q=storm", cookie=cookie.partition(";")[0]).status == 200


def test_a_new_generation_is_taken_up_without_a_failed_request(tmp_path: Path) -> None:
    titles = titles_like(400)
    build(tmp_path, titles)
    with served(tmp_path) as client:
        done, bad, seen = threading.Event(), [], set()

        def ask() -> None:
            while not done.is_set():
                answer = client.get("/api/search", q="storm opera report", k=5)
                if answer.status != 200 or len(answer.json["hits"]) != 5:
                    bad.append(answer)
                else:
                    seen.add(answer.json["generation"])
                done.wait(0.01)  # four that never pause ask more than the 500 times a second that one address may

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(ask) for _ in range(4)]
            try:
                for generation in range(2, 6):
                    more = [*titles, f"opera storm report {generation}"]
                    index_corpus(tmp_path, [str(row) for row in range(len(more))], more, WordEncoder())
                    while client.get("/healthz").json["generation"] != generation and not running[0].done():
                        done.wait(0.05)
            finally:  # or the pool would wait for those that ask, for ever
                done.set()
            for each in running:
                each.result(60)
        assert not bad and max(seen) == 5 and len(seen) > 1
        assert "opera storm report 5" in [hit["title"] for hit in client.get("/api/search", q="opera storm report 5",
                                                                             k=3).json["hits"]]


@pytest.mark.parametrize("typed", ["news", "news/index"])
def test_a_link_that_is_switched_to_another_export_is_not_followed(tmp_path: Path, typed: str) -> None:
    for name, rows in (("one", 3), ("two", 4), ("two", 5)):
        build(tmp_path / name / "index", TITLES[:rows], IDS[:rows])
    link = tmp_path / "news"
    link.symlink_to("one")
    live = LiveIndex(tmp_path / typed, WordEncoder(), seconds=600)
    try:
        link.unlink()
        link.symlink_to("two")
        assert not live.refresh()
        build(tmp_path / "one" / "index", TITLES, IDS)
        assert live.refresh()
        with live.reading() as index:
            assert len(index) == 6 and index.marks_folder == tmp_path / "one" / "index"
    finally:
        live.close()


def test_queries_together_get_what_each_gets_alone(client: Client) -> None:
    queries = [f"{first} {second}" for first in ("storm", "opera", "markets") for second in ("hits", "fall", "the")]
    alone = [client.get("/api/search", q=query, k=3).json["hits"] for query in queries]
    with ThreadPoolExecutor(9) as pool:
        together = list(pool.map(lambda query: client.get("/api/search", q=query, k=3).json["hits"], queries * 5))
    assert together == alone * 5
    counters = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if line[0] != "#")
    assert int(counters['sentence_forge_texts_total{from="cache"}']) >= 45
    assert int(counters['sentence_forge_requests_total{code="200"}']) >= 54
    assert int(counters["sentence_forge_request_seconds_count"]) >= 54


def test_a_filter_is_exact_in_the_api_and_on_the_page(tmp_path: Path) -> None:
    titles = titles_like(200)
    kept = {"source": ["x", "y"] * 100, "date": [f"2026-01-{1 + row % 28:02}" for row in range(200)],
            "url": ["https://news.example/1", "javascript:alert(1)"] * 100}
    index_corpus(tmp_path, [str(row) for row in range(200)], titles, WordEncoder(), kept=kept)
    with served(tmp_path) as client:
        where = ["source=y", "date>=2026-01-20"]
        expected = {str(row) for row in range(200) if row % 2 and row % 28 >= 19}
        hits = client.get("/api/search", q="storm", k=100, filter=where).json["hits"]
        assert {hit["id"] for hit in hits} == expected and {hit["columns"]["source"] for hit in hits} == {"y"}
        batch = client.post("/api/search", {"queries": ["storm"], "k": 100, "filter": where}).json["results"][0]
        assert batch["hits"] == hits
        page = Tags(client.ask("GET", "/?q=storm&k=100&is.source=y&from.date=2026-01-20&to.date=").text)
        assert {each["data-more"].partition("=")[2] for each in page.named("li", class_="hit")} == expected
        assert [each["value"] for each in page.named("option") if "selected" in each] == ["y"]
        assert not page.named("a", class_="outside")  # javascript: is no address to go to
        links = Tags(client.ask("GET", "/?q=storm&is.source=x").text).named("a", class_="outside")
        assert {link["href"] for link in links} == {"https://news.example/1"}
        for wrong in ("colour=red", "source", ""):
            assert client.get("/api/search", q="storm", filter=wrong).status == 422
            assert client.ask("GET", f"/?q=storm&filter={wrong}").status == 422


def test_kept_values_are_counted_once_and_for_whole_pages_alone(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, titles_like(40), kept={"source": ["x", "y"] * 20})
    counted, values_of = [], Kept.values_of
    monkeypatch.setattr(Kept, "values_of", lambda *given: (time.sleep(0.2), counted.append(1), values_of(*given))[2])
    with served(tmp_path) as client:
        assert client.get("/", q="storm", part=1).status == 200 and not counted
        with ThreadPoolExecutor(4) as threads:
            pages = list(threads.map(lambda _: client.get("/", q="storm").text, range(4)))
        assert len(counted) == 1 and all("is.source" in page for page in pages)


def test_check_says_whether_a_server_has_our_model(tmp_path: Path, command: Callable[..., Done]) -> None:
    assert command("train", "loss=mnrl", *TINY, "loop.max_steps=1", "hydra.run.dir=run").code == 0
    (tmp_path / "titles.csv").write_text("title\n" + "\n".join(titles_like(40)) + "\n", encoding="utf-8")
    for name, dim in (("news", []), ("cut", ["dim=16"])):
        assert command("export", "model=run", "corpus=titles.csv", f"out={name}", *dim).code == 0
    with served(tmp_path / "news", encoder=None, token="open sesame") as client:
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "news" / "model")
        for texts in (["storm hits"], ["storm hits", "storm hits", "opera " * 999]):
            usage = client.ask("POST", "/v1/embeddings", json.dumps({"input": texts}), content_type="application/json",
                               authorization="Bearer open sesame").json["usage"]
            read = sum(len(tokenizer(text, truncation=True, max_length=64)["input_ids"]) for text in texts)
            assert usage == {"prompt_tokens": read, "total_tokens": read} and read > 3
        done = command("search", "check", client.address, "news", "--token", "open sesame")
        assert done.code == 0 and "the vectors are those of news" in done.out
        assert "16" in command("search", "check", client.address, "cut", "--token", "open sesame").err
        done = command("search", "check", f"{client.address}/v1", "news", "--token", "wrong")
        assert done.code == 2 and "401" in done.err
    build(tmp_path / "other", TITLES)
    with served(tmp_path / "other") as client:
        assert "gives other vectors" in command("search", "check", client.address, "news").err
    assert "can't be reached" in command("search", "check", client.address, "news").err
    assert "no address" in command("search", "check", "file:///etc/passwd", "news").err
    done = command("search", "check", "http://127.0.0.1:8o80", "news")
    assert done.code == 2 and done.err.startswith("error: http://127.0.0.1:8o80: can't be reached (nonnumeric port")
    with socket.create_server(("127.0.0.1", 0)) as other, ThreadPoolExecutor(1) as thread:
        greeted = thread.submit(_greet, other)
        done = command("search", "check", f"http://127.0.0.1:{other.getsockname()[1]}", "news")
        assert done.code == 2 and "can't be reached (SSH-2.0-another" in done.err and len(done.err) < 200
        greeted.result(60)


def _greet(listening: socket.socket) -> None:
    with listening.accept()[0] as caller:
        caller.sendall(b"SSH-2.0-another" + b"x" * 1000 + b"\r\n")
        while caller.recv(1 << 16):
            pass
