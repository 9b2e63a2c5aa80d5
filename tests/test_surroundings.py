"""What surrounds a command: closed streams, encodings, signals, limits; and how it prints texts from outside."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pty
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from conftest import TINY, Done
from corpora import build
from faults import end_at_last, forked

from sentence_forge.runtime import process
from sentence_forge.runtime.disk import naming_a_full_disk, shortage
from sentence_forge.runtime.errors import UserError, printable
from sentence_forge.train import checkpoint

ROOT = Path(__file__).parent.parent
Command = Callable[..., Done]
ASCII = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


def typed(cwd: Path, line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line in a shell; ``forge`` is this Python's ``-m``."""
    return subprocess.run(["bash", "-c", f'forge() {{ "{sys.executable}" -m "$@"; }}; {line}'], cwd=cwd, check=False,
                          capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment)


def files(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir())


# --- texts --------------------------------------------------------------------------------------------------------


def test_nothing_that_is_printed_commands_a_terminal() -> None:
    every = "".join(map(chr, range(0x11000)))
    shown = printable(every)
    for character in [*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), *"\u202a\u202e\u2066\u2069\u2028\ud800"]:
        assert (character in shown) == (character in "\t\n"), repr(character)
    assert set("京津冀é𐀀") <= set(shown) and printable("\x9b31m\u202etxt.exe") == r"\x9b31m\u202etxt.exe"
    shown.encode()  # no half of a surrogate is left, which couldn't be written


def test_error_and_log_lines_obey_no_escapes(command: Command, tmp_path: Path) -> None:
    evil = "a\x1b]0;pwned\x07\x1b[31m\u202eb"
    (tmp_path / f"{evil}.csv").write_text(f"premise,hypothesis,label\na,b,{evil}\n")
    done = command("train", "loss=softmax", f"data={evil}.csv", *TINY)
    line = next(line for line in done.err.split("\n") if line.startswith("error:"))
    assert done.code == 2 and r"a\x1b]0;pwned\x07\x1b[31m\u202eb" in line and "\x1b" not in line, line
    record = logging.makeLogRecord({"msg": "read %s", "args": (evil,)})
    assert process._Printable("%(message)s").format(record) == f"read {printable(evil)}"
    assert str(UserError(f"{evil}\nerror: more")).count("\n") == 0


# --- streams and encodings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "<&- >&- 2>&-", "2>&-"])
def test_closed_streams_are_no_traceback(tmp_path: Path, closed: str) -> None:
    (tmp_path / "x.csv").write_text("title\na\n")
    done = typed(tmp_path, f"forge search nowhere storm {closed}; echo $? >code; forge train loss=mnrl data=x.csv "
                           f"loop.epochs=0 {closed}; echo $? >>code; forge eval --help {closed}; echo $? >>code")
    assert (tmp_path / "code").read_text().split() == ["2", "2", "0"], done.stderr
    assert b"Traceback" not in done.stderr and files(tmp_path) == ["code", "x.csv"], done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    for line in ("forge train --help", "forge train --cfg job", "forge eval --info defaults", "forge search --help"):
        done = typed(tmp_path, f"{line} >/dev/full")
        assert done.returncode == 2 and done.stderr.count(b"\n") == 1, done.stderr
        assert done.stderr.startswith(b"error: ") and b"No space left" in done.stderr, done.stderr


def test_an_evaluation_refuses_a_seed_and_an_output_that_can_not_be(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for given, said in (("seed=-1", "seed: is -1"), ("output=file", "file: can't be made a folder")):
        done = command("eval", "model=minilm", given)
        assert done.code == 2 and f"error: {said}" in done.err and "Traceback" not in done.err, done.err


def test_an_answer_that_nobody_can_read_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "news" / "index", ["storm hits", "opera opens"])
    for line in ("search news --pairs", "train --cfg job"):
        done = typed(tmp_path, f"forge {line} >&-")
        assert done.returncode == 2 and done.stderr.startswith(b"error: standard output is closed"), done.stderr
        assert done.stderr.count(b"\n") == 1


def test_a_file_never_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    def work(acknowledge: Callable[[object], None]) -> None:
        for number in (0, 1, 2):
            os.close(number)
        sys.stdin = sys.stdout = sys.stderr = None  # as Python starts with closed streams
        process.open_closed_streams()
        with (tmp_path / "data").open("w") as file:
            assert file.fileno() > 2
            sys.stdout.write("lost\n")
            sys.stdout.flush()
        assert sys.stdin.read() == ""
        acknowledge("done")

    assert forked(work).acknowledged == ["done"] and (tmp_path / "data").read_text() == ""


def test_chinese_words_and_files_where_the_locale_says_ascii(tmp_path: Path) -> None:
    (tmp_path / "标题.csv").write_text("日期\n京津冀\n", encoding="utf-8")
    done = typed(tmp_path, "forge search 新闻 京津冀", **ASCII)
    assert done.returncode == 2 and "error: 新闻" in done.stderr.decode() and b"Traceback" not in done.stderr
    done = typed(tmp_path, "forge train loss=cosine data=标题.csv hydra.run.dir=运行", **ASCII)
    assert done.returncode == 2 and "标题.csv" in done.stderr.decode() and "日期" in done.stderr.decode(), done.stderr
    assert b"Traceback" not in done.stderr and files(tmp_path) == ["标题.csv"]


