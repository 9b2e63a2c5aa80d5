"""How ``make soak`` tries: trials in folders of their own, commands as typed or in forks, pytest's cases counted."""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from faults import forked

ROOT = Path(__file__).parent.parent
Trial = Callable[[Path, random.Random], None]


class Row(NamedTuple):
    """A line of the table."""

    what: str
    tried: int
    survived: int


def trials(what: str, count: int, trial: Trial) -> Row:
    """Try so often, each time in an empty folder of its own with a random source of its own."""
    survived = 0
    for number in range(count):
        with tempfile.TemporaryDirectory() as folder:
            try:
                trial(Path(folder), random.Random(f"{what} {number}"))
                survived += 1
            except Exception:
                sys.stderr.write(f"LOST: {what}, trial {number}\n{traceback.format_exc()}\n")
    return Row(what, count, survived)


def command(name: str, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """Start ``python -m <name>`` as typed."""
    return subprocess.Popen([sys.executable, "-m", name, *arguments], cwd=cwd, stderr=subprocess.PIPE, text=True,
                            stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)})


def finished(name: str, *arguments: str, cwd: Path) -> str:
    """Run a command that must succeed; return what it said."""
    process = command(name, *arguments, cwd=cwd)
    try:
        said = process.communicate(timeout=600)[1]
    finally:
        process.kill()
    assert process.returncode == 0, said
    return said


def in_fork(name: str, *arguments: str, cwd: Path) -> None:
    """The same in a fork of this process, its imports paid."""
    def work(acknowledge: object) -> None:
        os.chdir(cwd)
        sys.argv = [name, *arguments]
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            try:
                import_module(f"sentence_forge.{name}.cli").main()
            except SystemExit as leaving:
                assert not leaving.code, (arguments, leaving.code)

    assert forked(work).status == 0, arguments


def pytests(what: str, *arguments: str, cases: int | None = None, **environment: str) -> Row:
    """Count what pytest passes; ``cases`` where a test holds several."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", *arguments], cwd=ROOT, capture_output=True, text=True,
                          check=False, env=os.environ | environment)
    found = {kind: int(count) for count, kind in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    passed, tried = found.get("passed", 0), sum(found.values())
    if passed < tried or not tried:
        sys.stderr.write(done.stdout[-5000:])
    if cases is not None:
        return Row(what, cases, cases if tried and passed == tried else 0)
    return Row(what, max(1, tried), passed)
