"""An index in PostgreSQL: the answers of the exact scan, loads that are whole or not at all, models side by side."""

from __future__ import annotations

import os
import random
import signal
import threading
from itertools import islice, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import WordEncoder, build, titles_like
from database import ask
from faults import Acknowledge, forked

from sentence_forge.encoders.similarity import normalise
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.index import Index
from sentence_forge.search.indexing import index_corpus
from sentence_forge.search.mining import mine, near_duplicates
from sentence_forge.search.places import open_index
from sentence_forge.search.postgres import load as loading
from sentence_forge.search.postgres import locks
from sentence_forge.search.postgres.address import parse
from sentence_forge.search.postgres.generations import switch_to
from sentence_forge.search.postgres.load import Loaded, load_corpus

QUERIES = ["storm opera report", "drought robots", "report 77", "one two"]
OTHER = WordEncoder("other" * 8, dim=48)


def load(url: str, work: Path, titles: list[str], ids: list[str] | None = None, *, encoder: WordEncoder | None = None,
         fast_from: int = 10**6, **options: object) -> Loaded:
    return load_corpus(parse(url), work / "loading", ids or [str(row) for row in range(len(titles))], titles,
                       encoder or WordEncoder(), model=work, fast_from=fast_from, **options)


def rows_of(url: str) -> list[tuple]:
    """The rows that who joins with SQL sees, with the vectors as texts."""
    return sorted(ask(url, f"SELECT id, title, embedding::text FROM {url.partition('#')[2]}"))


@pytest.mark.parametrize(("kind", "fast_from"), [("vector", 10**6), ("vector", 100), ("halfvec", 100)])
def test_the_answers_are_those_of_the_local_exact_scan(url: str, tmp_path: Path, kind: str, fast_from: int) -> None:
    titles = [*titles_like(640), *["opera opera report 0", "storm storm"] * 30,
              *(" ".join(words) for words in islice(permutations(["one", "two", "three", "four", "five"]), 60))]
    titles[600] = "storm storm"  # and the last sixty are as near to any query as each other, but for rounding
    ids = [f"{row}/é" for row in range(len(titles))]
    kept = {"source": ["x", "y"] * 380, "n": [str(row % 50) for row in range(760)],
            "day": [f"2026-01-{1 + row % 28:02}" if row % 9 else "" for row in range(760)]}
    loaded = load(url, tmp_path, titles, ids, kept=kept, kind=kind, fast_from=fast_from)
    assert loaded.about.titles == len(set(titles)) and (loaded.about.recall is None) == (fast_from > 1000)
    assert loaded.about.recall is None or loaded.about.recall >= 0.995
    index_corpus(tmp_path / "index", ids, titles, WordEncoder(), kept=kept)
    close = 1e-6 if kind == "vector" else 2e-3
    with open_index(url, WordEncoder()) as found, Index.open(tmp_path / "index", WordEncoder()) as expected:
        for options in ({}, {"dim": 8}, {"where": ["source=y", "n>=7", "n<30"]}, {"where": ["day>=2026-01-14"]},
                        {"where": ["day!=2026-01-02", "source!=x"]}, {"where": ["n=51"]}):
            for k in (1, 10, 100, 900):
                theirs = expected.search(QUERIES, k, exact=True, **options)
                for exact in (True, False):
                    ours = found.search(QUERIES, k, exact=exact, **options)
                    if kind == "vector" and (exact or fast_from > 1000):
                        assert ours == theirs, (options, k)
                    # a graph's links hardly lead out of sixty equal vectors, so the last query is for scans
                    for one, other in zip(ours[:None if exact else 3], theirs[:None if exact else 3], strict=True):
                        apart = np.abs(np.subtract(*([hit.score for hit in hits] for hits in (one, other))))
                        assert np.sum(apart >= close) <= (0 if exact else 0.1 * len(other)), (options, k)
            assert found.count_where(options.get("where", [])) == expected.count_where(options.get("where", []))
        assert (len(found), found.repeated_rows, found.kept.names) == (760, expected.repeated_rows, [*kept])
        for name in kept:
            assert found.kept.bounds_of(name) == expected.kept.bounds_of(name)
            assert found.kept.values_of(name, 9) == expected.kept.values_of(name, 9)
        if kind == "vector":
            for repeats in (False, True):
                assert found.pairs(20, repeats=repeats) == expected.pairs(20, repeats=repeats)
            pairs = near_duplicates(found, 30)
            assert mine(found, pairs, range_max=20, exact=True) == mine(expected, pairs, range_max=20, exact=True)
        row = found.row_of("600/é")
        assert found.titles_of([row]) == ["storm storm"] and found.row_of("none") is None
        expected_vector = normalise(WordEncoder().encode(["storm storm"]))
        np.testing.assert_allclose(found.vectors_of([row]), expected_vector, atol=close)


