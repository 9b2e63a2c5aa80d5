"""An index in PostgreSQL under others: readers of long standing, removed generations, two beginnings at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from corpora import WordEncoder, titles_like
from database import ask
from test_postgres import OTHER, QUERIES, load

from sentence_forge.runtime.errors import UserError
from sentence_forge.search.index import Index
from sentence_forge.search.indexing import index_corpus
from sentence_forge.search.places import open_index
from sentence_forge.search.postgres import locks, nearest
from sentence_forge.search.postgres.address import connect, parse
from sentence_forge.search.postgres.load import check_loadable
from sentence_forge.search.postgres.tables import find, generations


def test_a_generations_number_is_never_used_again(url: str, tmp_path: Path) -> None:
    table, titles = url.partition("#")[2], titles_like(40)
    load(url, tmp_path, titles)
    load(url, tmp_path, titles, encoder=OTHER, switch_to=False)
    with open_index(url, OTHER, generation=2) as index:
        assert index.search(QUERIES[:1], 3)[0]
        ask(url, f"DELETE FROM {table}_generations WHERE generation = 2",
            f"DROP TABLE {table}_rows_2, {table}_vectors_2")
        third = WordEncoder("third" * 8, dim=48)
        assert load(url, tmp_path, titles, encoder=third, switch_to=False).about.generation == 3
        with pytest.raises(UserError, match="generation 2 was removed meanwhile"):
            index.search(QUERIES[:1], 3)
        # as in an index that is older than the sequence which remembers the numbers
        ask(url, f"UPDATE {table}_generations SET generation = 2 WHERE generation = 3",
            f"ALTER TABLE {table}_rows_3 RENAME TO {table}_rows_2",
            f"ALTER TABLE {table}_vectors_3 RENAME TO {table}_vectors_2")
        with pytest.raises(UserError, match="generation 2 was removed meanwhile"):
            index.search(QUERIES[:1], 3)
        assert index.newest() == 1


def test_a_graph_that_finds_too_few_is_followed_by_a_scan(url: str, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(url, tmp_path, titles_like(200), fast_from=100).about.ef_search
    monkeypatch.setattr(nearest, "_WIDER", 0)  # so the graph is asked for fewer than are wanted
    monkeypatch.setattr(nearest, "_SETTINGS", nearest._SETTINGS.replace("strict_order", "off"))
    with open_index(url, WordEncoder()) as index:
        expected = index.search(QUERIES, 100, exact=True)
        assert list(map(len, expected)) == [100] * len(QUERIES)
        assert index.search(QUERIES, 100) == expected


def test_a_query_goes_through_the_graph(url: str, tmp_path: Path) -> None:
    load(url, tmp_path, titles_like(600), fast_from=100)
    with connect(parse(url)) as connection:
        names = find(connection, parse(url))
        about, = generations(connection, names)
        query = WordEncoder().encode(QUERIES[:1])[0]
        for scan in (False, True):
            with connection.transaction():
                connection.execute(nearest._SETTINGS, ["64", "on" if scan else "off"])
                asked = nearest._statement(names, about, query, 10, 26, scan, None, ())
                plan = "\n".join(row[0] for row in connection.execute("EXPLAIN " + asked.as_string(connection)))
            assert (f"Index Scan using {names.table}_vectors_1_hnsw" in plan) != scan, plan


def test_a_load_waits_at_its_end_for_whoever_reads_the_view(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                            caplog: pytest.LogCaptureFixture) -> None:
    table, titles = url.partition("#")[2], titles_like(40)
    monkeypatch.setattr(locks, "_SETTINGS", [(name, "500ms" if name == "lock_timeout" else value)
                                             for name, value in locks._SETTINGS])
    load(url, tmp_path, titles)
    encoder = WordEncoder("other" * 8, dim=48)
    with psycopg.connect(url.partition("#")[0]) as reader:
        assert reader.execute(f"SELECT count(*) FROM {table}").fetchone() == (40,)
        timer = threading.Timer(3, reader.rollback)
        timer.start()
        loaded = load(url, tmp_path, titles, encoder=encoder)
        timer.join()
    assert loaded.about.current and len(encoder.seen) == 40
    assert caplog.text.count("another session reads it in a long transaction") == 1
    assert ask(url, f"SELECT count(*) FROM {table}") == [(40,)]


def test_two_may_begin_an_index_at_once(url: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        for begun in [threads.submit(check_loadable, url) for _ in range(8)]:
            begun.result()
    table = url.partition("#")[2]
    assert ask(url, f"SELECT count(*) FROM {table}_generations") == [(0,)]


def test_digits_of_other_writings_are_texts_in_a_folder_and_in_a_database(url: str, tmp_path: Path) -> None:
    titles, ids = titles_like(30), [str(row) for row in range(30)]
    kept = {"year": [*(str(2000 + row) for row in range(29)), "２０１９"]}
    load(url, tmp_path, titles, ids, kept=kept)
    index_corpus(tmp_path / "index", ids, titles, WordEncoder(), kept=kept)
    with open_index(url, WordEncoder()) as found, Index.open(tmp_path / "index", WordEncoder()) as expected:
        for where, count in (("year>=2020", 9), ("year>=２０２０", 0), ("year=２０１９", 1)):
            assert found.count_where([where]) == expected.count_where([where]) == count, where
