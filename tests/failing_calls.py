"""Kill a whole command at each call that decides what is on the disk, or let the disk fail from there on.

Run under ``LD_PRELOAD`` of the compiled ``failing_calls.c``; ``tried`` does so. The command runs in forks of one
process, so that its imports are paid once. After each fault the same command is typed again (a run goes on by
``resume=``), and what it leaves must be what an undisturbed command leaves, file by file.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from faults import end_at_last, one_thread

HERE = Path(__file__).parent
TINY = ["model=mini", "model.hidden=32", "model.layers=1", "model.heads=2", "model.vocabulary=600", "loop.projector=0",
        "loop.batch_size=16"]
TRAIN = ["loss=cosine", "data=pairs.csv", "suite=pairs.csv", *TINY, "loop.max_steps=2", "loop.checkpoint_every=1",
         "loop.evaluate_every=1", "loop.log_every=1", "loop.learning_rate=1e-3", "hydra.run.dir=whole"]
EXPORT = ["model=run", "corpus=titles.csv", "corpus.id_column=id", "out=whole"]
# what differs between two equal commands: times, and what the command was
_PASSING = re.compile(r"seconds|speed/|command|config|resume|created|_at$|generated")
_OPAQUE = re.compile(r"(^|/)(\.lock|events\.out\..*|environment\.json|config\.yaml|manifest\.json|report\.(html|md))$")
_DEFAULTS = ("max_length", "stride", "truncation_side", "truncation_strategy")


class Tried(NamedTuple):
    """What one fault led to: which call it hit, and what was wrong afterwards (empty: nothing)."""

    call: str
    wrong: str


def compiled(folder: Path) -> Path | None:
    """Compile the shim; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    shim = folder / "failing_calls.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(shim), str(HERE / "failing_calls.c"), "-ldl"],
                   check=True)
    return shim


def tried(what: str, faults: Sequence[tuple[str, float]] | None = None) -> Iterator[Tried]:
    """Try faults in ``train`` or ``export``.

    Args:
        what: the command.
        faults: each is ``kill``, at a call, or ``fail``, every flush from one on; and where, as a share of all calls.
            None is a kill at every call and failures from every fourth flush.
    """
    with tempfile.TemporaryDirectory() as folder:
        shim = compiled(Path(folder))
        assert shim is not None
        done = subprocess.run([sys.executable, str(Path(__file__).resolve()), what, json.dumps(faults)], cwd=folder,
                              check=False, text=True, capture_output=True,
                              env=os.environ | {"LD_PRELOAD": str(shim), "PYTHONPATH": str(HERE.parent),
                                                "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"})
        assert done.returncode == 0, done.stderr[-3000:]
        for line in done.stdout.splitlines():
            yield Tried(*json.loads(line))


# --- in the process under the shim --------------------------------------------------------------------------------


def run_in_fork(command: str, arguments: Sequence[str], *, kill_at: int = 0, fail_at: int = 0,
                journal: Path | None = None) -> tuple[int, str]:
    """Return the exit status (negative: the signal) and what was said on stderr."""
    said = Path("said")
    child = os.fork()
    if not child:
        log = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stderr = os.fdopen(2, "w", buffering=1)
        calls = -1 if journal is None else os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        code = 1
        try:
            end_at_last()
            ctypes.CDLL(None).arm(b"whole", kill_at, fail_at, calls)
            sys.argv = [command, *arguments]
            import_module(f"sentence_forge.{command}.cli").main()
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, said.read_text(errors="replace")


def again(command: str, arguments: Sequence[str]) -> tuple[int, str]:
    """Type the same command again; a run that has begun goes on."""
    if command == "train" and Path("whole", "config.yaml").exists():
        return run_in_fork(command, ["resume=whole"])
    return run_in_fork(command, arguments)


