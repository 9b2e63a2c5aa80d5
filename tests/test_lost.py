"""When one of several processes dies, hangs or makes a mistake, the others end soon, and one line says why."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from by_torchrun import ENVIRONMENT, ROOT, TRAIN, torchrun
from resuming import same_end

from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.process import stop
from sentence_forge.runtime.torchrun import check_restarts, first_to_say, said_why, starts_again
from sentence_forge.train.distributed import ALONE
from sentence_forge.train.lost import LIMIT, watched
from sentence_forge.train.starting import leaving_at_once, raise_at_signals


def test_a_killed_process_ends_the_others_and_its_run_goes_on_to_the_same_end(tmp_path: Path) -> None:
    """Bit for bit: by the command that the others name, or by a second start, which finds the run by itself."""
    more = ["loss._target_=mortal.Mortal", "plugins=[mortal]", "loop.max_steps=4", "loop.evaluate_every=4",
            "loop.checkpoint_every=2", "loop.keep=9"]
    done = torchrun(*TRAIN, *more, cwd=tmp_path)
    assert done.returncode == 0, done.said  # type: ignore[attr-defined]
    for restarts in (0, 1):
        folder = tmp_path / f"broken {restarts}"
        timed = [f"hydra.run.dir='{folder.name}/${{now:%H%M%S}}'"]
        done = torchrun(*TRAIN, *more, *timed, cwd=tmp_path, restarts=restarts, DIES=str(folder))
        said = done.said  # type: ignore[attr-defined]
        [broken] = folder.iterdir()
        assert said.count("error: ") == 1, said
        assert "error: another process of this run is lost, so this one can't go on; " in said
        assert "Traceback" not in said.partition("torch/distributed")[0] and "gloo" not in said, said
        if restarts:
            assert done.returncode == 0 and "torchrun starts all of them again, from its last checkpoint" in said, said
        else:
            command = re.search("go on from there with: torchrun --nproc-per-node 2 (.*)", said)
            assert done.returncode != 0 and command, said
            done = torchrun(*shlex.split(command[1]), "plugins=[mortal]", cwd=tmp_path)  # whose code is trusted anew
            said = done.said  # type: ignore[attr-defined]
            assert done.returncode == 0, said
        assert f"going on from {broken / 'checkpoints' / 'step-2'}" in said
        same_end(tmp_path / "run", broken, 4)


def two_by_hand(cwd: Path, *arguments: str, ranks: tuple[str, ...] = ("0", "1")) -> list[subprocess.Popen[str]]:
    """Start ``stopped_case`` twice without torchrun, which would end the one when it sees the other's end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return [subprocess.Popen([sys.executable, str(ROOT / "tests" / "stopped_case.py"), *arguments], cwd=cwd, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                             env=os.environ | ENVIRONMENT | {"RANK": rank, "WORLD_SIZE": "2", "MASTER_PORT": port,
                                                             "MASTER_ADDR": "127.0.0.1"}) for rank in ranks]