def test_a_load_encodes_and_inserts_only_what_is_new(url: str, tmp_path: Path) -> None:
    titles, table = titles_like(300), url.partition("#")[2]
    load(url, tmp_path, titles, fast_from=100)
    vectors = f"SELECT sha, ctid::text, xmin::text FROM {table}_vectors_1"
    before = set(ask(url, vectors))
    order = random.Random(0).sample(range(300), 300)  # every row moves, ten go, three change, two are new, all by id
    order = order[10:]
    changed = {row: f"{titles[row]} again" for row in order[:3]}
    ids = [*map(str, order), "new", "copy"]
    after = [*(changed.get(row, titles[row]) for row in order), "a new storm", titles[order[5]]]
    encoder = WordEncoder()
    report = load(url, tmp_path, after, ids, encoder=encoder, fast_from=100, kept={"k": ["v"] * 292}).report
    assert (report.encoded, report.added, report.changed, report.removed, report.rows) == (4, 2, 3, 10, 292)
    assert sorted(encoder.seen) == sorted(["a new storm", *changed.values()])
    now = set(ask(url, vectors))
    assert len(now - before) == 4 and len(before - now) == 13  # vectors that stay are not written again
    assert [(name, title) for name, title, _ in rows_of(url)] == sorted(zip(ids, after, strict=True))
    same = load(url, tmp_path, after, ids, kept={"k": ["v"] * 292}, fast_from=100)
    assert same.about.loads == 2 and not same.report.encoded and set(ask(url, vectors)) == now
    assert not (tmp_path / "loading").exists()
    with pytest.raises(UserError, match="282 of the index's 292 rows, by their ids, are not in it any more"):
        load(url, tmp_path, titles[:10], most_lost=0.1)
    with pytest.raises(UserError, match="title of the row '1' holds the character NUL"):
        load(url, tmp_path, ["a", "b\0"])


def test_who_reads_sees_the_old_rows_or_the_new(url: str, tmp_path: Path) -> None:
    """Each state's titles all end in its number; a reader that sees two of them, or none, saw between."""
    def states(number: int) -> list[str]:
        return [f"{title} state{number}" for title in titles_like(60)]

    load(url, tmp_path, states(0))
    seen, wrong, done = set(), [], threading.Event()

    def read() -> None:
        with open_index(url, WordEncoder()) as index:
            while not done.is_set():
                with index.reading():
                    scores, rows = index.search_vectors(index.encode(["storm report"]), 60)
                    titles = [hit.title for hit in index.hits(scores, rows)[0]]
                    titles += [title for pair in index.pairs(5) for title in (pair.title1, pair.title2)]
                    titles += [title for _, title in index.drawn(5)]
                found = {title.rpartition(" ")[2] for title in titles}
                wrong.extend([found] if len(found) != 1 or len(scores[0]) != 60 else [])
                seen.update(found)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for number in range(1, 6):
            load(url, tmp_path, states(number))
    finally:
        done.set()
        for reader in readers:
            reader.join(60)
    assert not wrong and len(seen) > 1


def test_a_killed_load_leaves_the_old_rows_or_the_new_and_the_next_ends(url: str, tmp_path: Path) -> None:
    draw = random.Random(5)
    before = titles_like(120)
    after = [*(title if draw.random() < 0.7 else f"{title} again" for title in before[10:]), "a new storm"]
    load(url, tmp_path, before, fast_from=60)
    old = rows_of(url)
    seconds = forked(lambda acknowledge: load(url, tmp_path, after, fast_from=60) and None).seconds
    new = rows_of(url)
    assert len(old) == 120 and len(new) == 111
    found = []
    for _ in range(20):
        load(url, tmp_path, before, fast_from=60)
        assert rows_of(url) == old

        def change(acknowledge: Acknowledge) -> None:
            load(url, tmp_path, after, fast_from=60, segment_rows=8)
            acknowledge("done")

        ended = forked(change, kill_after=draw.uniform(0, 1.3 * seconds))
        there = rows_of(url)
        assert there in ((new,) if ended.acknowledged else (old, new))
        found.append(there == new)
        load(url, tmp_path, after, fast_from=60)  # waits until the server has noticed
        assert rows_of(url) == new and not (tmp_path / "loading").exists()
    assert any(found) and not all(found)


