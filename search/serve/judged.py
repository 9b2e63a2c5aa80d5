"""From marks to files: triplets or scored pairs to train on, and a held-out tenth of the queries to test with."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import write_atomic
from sentence_forge.search.serve.marks import KINDS, Mark

Form = Literal["triplets", "pairs"]
GRADES = {"right": 2, "near": 1, "wrong": 0}
SCORES = {"right": 5.0, "near": 2.5, "wrong": 0.0}  # in the range that train takes scores to be in
HEADS: dict[Form, tuple[str, str, str]] = {"triplets": ("anchor", "positive", "negative"),
                                           "pairs": ("sentence1", "sentence2", "score")}
_ONE_IN = 10  # queries that are held out


class Judged(NamedTuple):
    """The marks of all labellers in one: for each query its texts by kind, and on how many texts they disagree."""

    queries: dict[str, dict[str, list[str]]]
    disputed: int


class Written(NamedTuple):
    """What was written: rows and queries of each file, and what is in neither."""

    rows: int
    queries: int
    test_rows: int
    test_queries: int
    one_sided: int
    disputed: int


def judged(marks: Iterable[Mark]) -> Judged:
    """Return what most labellers say of each text; where two kinds have as many, the text is left out as disputed."""
    votes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for mark in reversed(list(marks)):  # oldest first, so that files grow at their end
        votes[mark.query, mark.text][mark.mark] += 1
    queries: dict[str, dict[str, list[str]]] = {}
    disputed = 0
    for (query, text), given in votes.items():
        best = given.most_common(2)
        if len(best) == 2 and best[0][1] == best[1][1]:
            disputed += 1
        elif text != query:
            queries.setdefault(query, {kind: [] for kind in KINDS})[best[0][0]].append(text)
    return Judged(queries, disputed)


def held_out(query: str) -> bool:
    """Return whether a query belongs to the test set: a fixed tenth, whatever else is marked."""
    same = " ".join(query.casefold().split())
    return int.from_bytes(hashlib.sha256(same.encode()).digest()[:8]) % _ONE_IN == 0


def rows_of(query: str, texts: dict[str, list[str]], form: Form) -> list[tuple[str, str, str]]:
    """Return a query's rows to train on: every text at least once.

    Triplets need a right and a wrong text; a query without one of them has none.
    """
    if form == "pairs":
        return [(query, text, f"{SCORES[kind]:g}") for kind in KINDS for text in texts[kind]]
    right, wrong = texts["right"], texts["wrong"]
    count = max(len(right), len(wrong)) if right and wrong else 0
    return [(query, right[place % len(right)], wrong[place % len(wrong)]) for place in range(count)]


def write(marks: Iterable[Mark], train: Path, form: Form) -> Written:
    """Write the marks as ``train``, and the held-out queries' as its test file (see `test_file`).

    Raises:
        UserError: there is nothing to train on.
    """
    all_queries, disputed = judged(marks)
    tested = {query: texts for query, texts in all_queries.items() if held_out(query)}
    learnt = {query: rows_of(query, texts, form) for query, texts in all_queries.items() if query not in tested}
    rows = [row for found in learnt.values() for row in found]
    if not rows:
        raise UserError("marks: there is nothing to train on yet; mark some right and some wrong hits of a few queries"
                        if form == "triplets" else "marks: there are none to train on yet; mark some hits")
    test = [(query, text, str(GRADES[kind])) for query, texts in tested.items() for kind in KINDS
            for text in texts[kind]]
    write_atomic(train, _table(HEADS[form], rows))
    write_atomic(test_file(train), _table(("query", "title", "grade"), test))
    used = sum(bool(found) for found in learnt.values())
    return Written(len(rows), used, len(test), len(tested), len(learnt) - used, disputed)


def test_file(train: Path) -> Path:
    """Return where the held-out queries' marks go: ``marks.test.csv`` beside ``marks.csv``."""
    return train.with_name(f"{train.stem}.test{train.suffix}")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()