def end_of(folder: Path) -> dict[str, object]:
    """Return what a command has left, file by file, without what differs between any two runs."""
    found: dict[str, object] = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_dir():
            continue
        if _OPAQUE.search(name):
            found[re.sub(r"events\.out\..*", "events", name)] = None
        elif name.endswith((".json", ".jsonl")):
            lines = file.read_text().splitlines() if name.endswith("l") else [file.read_text()]
            found[name] = [_lasting(json.loads(line)) for line in lines]
            if name.endswith("tokenizer_config.json"):  # a tokenizer that was loaded spells out its defaults
                found[name] = {key: value for key, value in found[name][0].items() if key not in _DEFAULTS}
        else:
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    found.pop(".lock", None)
    return found


def _lasting(value: object) -> object:
    if isinstance(value, dict):
        return {key: _lasting(below) for key, below in value.items() if not _PASSING.search(key)}
    return [_lasting(each) for each in value] if isinstance(value, list) else value


def differences(one: dict[str, object], other: dict[str, object]) -> str:
    return ", ".join(name for name in sorted({*one, *other}) if one.get(name, "-") != other.get(name, "-"))


def try_all(what: str, faults: Sequence[tuple[str, float]] | None) -> Iterator[Tried]:
    arguments = {"train": TRAIN, "export": EXPORT}[what]
    rows = [f"a storm {n % 7} hits town {n},markets fall {n % 5} points,{n % 6}" for n in range(48)]
    Path("pairs.csv").write_text("sentence1,sentence2,score\n" + "\n".join(rows) + "\n")
    Path("titles.csv").write_text("id,title\n" + "".join(f"{n},storm {n} hits town {n % 9}\n" for n in range(60)))
    if what == "export":
        status, said = run_in_fork("train", [*TRAIN[:-1], "hydra.run.dir=run"])
        assert status == 0, said
    journal = Path("journal")
    status, said = run_in_fork(what, arguments, journal=journal)
    assert status == 0, said
    calls = [re.sub(r"-\d{3,}", "-PID", line.partition(" ")[2]) for line in journal.read_text().splitlines()]
    expected = end_of(Path("whole"))
    numbers = {"kill": list(range(1, len(calls) + 1)),
               "fail": list(range(1, 1 + sum(call.startswith("f") for call in calls)))}
    chosen = [("kill", n) for n in numbers["kill"]] + [("fail", n) for n in numbers["fail"][::4]]
    if faults is not None:
        chosen = [(how, numbers[how][round(share * (len(numbers[how]) - 1))]) for how, share in faults]
    for how, number in chosen:
        shutil.rmtree("whole", ignore_errors=True)
        yield Tried(f"{how} {number}" + (f": {calls[number - 1]}" if how == "kill" else ""),
                    try_one(what, arguments, how, number, expected))


def try_one(what: str, arguments: Sequence[str], how: str, number: int, expected: dict[str, object]) -> str:
    """Return what was wrong after one fault; nothing, if all was right."""
    status, said = run_in_fork(what, arguments, **{f"{how}_at": number})
    if "Traceback" in said:
        return f"traceback: {said[-1500:]}"
    if how == "kill" and status != -9:
        return f"ended by {status}"
    if how == "fail" and not (status == 2 and "\nerror: " in f"\n{said}"):
        return f"a failed flush, and yet it ended by {status}: {said[-500:]}"
    status, said = again(what, arguments)
    if status == 2 and "holds a finished export" in said:  # the fault hit after all was done
        status = 0
    if status or "Traceback" in said:
        return f"the same again ended by {status}: {said[-1500:]}"
    differing = differences(expected, end_of(Path("whole")))
    return f"the same again differs in {differing}" if differing else ""


def main() -> None:
    what, faults = sys.argv[1], json.loads(sys.argv[2])
    sys.path[:0] = [str(HERE)]

    for name in ("train.cli", "train.run", "export.cli", "export.run"):  # imports are paid once, before the forks
        import_module(f"sentence_forge.{name}")
    if faults is not None:  # a sample is to be fast: as without the extra for ONNX, whose export takes seconds
        sys.modules["onnxscript"] = None  # type: ignore[assignment]
    one_thread()
    for each in try_all(what, faults):
        sys.stdout.write(json.dumps(each) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
