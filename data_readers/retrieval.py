"""Read retrieval data, queries with lists of positive and negative passages, as one row for each positive."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sentence_forge.data_readers.formats.files import open_rows, rows_of
from sentence_forge.data_readers.formats.reading import Reading
from sentence_forge.data_readers.formats.rows import BadRow, Row, RowFile
from sentence_forge.data_readers.known_columns import well_known
from sentence_forge.data_readers.recognise import DEV_NAMES, TRAIN_NAMES
from sentence_forge.runtime.errors import UserError

logger = logging.getLogger(__name__)

_ROLES = ("anchor", "positive", "negative")


class Expanded(RowFile):
    """A file of a query and lists of passages in each row.

    BGE has ``{"query": .., "pos": [..], "neg": [..]}``, Tevatron ``query``, ``positive_passages`` and
    ``negative_passages`` of objects with ``title`` and ``text``, others ``query``, ``positive`` and ``negative``. Each
    positive gives a row of ``anchor``, ``positive``, ``negative``, ``negative_2``, ... with the number of the file's
    row. Further positives of a query take further ones of its negatives, and they begin anew where there are too few.

    Args:
        file: with lists in its columns.
        columns: the file's column for ``anchor``, ``positive`` and perhaps ``negative``.
        negatives: of each row.
    """

    def __init__(self, file: RowFile, columns: dict[str, str], negatives: int) -> None:
        super().__init__(file.path, file.stored)
        self.detected = file.detected
        self._file, self._named, self._negatives = file, columns, negatives if "negative" in columns else 0
        self.columns = ["anchor", "positive", *_negatives(self._negatives)]

    def rows(self, columns: Sequence[str]) -> Iterator[Row | BadRow]:
        """Yield the rows; a query without a positive is a bad row.

        A query without any negative takes a positive of another query, as it would within a batch.
        """
        places = [self.columns.index(column) for column in columns]
        wanted = self._negatives if any(column.startswith("negative") for column in columns) else 0
        others: deque[tuple[str, str]] = deque(maxlen=4)  # queries before, each with its first positive
        waiting: list[_Query] = []  # until there is another one
        alone = 0
        for found in self._queries(wanted):
            if isinstance(found, BadRow):
                yield found
                continue
            others.append((found.text, found.positives[0]))
            lack = wanted > 0 and not found.negatives
            alone += lack
            for query in [*waiting, found]:
                if wanted and not query.negatives:
                    query.negatives += [text for other, text in others
                                        if other != query.text and text not in query.positives][-1:]
                    if not query.negatives:
                        if query is found:
                            waiting.append(query)
                        continue
                waiting = [each for each in waiting if each is not query]
                yield from query.rows(wanted, places)
        for query in waiting:
            yield BadRow(query.line, query.number, "has no negative, and there is no other query to take one from; "
                         "data.negatives=0 takes pairs alone", query.text[:200])
        if alone:
            logger.info("%s: %d queries have no negative of their own; each takes a positive of another query",
                        self.path, alone)

    def _queries(self, wanted: int) -> Iterator[_Query | BadRow]:
        names = [self._named[role] for role in _ROLES if role in self._named and (wanted or role != "negative")]
        for row in self._file.rows(names):
            if isinstance(row, BadRow):
                yield row
                continue
            try:
                query, positives, *negatives = (_passages(cell, name in self._file.lists)
                                                for name, cell in zip(names, row.values, strict=True))
            except ValueError as error:
                yield BadRow(row.line, row.number, str(error), row.values[0][:200])
                continue
            if query and positives:
                yield _Query(row.line, row.number, query[0], positives, [text for each in negatives for text in each])
            else:
                yield BadRow(row.line, row.number, f"has no text in {names[1] if query else names[0]}",
                             row.values[0][:200])


@dataclass
class _Query:
    line: int
    number: int
    text: str
    positives: list[str]
    negatives: list[str]

    def rows(self, wanted: int, places: Sequence[int]) -> Iterator[Row]:
        """Yield a row for each positive; further ones take further negatives."""
        for at, positive in enumerate(self.positives):
            chosen = [self.negatives[(at * wanted + each) % len(self.negatives)] for each in range(wanted)]
            cells = [self.text, positive, *chosen]
            yield Row(self.line, self.number, [cells[place] for place in places])


def _negatives(count: int) -> list[str]:
    return ["negative" if number == 1 else f"negative_{number}" for number in range(1, count + 1)]


def _passages(cell: str, is_list: bool) -> list[str]:
    """Return the texts of a cell: a string, or a JSON list of strings or of objects with a title and a text."""
    if not is_list:
        return [cell] if cell.strip() else []
    texts = []
    for each in json.loads(cell):
        text = each
        if isinstance(each, dict):
            text = " ".join(str(each[key]).strip() for key in ("title", "text") if str(each.get(key) or "").strip())
        if not isinstance(text, str):
            raise ValueError(f"holds {json.dumps(each)[:40]} among its passages, not a string")
        if text.strip():
            texts.append(text)
    return texts


def expanded(file: RowFile, columns: dict[str, str], negatives: int) -> RowFile:
    """Return a file with a row for each positive, if it has lists of them; else the file itself.

    Raises:
        UserError: it has lists, but not for a known column.
    """
    if negatives < 0:
        raise UserError(f"data.negatives is {negatives}; give a number of negatives from 0")
    if not file.lists:
        return file
    named = well_known(file.columns, _ROLES) | {role: column for role, column in columns.items() if role in _ROLES}
    if not {"anchor", "positive"} <= named.keys() or not set(named.values()) <= set(file.columns):
        if file.lists & set(columns.values()):
            raise UserError(f"{file.path}: has lists in {', '.join(sorted(file.lists))}; say which are passages, as "
                            "data.columns.anchor=<query> data.columns.positive=<list> data.columns.negative=<list>")
        return file
    if not file.lists & {named["positive"], named.get("negative")}:
        return file
    more = f", with {negatives} of {named['negative']} (data.negatives= says how many)" if "negative" in named else ""
    logger.info("%s: each of %s is a row with its %s%s", file.path, named["positive"], named["anchor"], more)
    return Expanded(file, named, negatives)


class Judged(RowFile):
    """A folder as BEIR has it: ``corpus.jsonl``, ``queries.jsonl`` and judgements in ``qrels/train.tsv``.

    Each passage that is judged above 0 gives a row of a query and it, with those judged 0 as negatives, if there are
    any for every query.

    Args:
        folder: holds the files.
        qrels: the judgements of a split.
        reading: what a person says of the files.

    Raises:
        UserError: a file lacks a column, or a judgement names what isn't there.
    """

    def __init__(self, folder: Path, qrels: Path, reading: Reading) -> None:
        super().__init__(qrels, [qrels, *(_only(folder, name) for name in ("corpus", "queries"))])
        self.columns, self.lists = ["query", "positive", "negative"], frozenset(["positive", "negative"])
        self._reading = reading

    def rows(self, columns: Sequence[str]) -> Iterator[Row | BadRow]:
        """Yield a row for each query, in the order of the judgements."""
        judged: dict[str, tuple[int, list[str], list[str]]] = {}
        file = open_rows(self.path, self._reading)
        names = [_one_of(file, each) for each in (("query-id", "qid", "query_id"), ("corpus-id", "pid", "corpus_id",
                                                                                  "docid"), ("score", "label", "rel"))]
        for row in rows_of(file, names):
            if isinstance(row, BadRow):
                raise UserError(f"{self.path}, line {row.line}: {row.reason}")
            query, passage, score = row.values
            entry = judged.setdefault(query, (row.line, [], []))
            (entry[1] if _is_positive(score, self.path, row.line) else entry[2]).append(passage)
        needed = {passage for _, good, bad in judged.values() for passage in (*good, *bad)}
        corpus = _texts(self.stored[1], needed, self._reading)
        queries = _texts(self.stored[2], judged.keys(), self._reading)
        for number, (query, (line, good, bad)) in enumerate(judged.items(), 1):
            missing = next((f"{self.stored[1]} has no {name!r}" for name in (*good, *bad) if name not in corpus),
                           None if query in queries else f"{self.stored[2]} has no {query!r}")
            if missing:
                yield BadRow(line, number, missing, query)
            elif good:
                cells = {"query": queries[query], "positive": json.dumps([corpus[name] for name in good]),
                         "negative": json.dumps([corpus[name] for name in bad])}
                yield Row(line, number, [cells[column] for column in columns])


def judged_folder(folder: Path, reading: Reading) -> tuple[RowFile, RowFile | None] | None:
    """Return the train and the dev judgements of a folder as BEIR has it; None where it is none.

    Raises:
        UserError: it has no judgements to train on.
    """
    if not (folder / "qrels").is_dir() or not any(folder.glob("corpus.*")) or not any(folder.glob("queries.*")):
        return None
    splits = {file.name.partition(".")[0]: file for file in sorted((folder / "qrels").iterdir()) if file.is_file()}
    train = next((splits[name] for name in TRAIN_NAMES if name in splits), None)
    if train is None:
        raise UserError(f"{folder / 'qrels'}: has no train.tsv; there are: {', '.join(splits) or 'none'}")
    dev = next((splits[name] for name in DEV_NAMES if name in splits), None)
    return Judged(folder, train, reading), None if dev is None else Judged(folder, dev, reading)


def _only(folder: Path, stem: str) -> Path:
    return sorted(folder.glob(f"{stem}.*"))[0]


def _one_of(file: RowFile, names: Sequence[str]) -> str:
    return next((name for name in names if name in file.columns), names[0])


def _is_positive(score: str, path: Path, line: int) -> bool:
    try:
        return float(score) > 0
    except ValueError:
        raise UserError(f"{path}, line {line}: the judgement {score[:40]!r} is not a number") from None


def _texts(path: Path, needed: Collection[str], reading: Reading) -> dict[str, str]:
    """Return the texts of the ids that are needed, each with its title before it."""
    file = open_rows(path, reading)
    columns = [_one_of(file, ("_id", "id", "docid", "doc_id")), "text", *(["title"] if "title" in file.columns else [])]
    found = {}
    for row in rows_of(file, columns):
        if isinstance(row, Row) and row.values[0] in needed:
            found[row.values[0]] = " ".join(filter(None, (text.strip() for text in (*row.values[2:], row.values[1]))))
    return found
