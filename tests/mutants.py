"""``make mutants``: is each small wrong change of ``mutations.py`` noticed by some test?

The tests run in forks of processes that have imported the libraries once, on copies of the checkout, so that the
checkout itself is never wrong. Prints a line for each mutant, the survivors and the score; exit code 1 below 95 %.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parent.parent
ENOUGH = 0.95
_LONGEST = 600  # seconds; a mutant that never ends is noticed, too


def run_tests(copy: Path, names: str) -> int:
    """Run test files on a copy in a fork; return pytest's exit code (0: all passed, 1: some failed, -9: endless)."""
    child = os.fork()
    if not child:
        import pytest

        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nowhere, number)
        os.chdir(copy)
        sys.path[:] = [str(copy), *(entry for entry in sys.path if Path(entry or ".").resolve() not in
                                    (ROOT, ROOT / "tests"))]
        os.environ["PYTHONPATH"] = str(copy)
        os._exit(int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *(f"tests/test_{name}.py"
                                                                         for name in names.split())])))
    return _ended(child)


def _ended(child: int) -> int:
    begun = time.monotonic()
    while time.monotonic() - begun < _LONGEST:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, 9)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def apply(copy: Path, mutation: Mutation) -> Callable[[], None]:
    """Make a copy wrong, and return what makes it right again."""
    file = copy / mutation.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutation.right) != 1:
        raise SystemExit(f"error: {mutation.file}: holds {mutation.right!r} {text.count(mutation.right)} times, not "
                         "once; bring tests/mutations.py up to date")
    file.write_text(text.replace(mutation.right, mutation.wrong), encoding="utf-8")
    return lambda: file.write_text(text, encoding="utf-8") and None


def copied(folder: Path) -> Path:
    left_out = shutil.ignore_patterns(".git", ".venv", "outputs", "build", "dist", ".*_cache", "__pycache__")
    shutil.copytree(ROOT, folder, symlinks=True, ignore=left_out)
    return folder


def import_libraries() -> None:
    """Pay for the imports that every fork needs; nothing of ours is among them."""
    for name in ("torch", "sentence_transformers", "transformers", "datasets", "hydra", "scipy.stats", "pandas",
                 "faiss", "hypothesis", "pyarrow.parquet", "torch.utils.tensorboard", "onnxruntime", "pytest"):
        __import__(name)
    import torch

    torch.set_num_threads(1)  # OpenMP's threads don't survive a fork


def main() -> int:
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--only", default="", help="mutants whose file holds this")
    parse.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parse.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1",
                      PYTHONDONTWRITEBYTECODE="1")
    sys.dont_write_bytecode = True
    chosen = [each for each in MUTATIONS if given.only in each.file]
    import_libraries()
    survivors = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.jobs) as threads:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(given.jobs):
            copies.put(copied(Path(folder, str(number))))
        first = copies.get()
        for each in chosen:
            apply(first, each)()
        names = sorted({name for each in chosen for name in each.tests.split()})
        copies.put(first)

        def on_a_copy(work: Callable[[Path], int]) -> int:
            copy = copies.get()
            try:
                return work(copy)
            finally:
                copies.put(copy)

        def mutated(each: Mutation) -> int:
            def work(copy: Path) -> int:
                restore = apply(copy, each)
                try:
                    return run_tests(copy, each.tests)
                finally:
                    restore()
            return on_a_copy(work)

        for name, code in zip(names, threads.map(lambda name: on_a_copy(lambda copy: run_tests(copy, name)), names),
                              strict=True):
            if code:
                raise SystemExit(f"error: tests/test_{name}.py fails without any change (pytest's exit code {code})")
        sys.stdout.write(f"{len(chosen)} mutants; {len(names)} test files pass on the code as it is\n")
        for each, code in zip(chosen, threads.map(mutated, chosen), strict=True):
            noticed = code not in (0, 2, 3, 4, 5)
            sys.stdout.write(f"{'noticed ' if noticed else 'SURVIVED'} {each.file}: {each.right.strip()[:60]!r} -> "
                             f"{each.wrong.strip()[:60]!r}\n")
            sys.stdout.flush()
            if not noticed:
                survivors.append(each)
    share = 1 - len(survivors) / len(chosen)
    sys.stdout.write(f"{len(chosen) - len(survivors)} of {len(chosen)} noticed, {share:.1%}\n")
    return int(share < ENOUGH)


if __name__ == "__main__":
    sys.exit(main())
