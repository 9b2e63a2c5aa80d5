"""Which search answers queries best? Hits of all searches pooled, graded once, and measured.

``python -m bench.judge pool SEARCH...`` writes the top 10 of all as one CSV, in an order that does not tell who found
what (pooling, as TREC does it; Voorhees and Harman 2005). Fill in the column grade: 2 answers the query, 1 in part, 0
not. ``python -m bench.judge keep POOL.csv`` adds the grades to those that are kept, by a hash of the title, so that no
title is published. ``python -m bench.judge score SEARCH...`` prints nDCG@10, precision@10 and MRR@10 of each, and what
it gains over the first. ``python -m bench.judge show SEARCH...`` prints a Markdown table of the queries with the grades
of each search's first five, ``--titles`` with their titles, too, to be read side by side. A search is an export, or a
file that ``python -m search DIR --queries FILE --json`` printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from bench.lines import line
from sentence_forge.data_readers.csv_writer import write_csv
from sentence_forge.data_readers.sample import sample_path
from sentence_forge.data_readers.table import read_table
from sentence_forge.eval.ranking import K, measured
from sentence_forge.eval.stats import bootstrap_mean, difference, percentile_interval
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.process import run

KEPT = Path(__file__).parent / "judgements" / "news_zh.csv"
_COLUMNS = ("query", "hash", "grade")
Grades = dict[tuple[str, str], float]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.judge", description=__doc__)
    parser.add_argument("what", choices=["pool", "keep", "score", "show"])
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--queries", type=Path, default=sample_path("zh", "queries"), help="columns query, relevant")
    parser.add_argument("--grades", type=Path, default=KEPT, help="the grades that are kept (default %(default)s)")
    parser.add_argument("--titles", action="store_true", help="show: the titles, too, which are the data's")
    parser.add_argument("--out", type=Path, default=Path("pool.csv"), help="of pool (default %(default)s)")
    arguments = parser.parse_args(argv)
    return run(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    table = read_table(arguments.queries, {"query": "query", "relevant": "relevant"})
    queries = dict(zip(table["query"], table["relevant"], strict=True))
    grades = read_grades(arguments.grades)
    if arguments.what == "keep":
        for path in arguments.paths:
            grades |= read_pool(path)
        arguments.grades.parent.mkdir(parents=True, exist_ok=True)
        write_csv(arguments.grades, _COLUMNS, [(*key, f"{grade:g}") for key, grade in sorted(grades.items())])
        return
    found = {str(path): hits(path, list(queries)) for path in arguments.paths}
    if arguments.what == "pool":
        write_csv(arguments.out, ("query", "title", "grade", "relevant"), pooled(queries, list(found.values()), grades))
        return
    if arguments.what == "show":
        sys.stdout.write("\n".join(table_of_queries(found, grades, arguments.titles)) + "\n")
        return
    score(list(queries), found, grades)


def hits(path: Path, queries: Sequence[str]) -> dict[str, list[str]]:
    """Return the first ``K`` different titles that a search finds for each query, the best first.

    Raises:
        UserError: the file leaves a query out.
    """
    if path.is_dir():
        from sentence_forge.search.index import Index

        with Index.open(path) as index:
            found = {query: [hit.title for hit in ranked] for query, ranked in
                     zip(queries, index.search(queries, 4 * K), strict=True)}
    else:
        lines = [json.loads(each) for each in path.read_text(encoding="utf-8").splitlines()]
        found = {each["query"]: [hit["title"] for hit in each["hits"]] for each in lines}
    if missing := [query for query in queries if query not in found]:
        raise UserError(f"{path}: has no hits of {missing[0]!r}; search all queries")
    return {query: list(dict.fromkeys(found[query]))[:K] for query in queries}


def pooled(queries: Mapping[str, str], searches: Sequence[Mapping[str, Sequence[str]]],
           grades: Grades) -> list[tuple[str, str, str, str]]:
    """Return each query with every title that a search found for it, by hash, its grade if it has one, and the rule."""
    rows = []
    for query, relevant in queries.items():
        titles = {title for search in searches for title in search[query]}
        for title in sorted(titles, key=hashed):
            grade = grades.get((query, hashed(title)))
            rows.append((query, title, "" if grade is None else f"{grade:g}", relevant))
    return rows


def score(queries: Sequence[str], found: Mapping[str, Mapping[str, Sequence[str]]], grades: Grades) -> None:
    """Print a line for each search: its measures with intervals, and the paired difference from the first search.

    A title without a grade counts as irrelevant; ``judged`` is the share that has one. Queries for which nothing is
    relevant are left out.
    """
    known = [[grade for (of, _), grade in grades.items() if of == query] for query in queries]
    right = np.array([sum(grade > 0 for grade in row) for row in known])
    if not right.any():
        raise UserError("there are no grades above 0 for these queries; pool, grade and keep first")
    ideal = np.array([(sorted(row, reverse=True) + [0.0] * K)[:K] for row in known])
    before: dict[str, tuple[float, np.ndarray]] = {}
    for name, search in found.items():
        cells = [[grades.get((query, hashed(title))) for title in search[query]] for query in queries]
        ranked = np.array([([grade or 0.0 for grade in row] + [0.0] * K)[:K] for row in cells])
        more: dict[str, object] = {}
        now = {}
        for measure, values in measured(ranked, ideal, right).items():
            samples = bootstrap_mean(values[right > 0])
            now[measure] = float(values[right > 0].mean()), samples
            more |= {measure: round(100 * now[measure][0], 2), f"{measure}_ci95": _shown(percentile_interval(samples))}
            if before:
                gain = difference(now[measure][0] - before[measure][0], samples - before[measure][1])
                more |= {f"{measure}_delta": round(100 * gain.delta, 2), f"{measure}_delta_ci95": _shown(gain.ci95),
                         f"{measure}_p": round(gain.p, 5)}
        before = before or now
        line(name, 100 * now[f"ndcg@{K}"][0], f"nDCG@{K} x 100", queries=int((right > 0).sum()),
             judged=round(float(np.mean([grade is not None for row in cells for grade in row])), 4), **more)


def table_of_queries(found: Mapping[str, Mapping[str, Sequence[str]]], grades: Grades, titles: bool) -> list[str]:
    """Return a Markdown table of a row a query and a column a search: the grades of its first five hits, in order.

    A hit without a grade is ``-``.

    Args:
        found: for each search its hits by query, the best first.
        grades: by query and hash of the title.
        titles: whether each grade is followed by its title.
    """
    searches = list(found.values())
    rows = [["query", *(Path(name).stem for name in found)], ["---"] * (len(found) + 1)]
    for query in searches[0]:
        cells = []
        for search in searches:
            graded = [(grades.get((query, hashed(title))), title) for title in search[query][:5]]
            said = ["-" if grade is None else f"{grade:g}" for grade, _ in graded]
            cells.append("<br>".join(f"{grade} {cell(title)}" for grade, (_, title) in zip(said, graded, strict=True))
                         if titles else " ".join(said))
        rows.append([cell(query), *cells])
    return [f"| {' | '.join(row)} |" for row in rows]


def cell(text: str) -> str:
    """Return a text as a cell of a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|")


