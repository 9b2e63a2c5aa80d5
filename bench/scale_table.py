"""The table of how an index grows, a column a size, made of what ``bench.scale`` kept on each kind of machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.lines import slope
from bench.results import RESULTS

GOAL = 0.995  # of the recall at 10, at which times are compared
Line = Mapping[str, Any]
Lines = Mapping[str, Line]  # of one size, by name


def tables(results: Path = RESULTS, name: str = "scale") -> str:
    """Return a table for each kind of machine, with the slope of a query's time, its machine and commit."""
    made = []
    for file in sorted(results.glob(f"*/{name}.json")):
        read = json.loads(file.read_text(encoding="utf-8"))
        told = f"{file.parent.name}, kept at `{read['machine']['commit']}`{_slopes(read['lines'])}"
        made.append("\n".join([*_table(read["lines"]), "", f"({told})"]))
    return "\n\n".join(made) or "Not measured yet."


def _table(lines: Sequence[Line]) -> list[str]:
    sizes = sorted({line["rows"] for line in lines})
    by_size = [{line["name"]: line for line in lines if line["rows"] == rows} for rows in sizes]
    rows = [["rows", *(f"{rows:,}" for rows in sizes)], ["---"] * (1 + len(sizes))]
    for name, cell in _CELLS.items():
        cells = [cell(found) for found in by_size]
        rows += [[name, *cells]] * any(cells)
    return [f"| {' | '.join(row)} |" for row in rows]


def _slopes(lines: Sequence[Line]) -> str:
    told = []
    for name, said in (("fast_query", "fast"), ("exact_query", "exact")):
        found = {line["rows"]: line["value"] for line in lines if line["name"] == name}
        if len(found) > 1:
            told.append(f"{said} {slope(found):.2f}")
    return f"; slope of the time over the rows, log over log: {', '.join(told)}" if told else ""


def _time(name: str, *, recall: bool = False) -> Callable[[Lines], str]:
    def cell(found: Lines) -> str:
        line = found.get(name)
        if line is None:
            return ""
        told = f"**{line['value']:.2f} ms**" + (f" ({line['p95']:.1f})" if "p95" in line else "")
        return f"{told}, {line['recall']:.4f}" if recall else told

    return cell


def _value(name: str, unit: str) -> Callable[[Lines], str]:
    def cell(found: Lines) -> str:
        line = found.get(name)
        return "" if line is None else f"{line['value']:,.0f} {unit}" if line["value"] >= 10 else \
            f"{line['value']:.2g} {unit}"

    return cell


def _memory(found: Lines) -> str:
    line = found.get("resident_memory")
    return "" if line is None else f"{line['value']:,.0f} MiB ({line['not_mapped']:,.0f})"


def _cold(found: Lines) -> str:
    if "cold_start" not in found:
        return ""
    disk = found.get("cold_start, from disk")
    return f"{found['cold_start']['value']:.2f} s" + (f" ({disk['value']:.2f})" if disk else "")


def _kind(found: Lines) -> str:
    if "fast_query" not in found:
        return ""
    line = found["fast_query"]
    abouts = line["shards"] if "shards" in line else [line["index"]]  # of results before there were shards
    return f"{len(abouts)} shards: " * (len(abouts) > 1) + ", ".join(dict.fromkeys(map(_kind_of, abouts)))


def _kind_of(about: Mapping[str, Any] | None) -> str:
    return "none" if about is None else "all codes" if "cells" not in about else \
        f"{about['probes']:,} of {about['cells']:,} cells"


_CELLS: dict[str, Callable[[Lines], str]] = {
    "build, without the encoding": _value("build", "s"),
    "re-index after 1 % changed, likewise": _value("reindex", "s"),
    "one query, fast: median (p95), recall@10": _time("fast_query", recall=True),
    "one query, fast, from disk: median": _time("fast_query, from disk"),
    "one query, exact: median (p95)": _time("exact_query"),
    "the fast index": _kind,
    "resident while searching (not mapped)": _memory,
    "on disk": _value("disk", "MiB"),
    "a new process's first query (from disk)": _cold,
    "memory of the building process (not mapped)": _value("build_memory", "MiB"),
    "FAISS HNSW, float16, at our recall: median (p95), recall@10": _time("fast_query, hnsw", recall=True),
    "FAISS HNSW at 0.995": _time("fast_query, hnsw, goal", recall=True),
    "its build": _value("build, hnsw", "s"),
    "its memory": _value("resident_memory, hnsw", "MiB"),
    "pgvector HNSW, halfvec, at our recall: median (p95), recall@10": _time("fast_query, pgvector", recall=True),
    "pgvector HNSW at 0.995": _time("fast_query, pgvector, goal", recall=True),
    "its load and build": _value("build, pgvector", "s"),
    "its table and index on disk": _value("disk, pgvector", "MiB"),
    "pgvector IVFFlat, halfvec, at 0.995": _time("fast_query, ivfflat, goal", recall=True),
    "its own load and build": _value("build, ivfflat", "s"),
}
