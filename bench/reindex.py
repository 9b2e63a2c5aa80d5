"""Re-indexing after one title in a hundred changed, beside the first time, by the command a user types; wall-clock.

``python -m bench.reindex DIR``: DIR is what ``python -m export corpus=... out=DIR`` wrote, and is left
alone. The first time is that of its manifest, which counts neither start-up nor reading; ``--measure-first`` takes it
by the same command instead, without an index to begin with.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.lines import line, seconds

SHARE = 0.01


def main() -> None:
    """Print the seconds, and their share of the first time's."""
    parser = argparse.ArgumentParser(prog="python -m bench.reindex", description=__doc__)
    parser.add_argument("export", type=Path)
    parser.add_argument("--first", type=float, metavar="SECONDS")
    parser.add_argument("--measure-first", action="store_true")
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    about = json.loads((arguments.export / "manifest.json").read_text(encoding="utf-8"))
    rows = _rows(arguments.export)
    with tempfile.TemporaryDirectory(dir=arguments.export.parent) as folder:
        copy, corpus = Path(folder, "export"), Path(folder, "corpus.csv")
        first = arguments.first
        if arguments.measure_first:
            shutil.copytree(arguments.export, copy, ignore=shutil.ignore_patterns("index"))
            _write(corpus, rows)
            first = seconds(lambda: _index(copy, corpus))
            shutil.rmtree(copy)
        elif first is None:
            if about["index"]["encoded"] < len({title for _, title in rows}):
                parser.error(f"{arguments.export}: was indexed again since the first time; give --first or "
                             "--measure-first")
            first = about["index"]["seconds"]
        _write(corpus, _changed(rows))
        for _ in range(arguments.repeats):
            shutil.copytree(arguments.export, copy)
            taken = seconds(lambda: _index(copy, corpus))
            found = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))["index"]
            shutil.rmtree(copy)
            line("reindex", taken, "s", peer="the first time", peer_value=first, rows=len(rows),
                 encoded=found["encoded"], without_start_up=found["seconds"], precision=about["precision"])


def _rows(export: Path) -> list[tuple[str, str]]:
    from sentence_forge.search.index import Index

    with Index.open(export) as index:
        return list(zip(index.ids, index.titles, strict=True))


def _changed(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the rows with one title in a hundred ending otherwise."""
    changed = set(random.Random(0).sample(range(len(rows)), round(SHARE * len(rows))))
    return [(name, f"{title}, corrected version" if row in changed else title)
            for row, (name, title) in enumerate(rows)]


def _write(corpus: Path, rows: list[tuple[str, str]]) -> None:
    with corpus.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "title"), *rows])


def _index(out: Path, corpus: Path) -> None:
    subprocess.run([sys.executable, "-m", "export", "only=index", f"corpus={corpus}", "corpus.id_column=id",
                    f"out={out}"], check=True, capture_output=True)


if __name__ == "__main__":
    main()
