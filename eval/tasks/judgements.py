"""Read queries, documents and judgements from a BEIR folder, LlamaIndex's JSON or a table."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sentence_forge.data_readers.formats.files import header
from sentence_forge.data_readers.known_columns import plain
from sentence_forge.data_readers.table import ROW, read_table
from sentence_forge.runtime.errors import UserError, one_of

_ANY = (-math.inf, math.inf)
KNOWN = (("query", "question", "查询", "问题", "anchor"),
         ("title", "document", "passage", "text", "标题", "文档", "文本"),
         ("grade", "relevance", "score", "label", "rel", "分数", "相关性", "标签"))
"""What the columns of a table are called, the commoner names first: the query, the document and the grade."""
_PARTS = ("queries", "corpus", "relevant_docs")


@dataclass(frozen=True)
class Judgements:
    """Distinct queries and documents, and for each query the grades of documents by their position."""

    queries: list[str] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    grades: list[dict[int, float]] = field(default_factory=list)


def is_beir(folder: Path) -> bool:
    """Whether a folder holds a corpus, queries and judgements as BEIR (Thakur et al., 2021) has them."""
    return (folder / "corpus.jsonl").is_file() and (folder / "queries.jsonl").is_file() and (folder / "qrels").is_dir()


def files_of(path: Path, split: str) -> list[Path]:
    """Return the files that hold the judgements and texts, the judgements first.

    Raises:
        UserError: a folder has no judgements of ``split``, and several others.
    """
    if not path.is_dir():
        return [path]
    splits = {file.stem: file for file in sorted((path / "qrels").glob("*.tsv"))}
    if split not in splits and len(splits) != 1:
        raise UserError(f"{path / 'qrels'}: there is no {split}.tsv; give suite.mine.split=; "
                        f"{one_of(splits, split)}")
    return [splits.get(split) or next(iter(splits.values())), path / "corpus.jsonl", path / "queries.jsonl"]


def read_judgements(path: Path, files: Sequence[Path], columns: Sequence[str] | None) -> Judgements:
    """Return what a folder, a .json or a table holds.

    Args:
        path: the folder or file.
        files: ``files_of`` it.
        columns: of a table, its names of the query, the document and the grade; None finds those in ``KNOWN``.

    Raises:
        UserError: a row or an entry is bad, or an id unknown; the message names it.
    """
    if path.is_dir():
        return _of_folder(*files)
    if path.suffix.lower() == ".json":
        return _of_json(path)
    return _of_table(path, columns)


def _of_table(path: Path, given: Sequence[str] | None) -> Judgements:
    names = header(path)
    columns = given or [next((name for known in known_names for name in names if plain(name) == known), known_names[0])
                        for known_names in KNOWN]
    if missing := [column for column in columns if column not in names]:
        raise UserError(f"{path}: no column {missing[0]!r}; there are: {', '.join(names)}; say which hold the query, "
                        "the document and the grade, as suite.mine.columns=[query,title,grade]")
    table = read_table(path, dict(zip(("query", "document", "score"), columns, strict=True)), score_range=_ANY)
    found = Judgements()
    queries: dict[str, int] = {}
    documents: dict[str, int] = {}
    for row, query, document, grade in zip(table[ROW], table["query"], table["document"], table["score"], strict=True):
        if grade < 0:
            raise UserError(f"{path}, row {row}, column {columns[2]}: {grade:g} is below 0; grade what is irrelevant 0")
        number = queries.setdefault(query, len(queries))
        if number == len(found.grades):
            found.grades.append({})
        grades, position = found.grades[number], documents.setdefault(document, len(documents))
        if grades.setdefault(position, grade) != grade:
            raise UserError(f"{path}, row {row}: gives {document[:40]!r} the grade {grade:g} for {query[:40]!r}, an "
                            f"earlier row {grades[position]:g}; keep one of them")
    found.queries.extend(queries)
    found.documents.extend(documents)
    return found


def _of_folder(qrels: Path, corpus: Path, queries: Path) -> Judgements:
    texts = {file: _texts(file) for file in (corpus, queries)}
    names = header(qrels)
    ids = ("query-id", "corpus-id", "score")
    if len(names) == 3 and not set(ids) <= set(names):
        ids = (names[0], names[1], names[2])
    table = read_table(qrels, dict(zip(("query", "document", "score"), ids, strict=True)), score_range=_ANY)
    positions = {name: number for number, name in enumerate(texts[corpus])}
    grades: dict[str, dict[int, float]] = {}
    for row, query, document, grade in zip(table[ROW], table["query"], table["document"], table["score"], strict=True):
        for name, file in ((query, queries), (document, corpus)):
            if name not in texts[file]:
                raise UserError(f"{qrels}, row {row}: {name!r} is no _id in {file.name}; correct it or remove the row")
        grades.setdefault(query, {})[positions[document]] = max(0.0, grade)
    return Judgements([texts[queries][query] for query in grades], list(texts[corpus].values()), list(grades.values()))


def _texts(file: Path) -> dict[str, str]:
    """Return a file's texts by ``_id``, each with its title before it, as BEIR joins them."""
    titled = "title" in header(file)
    columns = {"_id": "_id", "text": "text", **({"title": "title"} if titled else {})}
    table = read_table(file, columns, may_be_empty=["text", "title"])
    found: dict[str, str] = {}
    titles = table["title"] if titled else [""] * len(table["_id"])
    for row, name, title, text in zip(table[ROW], table["_id"], titles, table["text"], strict=True):
        if name in found:
            raise UserError(f"{file}, row {row}: the _id {name!r} stands twice; keep one of the rows")
        found[name] = f"{title} {text}".strip()
        if not found[name]:
            raise UserError(f"{file}, row {row}: {name!r} has no text; fill it or remove the row")
    return found


def _of_json(path: Path) -> Judgements:
    try:
        about = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8; save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: is no JSON ({error.msg})") from None
    if not isinstance(about, Mapping) or not all(isinstance(about.get(part), Mapping) for part in _PARTS):
        raise UserError(f"{path}: needs the objects {', '.join(_PARTS)}, as LlamaIndex's generator writes them")
    queries, corpus, relevant = (about[part] for part in _PARTS)
    for part, texts in (("queries", queries), ("corpus", corpus)):
        for name, text in texts.items():
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"{path}, {part}.{name}: is no text; give a string that is not blank")
    positions = {name: number for number, name in enumerate(corpus)}
    grades = []
    for name in queries:
        documents = relevant.get(name, [])
        unknown = [each for each in documents if each not in positions] if isinstance(documents, list) else [documents]
        if unknown:
            raise UserError(f"{path}, relevant_docs.{name}: {str(unknown[0])[:40]!r} is no key of corpus; give a list "
                            "of keys")
        grades.append({positions[each]: 1.0 for each in documents})
    strange = next((name for name in relevant if name not in queries), None)
    if strange is not None:
        raise UserError(f"{path}, relevant_docs.{strange}: is no key of queries; correct or remove it")
    return Judgements(list(queries.values()), list(corpus.values()), grades)
