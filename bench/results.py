"""Measurements kept: ``bench/results/<kind>/<name>.json``, the lines with the machine they were taken on.

One folder per kind of machine (``bench.machine.kind``), so that those of several stand side by side.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.machine import commit, facts, kind
from sentence_forge.runtime.files import write_json

RESULTS = Path(__file__).parent / "results"


def results_of_this_kind() -> Path:
    """Return where this kind of machine's results are kept.

    Raises:
        SystemExit: a tracked file differs from the commit, so that nobody could measure the same again.
    """
    if (commit() or "").endswith("-dirty"):
        sys.exit("error: files differ from the commit that the results would name; commit first, or give --results=")
    return RESULTS / kind()


class Results:
    """A results file that is whole after every line, so that a run that is cut still tells.

    Args:
        file: ``<name>.json``; its folder is made.
        command: what was run, for the record.
        lines: what is there already.
    """

    def __init__(self, file: Path, command: str, lines: list[dict[str, Any]] | None = None) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.file, self.command, self.lines = file, command, list(lines or ())
        self._machine, self._begun = facts(), time.monotonic()

    def add(self, *lines: Mapping[str, Any]) -> None:
        """Keep lines."""
        self.lines += map(dict, lines)
        write_json(self.file, {"command": self.command, "machine": self._machine,
                               "seconds": round(time.monotonic() - self._begun, 1), "lines": self.lines})


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a results file; none where there is no such file."""
    return json.loads(file.read_text(encoding="utf-8"))["lines"] if file.is_file() else []
