"""``make demo`` on a machine where something is missing: one line that says what."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def install(tmp_path: Path, *, pip: str = "25.0", says: str = "", code: int = 1, **environment: str) -> tuple[int, str]:
    """Run the installation in an environment whose Python answers for pip as given."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    answers = f'*--version) echo "pip {pip} from x";; *) echo "{says}"; exit {code};;'
    python.write_text(f'#!/bin/sh\ncase "$*" in {answers} esac\n')
    python.chmod(0o755)
    done = subprocess.run(["sh", ".ci/install", "dev"], cwd=ROOT, capture_output=True, text=True, check=False,
                          env=os.environ | {"VENV": str(tmp_path / "venv"), "PYTHON": sys.executable} | environment)
    return done.returncode, done.stderr


@pytest.mark.parametrize(("given", "said"), [
    ({"says": "WARNING: Retrying: NewConnectionError(...)\nERROR: No matching distribution found for torch"},
     "the package index can't be reached"),
    ({"says": "ERROR: No matching distribution found for torch==2.13.0"}, "or lacks a version"),
    ({"says": "ERROR: Could not build wheels for x"}, "could not install torch: ERROR: Could not build wheels for x"),
    ({"says": ""}, "no reason given"),
    ({"pip": "20.3.4"}, "pip 20.3.4 is too old, 22.3 is needed"), ({"pip": "9.0.1"}, "is too old"),
    ({"pip": ""}, "has no pip"), ({"PYTHON": "/bin/false"}, "is no Python 3.11 or newer"),
])
def test_what_keeps_it_from_installing_is_one_line(tmp_path: Path, given: dict[str, str], said: str) -> None:
    code, err = install(tmp_path, **given)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and said in err, err


def test_an_installation_says_where_pip_s_words_are(tmp_path: Path) -> None:
    assert install(tmp_path, says="Collecting torch", code=0) == (0, "")
    assert "Collecting torch" in (tmp_path / "venv" / "install.log").read_text()
