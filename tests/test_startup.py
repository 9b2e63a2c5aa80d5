"""What starts fast must go on starting fast: CPU seconds, bounded with room for a slow machine."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY

from bench.startup import FIRST_STEP

REPOSITORY = Path(__file__).parent.parent
_COMMAND = """
import sys
from sentence_forge.train import cli
try:
    cli.main()
finally:
    slow = {"torch", "transformers", "sentence_transformers", "datasets", "pyarrow", "pandas", "scipy", "matplotlib",
            "sklearn", "tokenizers"} & set(sys.modules)
    assert not slow, slow
"""


def run(code: str, *arguments: str, cwd: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run ``code`` as a command, and return how it ended and the CPU seconds it took."""
    def used() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    before = used()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=cwd, env=environment, capture_output=True,
                          text=True, check=False)
    return done, used() - before


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (["--help"], 0, "python -m train loss=mnrl"),
    (["los=mnrl"], 2, "did you mean 'loss'"),
    (["loop.batchsize=3"], 2, "did you mean 'loop.batch_size'"),
    (["loop.batch_size=0"], 2, "it must be above 0"),
    (["loss=mnrl", "loop.batch_size=1"], 2, "loop.batch_size: is 1, and this loss takes its negatives from the batch"),
    (["data=mix", "data.sources={a: sample, b: titles.csv}", "loop.batch_size=1"], 2, "takes its negatives from"),
    (["loop.epochs=many"], 2, "loop.epochs"),
    (["loss=mrnl"], 2, "did you mean 'mnrl'"),
    (["model=./nowhere"], 2, "no such folder"),
    (["data=nowhere.csv"], 2, "no such file"),
    (["data=numbers.csv"], 2, "make no known shape"),
    (["loss=triplet", "data=titles.csv"], 2, "which is for loss="),
    (["resume=nowhere"], 2, "is no run"),
])
def test_help_and_config_errors_import_nothing_heavy(arguments: list[str], code: int, said: str,
                                                     tmp_path: Path) -> None:
    (tmp_path / "numbers.csv").write_text("a,b\n1,2\n")
    (tmp_path / "titles.csv").write_text("title\none\ntwo\n")
    done, seconds = run(_COMMAND, *arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in (done.stdout if code == 0 else done.stderr)
    assert "Traceback" not in done.stderr
    # a third of this on an idle machine, where a second is promised; an import of torch takes five
    assert seconds < 2.5 and (seconds < 1 or code), seconds


def test_the_first_step_comes_soon_after_the_imports(tmp_path: Path) -> None:
    for model in (["model=minilm"], TINY):
        done, _ = run(FIRST_STEP, *model, "loss=mnrl", "hydra.run.dir=run", cwd=tmp_path)
        if done.returncode == 0:  # MiniLM's weights are an extra
            break
    assert done.returncode == 0, done.stderr
    line = done.stdout.strip().splitlines()[-1]
    assert float(line.split()[5]) < 12, line  # a third of this on an idle machine, where five are promised
    assert line.endswith("epochs cut [0]"), line  # not twice
    assert '"step": 0' in (tmp_path / "run" / "metrics.jsonl").read_text()  # step 0 was measured before it
    assert (tmp_path / "run" / "untouched" / "modules.json").exists()