def read_to(line: str, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert f"{line}\n" in iter(process.stdout.readline, "")


@pytest.mark.parametrize("hangs", [0, 1])
@pytest.mark.parametrize("when", ["early", "late"])
def test_a_process_that_hangs_ends_the_others(when: str, hangs: int, tmp_path: Path) -> None:
    """As one does whose machine is gone; nothing breaks off, so that torch would wait for half an hour.

    The first one holds the store that all count in. The limit is 5 s here, and the promise is a minute.
    """
    assert LIMIT < 60
    both = two_by_hand(tmp_path, when, "5", str(hangs))
    lost, other = both[hangs], both[1 - hangs]
    try:
        read_to("stopping", lost)
        begun = time.monotonic()
        _, said = other.communicate(timeout=200)
        assert time.monotonic() - begun < 0.6 * LIMIT
        assert other.returncode == 2 and lost.poll() is None
        who = "process 1" if hangs else "another process"  # that no count is heard is all that there is
        assert said.splitlines()[-1].startswith(f"error: {who} of this run is lost"), said
        assert "nothing was trained yet: type the same command again" in said and "whole" not in said
        assert "Traceback" not in said and said.count("error: ") == 1
    finally:
        for each in both:
            each.kill()
            each.communicate()


def test_a_signal_is_heard_while_the_others_are_waited_for(tmp_path: Path) -> None:
    """Torch's own waiting would take no notice of it, and torchrun kills half a minute later, without a word."""
    both = two_by_hand(tmp_path, "early", "60", "1")
    try:
        read_to("stopping", both[1])
        time.sleep(1)  # until it waits
        both[0].terminate()
        _, said = both[0].communicate(timeout=20)
        assert both[0].returncode == 2
        assert said.startswith("error: SIGTERM ended this process, as torchrun does") and said.count("\n") == 1
    finally:
        for each in both:
            each.kill()
            each.communicate()


def test_a_signal_is_heard_while_the_first_one_has_not_begun(tmp_path: Path) -> None:
    only = two_by_hand(tmp_path, "early", "60", "1", ranks=("1",))[0]
    try:
        read_to("begun", only)
        time.sleep(1)  # until it looks for the store
        only.terminate()
        _, said = only.communicate(timeout=20)
        assert only.returncode == 143 and "Traceback" not in said
    finally:
        only.kill()
        only.communicate()


def test_a_process_killed_while_it_reads_ends_the_others_with_a_line(tmp_path: Path) -> None:
    died = tmp_path / "died"
    done = torchrun(*TRAIN, "plugins=[mortal]", "data._target_=mortal.MortalRows", cwd=tmp_path, processes=3,
                    DIED=str(died))
    assert time.time() - float(died.read_text()) < 60
    said = done.said  # type: ignore[attr-defined]
    assert done.returncode != 0 and said.count("error: ") == 1, said
    assert "error: SIGTERM ended this process, as torchrun does when another one dies" in said
    assert "nothing was trained yet: type the same command again" in said
    assert "Signal 9 (SIGKILL)" in said


@pytest.mark.parametrize("waited_for", [False, True])
def test_a_process_killed_while_python_starts_ends_the_others_with_a_line(waited_for: bool, tmp_path: Path) -> None:
    """While they import torch, which would swallow an exception that a signal's handler raises, or wait for it."""
    process = torchrun(*TRAIN, cwd=tmp_path, processes=3, wait=False)

    def wait_for(file: Path) -> None:
        deadline = time.monotonic() + 60
        while not file.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)

    try:
        wait_for(tmp_path / "run")  # the first process begins to import
        dies = children(process.pid)["1"]
        if waited_for:
            os.kill(dies, signal.SIGSTOP)
            wait_for(tmp_path / "run" / ".lock")  # the first one has imported
            time.sleep(1)
        begun = time.monotonic()
        os.kill(dies, signal.SIGKILL)
        said, _ = process.communicate(timeout=100)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert time.monotonic() - begun < 20  # torchrun kills after 30 what hasn't ended
    assert said.count("error: ") == 1 and "nothing was trained yet: type the same command again" in said, said


def children(parent: int) -> dict[str, int]:
    """Return the processes that another one has started, by their ``RANK``."""
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    environments = {int(each): Path(f"/proc/{each}/environ").read_bytes().decode().split("\0") for each in found}
    return {name.partition("=")[2]: process for process, names in environments.items()
            for name in names if name.startswith("RANK=")}


def test_a_mistake_of_one_process_is_one_line(tmp_path: Path) -> None:
    """The others are ended by torchrun, and have nothing to add."""
    done = torchrun(*TRAIN, "plugins=[mortal]", "data._target_=mortal.MortalRows", cwd=tmp_path, processes=3,
                    MISTAKE="rows.csv: no such file")
    said = done.said  # type: ignore[attr-defined]
    assert done.returncode != 0 and said.count("error: ") == 1 and "error: rows.csv: no such file" in said, said


def test_restarts_are_for_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each machine's torchrun counts its own, so that after one the processes would wait for each other in vain."""
    for name, value in (("TORCHELASTIC_MAX_RESTARTS", "3"), ("TORCHELASTIC_RESTART_COUNT", "3")):
        monkeypatch.setenv(name, value)
    assert not starts_again()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert starts_again()
    check_restarts()
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    with pytest.raises(UserError, match="torchrun --max-restarts=3: is for one machine"):
        check_restarts()
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "0")
    check_restarts()


def test_a_line_is_said_by_one_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And again by the same one, as by two commands of a script that torchrun starts."""
    (tmp_path / "0").mkdir()
    assert first_to_say("a") and first_to_say("a") and not said_why()  # without torchrun
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "0" / "error.json"))
    said = []
    for rank in "0101":
        monkeypatch.setenv("RANK", rank)
        said.append(first_to_say("a"))
    assert said == [True, False, True, False] and said_why() and first_to_say("b")


def test_signal_handlers_of_a_caller_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those of a script that torchrun starts, and Ctrl-C where it is ignored."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    before = signal.getsignal(signal.SIGTERM), signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with watched(ALONE, tmp_path):
            assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == (before[0], signal.SIG_IGN)
        with leaving_at_once():
            assert signal.getsignal(signal.SIGTERM) != before[0] and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            raise_at_signals()
            assert signal.getsignal(signal.SIGTERM) == stop and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def test_ctrl_c_while_python_starts_ends_all_at_once(tmp_path: Path) -> None:
    process = torchrun(*TRAIN, cwd=tmp_path, wait=False)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.5)  # in the middle of importing torch
        begun = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=100)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert time.monotonic() - begun < 20 and process.returncode
    assert "Error executing job" not in said and "error: " not in said, said
