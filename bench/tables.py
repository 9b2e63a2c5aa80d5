"""The tables of RESULTS.md over all kinds of machine: ``python -m bench.tables`` prints them from ``bench/results``.

``--write`` puts them between their marks in RESULTS.md. A column is a kind of machine with the commit that was measured
there. A cell is our speed, the ratio to the peer's and its 95 % interval (of older results: lowest to highest of the
repeats); of seconds and memory, where less is better, ours and the peer's. Between ``<!-- kept NAME -->`` and its end
stands what ``python -m bench.recipes NAME`` kept, between ``<!-- scale -->`` and its end how an index grows.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import recipe_tables, scale_table
from bench.results import RESULTS

PAGE = RESULTS.parent.parent / "RESULTS.md"
TABLES = {"training": "train", "encoding": "encode_en"}
Line = Mapping[str, Any]


def main() -> None:
    """Print the tables, or write them into RESULTS.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.tables", description=__doc__)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        text = PAGE.read_text(encoding="utf-8")
        for name in TABLES:
            text = written(text, name, table(name))
        for name in re.findall(r"<!-- kept ([\w-]+) -->", text):
            text = written(text, f"kept {name}", kept(name))
        for name in ("scale", "scale_shards", "scale_half"):
            text = written(text, name, scale_table.tables(name=name))
        text = written(text, "minutes", minutes())
        PAGE.write_text(text, encoding="utf-8")
    else:
        sys.stdout.writelines(f"{table(name)}\n" for name in TABLES)


def written(text: str, name: str, made: str) -> str:
    r"""Return a page's text with a table between its two marks.

    >>> written("a <!-- x --> b <!-- end x --> c", "x", "| t |")
    'a <!-- x -->\n| t |\n<!-- end x --> c'
    """
    found = re.compile(f"(<!-- {name} -->).*?(<!-- end {name} -->)", re.DOTALL)
    return found.sub(lambda marks: f"{marks[1]}\n{made}\n{marks[2]}", text)


def minutes(results: Path = RESULTS) -> str:
    """Return how long the trainings of the kept tables took, by kind of machine."""
    took: dict[str, float] = {}
    for file in sorted(results.glob("*/*.json")):
        for each in json.loads(file.read_text(encoding="utf-8"))["lines"]:
            took[file.parent.name] = took.get(file.parent.name, 0) + (each.get("minutes") or 0)
    return ", ".join(f"{kind}: {total:.0f} minutes" for kind, total in took.items() if total)


def table(name: str, results: Path = RESULTS) -> str:
    """Return a table as Markdown, and below it between what the ratios lie."""
    files = sorted(results.glob(f"*/{TABLES[name]}.json"))
    read = {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in files}
    columns = {kind: [line for line in kept["lines"] if line["ratio"] is not None] for kind, kept in read.items()}
    rows = list(dict.fromkeys((line["name"], line["peer"]) for lines in columns.values() for line in lines))
    heads = [f"{kind} (`{kept['machine']['commit']}`)" for kind, kept in read.items()]
    made = [["", "beside", *heads], ["---"] * (2 + len(heads))]
    for row in rows:
        cells = [next((_cell(line) for line in lines if (line["name"], line["peer"]) == row), "")
                 for lines in columns.values()]
        made.append([*row, *cells])
    return "\n".join([*(f"| {' | '.join(cells)} |" for cells in made), "", _range(columns)])


def kept(name: str, results: Path = RESULTS) -> str:
    """Return the tables that ``bench.recipes`` kept under a name, each with its machine and commit."""
    made = []
    for file in sorted(results.glob(f"*/{name}.json")):
        read = json.loads(file.read_text(encoding="utf-8"))
        commit = read["machine"]["commit"]
        made.append(f"{recipe_tables.table(read['lines'])}\n\n({file.parent.name}, kept at `{commit}`)")
    return "\n\n".join(made) or "Not measured yet."


def _cell(line: Line) -> str:
    if line["unit"] in ("s", "MiB"):
        return f"{_number(line['value'])} and {_number(line['peer_value'])} {line['unit']}"
    ends = line.get("ratio_ci95") or line.get("ratio_spread")
    figure = "" if line["unit"] == "times" else f"{_number(line['value'])} {line['unit']}, "
    return f"{figure}**{line['ratio']:.2f}x**{f' ({ends[0]:.2f} to {ends[1]:.2f})' if ends else ''}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _range(columns: Mapping[str, Sequence[Line]]) -> str:
    """Return between what the ratios of the speeds beside the stock library lie, with the machine of both ends."""
    told = [(line["ratio"], line["name"], kind) for kind, lines in columns.items() for line in lines
            if line["unit"].endswith("/s") and str(line["peer"]).startswith(("stock", "sentence-transformers"))]
    if not told:
        return "Nothing measured."
    low, high = min(told), max(told)
    return (f"Over {len(columns)} kind{'s' * (len(columns) > 1)} of machine from {low[0]:.2f}x ({low[1]}, {low[2]}) to "
            f"{high[0]:.2f}x ({high[1]}, {high[2]}).")


if __name__ == "__main__":
    main()
