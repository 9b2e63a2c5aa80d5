"""Columns that an index keeps: shown with hits, filtered by, exactly; an index without them is as before."""

from __future__ import annotations

import csv
import json
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import TINY, Done
from corpora import WordEncoder, build, titles_like

from sentence_forge.encoders.similarity import normalise
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.index import Index
from sentence_forge.search.indexing import index_corpus
from sentence_forge.search.kept import Kept
from sentence_forge.search.verify import verify

Command = Callable[..., Done]
draw = random.Random(0)
ROWS = 2000
TITLES = titles_like(ROWS)
KEPT = {"source": [draw.choice(["x", "y z", "来源", ""]) for _ in range(ROWS)],
        "date": [f"202{draw.randrange(10)}-{draw.randrange(1, 13):02}-01" for _ in range(ROWS)],
        "reads": [draw.choice(["", "none", str(draw.randrange(-50, 2000)), f"{draw.random():.3f}", "1e3"])
                  for _ in range(ROWS)],
        "a=b": ["1"] * ROWS}


def number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return np.nan


FILTERS: list[tuple[list[str], Callable[[int], bool]]] = [
    (["source=x"], lambda row: KEPT["source"][row] == "x"),
    (["source = 来源"], lambda row: KEPT["source"][row] == "来源"),
    (["source!=y z"], lambda row: KEPT["source"][row] != "y z"), (["source="], lambda row: not KEPT["source"][row]),
    (["date>=2025-03-01", "date<2026-01-01"], lambda row: "2025-03-01" <= KEPT["date"][row] < "2026-01-01"),
    (["reads>90"], lambda row: number(KEPT["reads"][row]) > 90),
    (["reads<=0.5"], lambda row: number(KEPT["reads"][row]) <= 0.5),
    (["source=x", "reads>=1000", "date>2022"], lambda row: KEPT["source"][row] == "x" and KEPT["date"][row] > "2022"
     and number(KEPT["reads"][row]) >= 1000), (["source=nobody"], lambda row: False),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    index_corpus(folder, [str(row) for row in range(ROWS)], TITLES, WordEncoder(), kept=KEPT, fast_from=100)
    return folder


@pytest.mark.parametrize(("where", "meets"), FILTERS)
def test_a_filter_leaves_exactly_what_brute_force_does(folder: Path, where: list[str],
                                                       meets: Callable[[int], bool]) -> None:
    rows = [row for row in range(ROWS) if meets(row)]
    query = normalise(WordEncoder().encode(["storm opera report"]))
    with Index.open(folder, WordEncoder()) as index:
        assert index.kept.rows_where(where).tolist() == rows
        for dim in (None, 8):
            vectors = normalise(index.vectors[:, :dim])
            scores, found = index.search_vectors(query, 20, where=where, dim=dim)
            assert found.shape == (1, min(20, len(rows))) and set(found[0].tolist()) <= set(rows)
            best = np.sort(vectors[rows] @ normalise(query[:, :dim])[0])[::-1][:20]
            np.testing.assert_allclose(scores[0], best, atol=1e-6)
        for hit in index.search(["storm"], 5, where=where)[0]:
            assert meets(int(hit.id)) and hit.columns == {
                name: cells[int(hit.id)] for name, cells in KEPT.items() if cells[int(hit.id)]}


@pytest.mark.parametrize("wrong", ["", "source", "=x", "sorce=x", "id=3", "source=\udcff"])
def test_a_filter_that_is_none_is_refused(folder: Path, wrong: str) -> None:
    with Index.open(folder, WordEncoder()) as index, pytest.raises(UserError, match="filter"):
        index.search(["storm"], where=[wrong])


def test_the_commonest_values_are_those_of_a_count_and_few_of_many_are_in_memory() -> None:
    cells = [f"{'é来z'[draw.randrange(3)]}{draw.randrange(20_000)}" for _ in range(60_000)]
    kept = Kept({"a": cells}, lambda _: pa.chunked_array([pa.array(cells, pa.large_string())]), len(cells))
    expected = sorted(Counter(cells).items(), key=lambda each: (-each[1], each[0]))
    assert list(kept.values_of("a", len(cells)).items()) == expected
    tracemalloc.start()
    try:
        assert list(kept.values_of("a", 10).items()) == expected[:10]
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_filters_are_remembered_in_a_bit_a_row() -> None:
    cells, rows = pa.chunked_array([pa.array(["x", "y"] * 50_000, pa.large_string())]), 100_000
    kept = Kept({"a": ["x", "y"] * 50_000}, lambda _: cells, rows)
    kept.rows_where(["a!=z"])  # libraries
    tracemalloc.start()
    try:
        for number in range(16):
            assert len(kept.rows_where([f"a!={number}"])) == rows
        assert tracemalloc.get_traced_memory()[0] < 16 * rows
    finally:
        tracemalloc.stop()
    assert kept.rows_where(["a=y"]).tolist() == kept.rows_where(["a=y"]).tolist() == list(range(1, rows, 2))


def test_kept_columns_change_without_encoding_and_old_indexes_open(tmp_path: Path) -> None:
    build(tmp_path, TITLES[:50])
    with Index.open(tmp_path, WordEncoder()) as index:
        assert index.kept.names == [] and "columns" not in index.search(["storm"], 1)[0][0].as_json()
        with pytest.raises(UserError, match="keeps none"):
            index.search(["storm"], where=["source=x"])
    ids, again = [str(row) for row in range(1, 51)], WordEncoder()
    for kept in ({"source": ["x"] * 50}, {"source": ["x"] * 49 + ["y"]}, {"from": ["x"] * 49 + ["y"]}, {}):
        index_corpus(tmp_path, ids, TITLES[:50], again, kept=kept)
        with Index.open(tmp_path, WordEncoder()) as index:
            assert index.kept.names == list(kept) and verify(tmp_path) == []
            assert [index.kept.of_row(row) for row in (0, 49)] == [
                {name: cells[row] for name, cells in kept.items()} for row in (0, 49)]
    assert again.seen == []


def test_export_keeps_columns_and_search_filters_as_typed(tmp_path: Path, command: Command) -> None:
    rows = [[f"n{row}", TITLES[row], KEPT["date"][row], KEPT["source"][row]] for row in range(60)]
    with (tmp_path / "titles.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "title", "date", "来源"], *rows])
    assert command("train", "loss=mnrl", *TINY, "loop.max_steps=1", "hydra.run.dir=run").code == 0
    done = command("export", "model=run", "corpus=titles.csv", "corpus.id_column=id", "corpus.keep=[date,来源]",
                   "out=news")
    assert done.code == 0, done.err
    done = command("search", "news", "storm", "--json", "-k", "60", "--filter", "来源=x", "--filter", "date>=2023")
    assert done.code == 0, done.err
    expected = {row[0]: {"date": row[2], "来源": row[3]} for row in rows if row[3] == "x" and row[2] >= "2023"}
    assert {hit["id"]: hit["columns"] for hit in json.loads(done.out)["hits"]} == expected and expected
    with (tmp_path / "titles.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "title", "date", "来源"], *rows[1:]])
    assert command("export", "only=index", "corpus=titles.csv", "corpus.id_column=id", "out=news").code == 0
    hits = json.loads(command("search", "news", "storm", "--json", "-k", "60", "--filter", "来源=x").out)["hits"]
    assert {hit["id"] for hit in hits} == {row[0] for row in rows[1:] if row[3] == "x"}
    done = command("export", "only=index", "corpus=titles.csv", "corpus.id_column=id", "corpus.keep=[nothing]",
                   "out=news")
    assert done.code == 2 and "nothing" in done.err
    done = command("search", "news", "storm", "--filter", "nothing=1")
    assert done.code == 2 and "keeps no column" in done.err