def test_a_terminal_that_knows_fewer_letters(tmp_path: Path) -> None:
    done = typed(tmp_path, "forge search 新闻 京津冀", PYTHONIOENCODING="latin-1")
    assert done.returncode == 2 and rb"error: \u65b0\u95fb" in done.stderr, done.stderr


# --- what runs out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "said"), [
    (MemoryError(), "too little memory"), (OSError(errno.ENOMEM, "Cannot allocate memory"), "too little memory"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "too little memory"),
    (ImportError("libtorch.so: failed to map segment from shared object"), "too little memory"),
    (OSError(errno.EMFILE, "Too many open files", "x"), "too many open files"),
    (OSError(errno.ENAMETOOLONG, "File name too long", "xxx"), "xxx: File name too long; give a shorter name"),
    (OSError(errno.EIO, "Input/output error"), "the disk reports an error"),
    (PermissionError(errno.EACCES, "Permission denied", "/run/x"), "/run/x: Permission denied"),
    (OSError(errno.EROFS, "Read-only file system", "/r"), "/r: Read-only"),
    (OSError(errno.EDQUOT, "Disk quota exceeded", "/home/x"), "quota is used up"),
    (OSError(errno.EFBIG, "File too large"), "ulimit -f"), (OSError(errno.ENOSPC, "No space"), "no room left"),
    (RuntimeError("a bug of ours"), None), (KeyError("x"), None), (ImportError("no module named x"), None),
    (FileNotFoundError(errno.ENOENT, "No such file", "x"), None),
])
def test_a_shortage_is_a_line_and_a_bug_is_none(error: Exception, said: str | None) -> None:
    line = shortage(error)
    assert (line is None) == (said is None) and (said or "") in (line or "")
    if said is not None:
        deeper = ValueError("while saving")
        deeper.__cause__ = error
        assert said in (shortage(deeper) or "")

    def work() -> None:
        raise error

    if said is None:
        with pytest.raises(type(error)):
            process.run_command(work)
    else:
        assert process.run_command(work) == 2


def test_no_inodes_is_said_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.statvfs_result((4096, 4096, 9999, 9999, 9999, 100, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: full)  # the system's answer for a file system without inodes
    with pytest.raises(UserError, match=r"no inodes left: .* remove some"), naming_a_full_disk(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_too_little_memory_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("sentence1,sentence2,score\n" + "a,b,1\nc,d,2\n" * 9)
    done = typed(tmp_path, "ulimit -v 500000; forge train loss=cosine data=p.csv model=mini")
    assert done.returncode == 2 and b"error: too little memory" in done.stderr, done.stderr[-500:]
    assert b"Traceback" not in done.stderr and files(tmp_path) == ["p.csv"]


def test_few_files_may_be_open(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentence_forge.runtime.process.allow_open_files", lambda: None)  # the system's own limit
    import_module("sentence_forge.train.cli")  # before there are too few to read it
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        done = command("train", "loss=cosine", *TINY, "loop.max_steps=1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for number in held:
            os.close(number)
    assert done.code == 2 and "too many open files" in done.err and "Traceback" not in done.err, done.err


# --- signals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_while_loading_cleans_up(tmp_path: Path, number: int, code: int) -> None:
    def work(acknowledge: Callable[[object], None]) -> None:
        from sentence_forge.runtime.locks import writer_lock

        def job() -> None:
            with writer_lock(tmp_path / "run"):
                acknowledge("loading")
                os.kill(os.getpid(), number)
                time.sleep(9)

        acknowledge(process.run_command(job))

    assert forked(work).acknowledged == ["loading", str(code)] and not (tmp_path / "run").exists()


def test_a_signal_that_nohup_ignores_stays_ignored_and_handlers_come_back() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert process.run_command(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
        assert process.run_command(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 143
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == before[signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_closed_terminal_leaves_a_checkpoint(tmp_path: Path) -> None:
    """The window is closed: SIGHUP, and from then on every write to the terminal fails."""
    child, terminal = pty.fork()
    if not child:
        end_at_last()
        os.chdir(tmp_path)
        os.environ["PYTHONPATH"] = str(ROOT)
        os.environ.pop("TQDM_DISABLE")
        os.execv(sys.executable, [sys.executable, "-m", "train", "loss=cosine", *TINY, "loop.max_steps=99999",
                                  "loop.evaluate_every=99999", "loop.log_every=1", "hydra.run.dir=run"])
    metrics = tmp_path / "run" / "metrics.jsonl"
    os.set_blocking(terminal, False)
    while not metrics.exists() or len(metrics.read_bytes().splitlines()) < 9:
        time.sleep(0.02)
        with contextlib.suppress(BlockingIOError):
            os.read(terminal, 9999)
        assert os.waitpid(child, os.WNOHANG)[0] == 0
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 129
    assert len(checkpoint.steps(tmp_path / "run")) == 1
    checkpoint.newest_good(tmp_path / "run")
