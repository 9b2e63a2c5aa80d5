"""``make mutants``: is each small wrong change of ``mutations.py`` noticed by some test?

The tests run on copies of the checkout, so that the checkout itself is never wrong. Prints a line for each mutant, the
survivors and the score; exit code 1 below 95 %.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parent.parent
ENOUGH = 0.95
_LONGEST = 600  # seconds, and ten times what its tests take on the right code: a mutant that never ends is noticed


class Job(NamedTuple):
    """Test files to run, perhaps with a mutation, and the seconds after which they are stopped."""

    tests: str
    mutation: Mutation | None = None
    longest: float = 6 * _LONGEST


def start(copy: Path, tests: str) -> subprocess.Popen[bytes]:
    """Start test files on a copy."""
    return subprocess.Popen([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
                             *(f"tests/test_{name}.py" for name in tests.split())], cwd=copy, start_new_session=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            env=os.environ | {"PYTHONPATH": str(copy)})


def run_all(jobs: Sequence[Job], copies: Sequence[Path]) -> Iterator[tuple[Job, int, float]]:
    """Run jobs side by side, one a copy; yield each with pytest's exit code (-9: it did not end) and its seconds."""
    waiting, free = list(reversed(jobs)), list(copies)
    running: dict[subprocess.Popen[bytes], tuple[Job, Path, Callable[[], None], float]] = {}
    while waiting or running:
        while waiting and free:
            job, copy = waiting.pop(), free.pop()
            restore = apply(copy, job.mutation) if job.mutation else lambda: None
            running[start(copy, job.tests)] = job, copy, restore, time.monotonic()
        time.sleep(0.05)
        for child, (job, copy, restore, begun) in list(running.items()):
            seconds = time.monotonic() - begun
            if seconds > job.longest:
                os.killpg(child.pid, signal.SIGKILL)
            if (code := child.poll()) is not None:
                del running[child]
                restore()
                free.append(copy)
                yield job, code, seconds


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


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--only", default="", help="mutants whose file holds this")
    parse.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parse.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1",
                      PYTHONDONTWRITEBYTECODE="1")
    chosen = [each for each in MUTATIONS if given.only in each.file]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        copies = [copied(Path(folder, str(number))) for number in range(given.jobs)]
        for each in chosen:
            apply(copies[0], each)()
        names = sorted({name for each in chosen for name in each.tests.split()})
        took = {}
        for job, code, seconds in run_all([Job(name) for name in names], copies):
            took[job.tests] = seconds
            if code:
                raise SystemExit(f"error: tests/test_{job.tests}.py fails without any change (exit code {code})")
        say(f"{len(chosen)} mutants; {len(names)} test files pass on the code as it is")
        jobs = [Job(each.tests, each, max(_LONGEST, 10 * sum(took[name] for name in each.tests.split())))
                for each in chosen]
        for job, code, seconds in run_all(jobs, copies):
            mutation, noticed = job.mutation, code in (1, -9)
            assert mutation is not None
            say(f"{'noticed ' if noticed else 'SURVIVED'} {seconds:4.0f} s  {mutation.file}: "
                f"{mutation.right.strip()[:60]!r} -> {mutation.wrong.strip()[:60]!r}{'' if noticed else f' ({code})'}")
            if not noticed:
                survivors.append(mutation)
    share = 1 - len(survivors) / len(chosen)
    say(f"{len(chosen) - len(survivors)} of {len(chosen)} noticed, {share:.1%}")
    return int(share < ENOUGH)


if __name__ == "__main__":
    sys.exit(main())
