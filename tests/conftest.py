"""What several tests share: commands run in this process as if typed, and the folder of real data."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

# a shell ignores these for what it runs in the background, and so would the commands that tests stop by them
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, the system forgets how a child ended
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["TQDM_DISABLE"] = "1"
os.environ["SENTENCE_FORGE_CACHE"] = tempfile.mkdtemp()  # not the home's
atexit.register(shutil.rmtree, os.environ["SENTENCE_FORGE_CACHE"], ignore_errors=True)

TINY = ["model=mini", "model.hidden=32", "model.layers=1", "model.heads=2", "model.vocabulary=600", "loop.projector=0",
        "loop.batch_size=16"]


class Done(NamedTuple):
    """How a command ended."""

    code: int
    err: str
    out: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str],
            caplog: pytest.LogCaptureFixture) -> Callable[..., Done]:
    """Run ``python -m <name> <arguments>`` here, in an empty folder; the imports are paid once for all tests."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", [f"python -m {name}", *arguments])
        capsys.readouterr()
        caplog.clear()
        caplog.set_level("INFO")
        code = 0
        try:
            code = import_module(f"sentence_forge.{name}" if "." in name else f"sentence_forge.{name}.cli").main() or 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        captured = capsys.readouterr()
        return Done(code, captured.err + caplog.text, captured.out)

    return run


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of public data, ``$SENTENCE_FORGE_DATA``; tests without it are skipped."""
    given = os.environ.get("SENTENCE_FORGE_DATA")
    if not given or not Path(given, "stsb").is_dir():
        pytest.skip("no public data: set SENTENCE_FORGE_DATA")
    return Path(given)


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """The address of a PostgreSQL server with pgvector; without the packages its tests are skipped."""
    from database import server

    with server() as url:
        yield url


@pytest.fixture
def url(database: str, request: pytest.FixtureRequest) -> str:
    """The address of an index of this test's own."""
    return f"{database}#t{sha256(request.node.nodeid.encode()).hexdigest()[:12]}"