@pytest.mark.parametrize("step", ["_merge", "finish"])
@pytest.mark.parametrize("encoder", [WordEncoder(), OTHER])
def test_a_load_killed_with_its_rows_written_and_not_committed_leaves_the_old_ones(
        url: str, tmp_path: Path, step: str, encoder: WordEncoder) -> None:
    load(url, tmp_path, ["a storm", "an opera"])
    table = url.partition("#")[2]
    old, kept = rows_of(url), ask(url, f"SELECT * FROM {table}_generations")

    def change(acknowledge: Acknowledge) -> None:
        done = getattr(loading, step)

        def killed(*arguments: Any, **named: Any) -> None:
            done(*arguments, **named)
            acknowledge("written")
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(loading, step, killed)
        load(url, tmp_path, ["a storm", "a new opera", "rain"], encoder=encoder)

    ended = forked(change)
    assert ended.acknowledged == ["written"] and ended.status == -signal.SIGKILL
    assert rows_of(url) == old and ask(url, f"SELECT * FROM {table}_generations") == kept
    load(url, tmp_path, ["a storm", "a new opera", "rain"], encoder=encoder)  # waits until the server has noticed
    assert len(rows_of(url)) == 3 and rows_of(url) != old


def test_a_second_loader_says_who_loads(url: str, tmp_path: Path) -> None:
    load(url, tmp_path, ["a storm", "an opera"])
    names = f"public.{url.partition('#')[2]}"
    import psycopg

    with psycopg.connect(url.partition("#")[0]) as other:
        other.execute(f"SELECT pg_advisory_lock({locks._KEY})", [names])
        with pytest.raises(UserError, match=rf"the session {other.info.backend_pid} of postgres from the server's own "
                                            "machine, begun .* is loading here"):
            locks_taken(url)


def locks_taken(url: str) -> None:
    from sentence_forge.search.postgres.address import connect
    from sentence_forge.search.postgres.tables import find

    with connect(parse(url)) as connection, locks.loader_lock(connection, find(connection, parse(url)), "here", 0.2):
        pass


def test_a_new_model_goes_in_beside_the_old_and_back(url: str, tmp_path: Path) -> None:
    table, titles = url.partition("#")[2], titles_like(150)
    ask(url, "DROP ROLE IF EXISTS guest", "CREATE ROLE guest LOGIN")
    load(url, tmp_path, titles)
    ask(url, f"GRANT SELECT ON {table}, {table}_generations, {table}_rows_1, {table}_vectors_1 TO guest")
    old = rows_of(url)
    loaded = load(url, tmp_path, titles, encoder=OTHER, switch_to=False)
    assert loaded.about.generation == 2 and not loaded.about.current and rows_of(url) == old
    with open_index(url, WordEncoder()) as index:
        assert index.generation == 1
        switch_to(url, 2)
        assert rows_of(url) != old and index.newest() == 2
        assert index.search(["storm"], 3)[0][0].title  # who has the old one open goes on with it
    with pytest.raises(UserError, match="the index is of another model"):
        open_index(url, WordEncoder())
    reader = url.replace("postgres@", "guest@")
    with open_index(reader, OTHER) as index, open_index(reader, WordEncoder(), generation=1) as before:
        build(tmp_path / "index", titles, [str(row) for row in range(150)])
        with Index.open(tmp_path / "index", WordEncoder()) as expected:
            assert before.search(QUERIES, 5) == expected.search(QUERIES, 5)
        assert index.generation == 2 and len(rows_of(reader)) == 150
    switch_to(url, 1)
    assert rows_of(url) == old
    assert load(url, tmp_path, titles, encoder=OTHER).about.current  # loaded again it is the current one again
    with pytest.raises(UserError, match=r"has no generation 7; there are 1, 2"):
        switch_to(url, 7)