def hashed(title: str) -> str:
    """Return the hash that stands for a title where grades are kept."""
    return sha256(title.encode()).hexdigest()[:16]


def read_grades(path: Path) -> Grades:
    """Return the grades that are kept by query and hash of the title; none where there is no such file."""
    if not path.is_file():
        return {}
    table = read_table(path, {"query": "query", "hash": "hash", "score": "grade"}, score_range=(0, 2))
    return dict(zip(zip(table["query"], table["hash"], strict=True), table["score"], strict=True))


def read_pool(path: Path) -> Grades:
    """Return the grades that a person filled in by query and hash of the title; blank ones are left out.

    Raises:
        UserError: a grade is not 0, 1 or 2; the message names its row.
    """
    table = read_table(path, {"query": "query", "title": "title", "grade": "grade"}, may_be_empty=["grade"])
    found: Grades = {}
    for row, query, title, grade in zip(table["row"], table["query"], table["title"], table["grade"], strict=True):
        if grade.strip() not in ("", "0", "1", "2"):
            raise UserError(f"{path}, row {row}, column grade: {grade!r} is none; give 0, 1 or 2")
        if grade.strip():
            found[query, hashed(title)] = float(grade)
    return found


def _shown(interval: tuple[float, float]) -> list[float]:
    return [round(100 * end, 2) for end in interval]


if __name__ == "__main__":
    raise SystemExit(main())
