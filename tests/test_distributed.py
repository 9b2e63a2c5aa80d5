"""Two processes train what one would: losses, gradients, whole commands, and a resume on another number."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from by_torchrun import ENVIRONMENT, ROOT, TRAIN, torchrun
from distributed_cases import CASES, a_case, step
from resuming import cut_at, same_end

from sentence_forge.runtime.errors import UserError
from sentence_forge.train.distributed import ALONE, World, join, own_gpu
from sentence_forge.train.meeting import meet


def computed_by(processes: int, folder: Path) -> list[dict[str, Any]]:
    """Return what each process of ``torchrun_case`` found."""
    done = torchrun(str(ROOT / "tests" / "torchrun_case.py"), str(folder), cwd=folder, processes=processes)
    assert done.returncode == 0, done.said  # type: ignore[attr-defined]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(processes)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return computed_by(2, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return computed_by(3, tmp_path_factory.mktemp("three"))


@pytest.mark.parametrize("name", CASES)
def test_several_processes_compute_what_one_does(name: str, two: list[dict[str, Any]],
                                                 three: list[dict[str, Any]]) -> None:
    """Losses, and the gradients of model and heads, also where a head has none, and where processes have no row."""
    case = a_case(name)
    loss, gradients = step(case, ALONE)
    whole = torch.cat([gradient.flatten() for gradient in gradients.values()]).norm()
    assert whole > 0
    for found_loss, found in (each[name] for each in (*two, *three)):
        torch.testing.assert_close(found_loss, loss, rtol=1e-5, atol=1e-7)
        assert found.keys() == gradients.keys()
        for key, gradient in gradients.items():
            assert (found[key] - gradient).norm() <= 1e-5 * whole, key
    for several in (two, three):
        assert all(several[0][name][1][key].equal(other[name][1][key]) for other in several for key in gradients)


def test_heads_never_drift_apart(two: list[dict[str, Any]]) -> None:
    """They begin as the first process's, and get one gradient, though each computes another."""
    (one, head), (other, other_head) = (each["own head"] for each in two)
    assert all(head[key].equal(other_head[key]) for key in head)
    assert any(key.startswith("losses.") for key in one)
    assert all(one[key].equal(other[key]) for key in one)


def test_each_process_scores_its_own_rows_only(two: list[dict[str, Any]]) -> None:
    """Of 7 rows 4 and 3, against 14 candidates, and 7 anchors in the other direction."""
    assert [each["scores"] for each in two] == [[(4, 14), (4, 7)], [(3, 14), (3, 7)]]


def test_each_encodes_its_share_and_all_have_all(two: list[dict[str, Any]]) -> None:
    right = a_case("mnrl").encoder.encode(["rates rise", "storm hits", "a", "opera opens in winter", "coast"])
    for each in two:
        np.testing.assert_allclose(each["vectors"].numpy(), right, atol=1e-6)
        assert int(each["largest"]) == 3


def test_all_measure_the_same_on_dev(two: list[dict[str, Any]]) -> None:
    """Else one would stop early, or take another step for the best."""
    assert len(two[0]["dev"]) >= 2 and two[0]["dev"].isfinite().all()
    assert two[0]["dev"].equal(two[1]["dev"])


def test_a_whole_run_by_torchrun_has_one_writer_and_goes_on(tmp_path: Path) -> None:
    process = torchrun(*TRAIN, "loop.max_steps=4000", "model.dropout=0", cwd=tmp_path, wait=False)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.exists() and '"step": 20' in metrics.read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(process.communicate()[0])
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=240)
    saved = list((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert len(saved) == 1 and "go on with: torchrun --nproc-per-node 2 -m train resume=" in said, said
    assert said.count("training: 4000 steps") == 1 and "2 processes" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]

    last = int(saved[0].name.partition("-")[2])
    more = [f"loop.max_steps={last + 3}", "loop.schedule=constant"]
    done = torchrun("-m", "train", "resume=run", *more, processes=1, cwd=tmp_path)
    assert done.returncode != 0 and "start as many processes by torchrun" in done.said  # type: ignore[attr-defined]
    done = torchrun("-m", "train", "resume=run", *more, cwd=tmp_path)
    assert done.returncode == 0, done.said  # type: ignore[attr-defined]
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines() if "train/loss" in line]
    assert steps == sorted(set(steps)) and steps[-1] == last + 3
    assert (tmp_path / "run" / "report" / "report.json").exists()


def test_a_resumed_run_of_two_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    """Bit for bit, each process with its own dropout."""
    done = torchrun(*TRAIN, "loop.max_steps=4", "loop.evaluate_every=4", "loop.checkpoint_every=2", "loop.keep=9",
                    cwd=tmp_path)
    assert done.returncode == 0, done.said  # type: ignore[attr-defined]
    cut_at(tmp_path / "run", tmp_path / "broken", 2)
    done = torchrun("-m", "train", "resume=broken", cwd=tmp_path)
    assert done.returncode == 0 and "step 2" in done.said, done.said  # type: ignore[attr-defined]
    same_end(tmp_path / "run", tmp_path / "broken", 4)


@pytest.mark.parametrize(("there", "given", "number"), [
    (1, {"SLURM_LOCALID": "3"}, 0), (4, {"SLURM_LOCALID": "3"}, 3), (8, {}, 5),
    (4, {"LOCAL_RANK": "1", "TORCHELASTIC_USE_AGENT_STORE": "True"}, 1), (4, {}, None),
    (1, {"LOCAL_RANK": "1", "TORCHELASTIC_USE_AGENT_STORE": "True", "LOCAL_WORLD_SIZE": "2"}, None)])
def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, there: int, given: dict[str, str],
                                           number: int | None) -> None:
    for name in ("LOCAL_RANK", "SLURM_LOCALID", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    if number is not None:
        assert own_gpu(World(5, 8)) == number
    else:
        with pytest.raises(UserError, match=f"process wants a GPU, and this machine has {there}"):
            own_gpu(World(5, 8))


def test_processes_that_dont_know_where_to_meet_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UserError, match="WORLD_SIZE=2, but MASTER_ADDR and MASTER_PORT don't say where"):
        join(World(0, 2), "cpu")


def test_a_process_that_never_begins_is_named() -> None:
    only = torch.distributed.HashStore()
    only.set("0", "")
    with pytest.raises(UserError, match="process 1 of this run has not begun within 0 seconds"):
        meet(World(0, 2), only, 0)


def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = torchrun(*TRAIN, "loop.batch_size=-1", cwd=tmp_path)
    said = done.said  # type: ignore[attr-defined]
    assert done.returncode != 0 and "error: loop.batch_size" in said and said.count("error: ") == 1
    assert not list(tmp_path.iterdir())


def test_two_machines_train_one_model(tmp_path: Path) -> None:
    """By a ``torchrun`` each, as the guide has it; here they are on one machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{free.getsockname()[1]}"
    run = tmp_path / "run"
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    both = [subprocess.Popen([sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
                              "--rdzv-backend", "c10d", "--rdzv-endpoint", where, *TRAIN[:-1], "loop.max_steps=2",
                              "loop.evaluate_every=2", f"hydra.run.dir={run}"], cwd=tmp_path / name, text=True,
                             env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            for name in ("one", "other")]
    try:
        said = [each.communicate(timeout=200)[0] for each in both]
    finally:
        for each in both:
            each.kill()
    assert [each.returncode for each in both] == [0, 0], said
    assert sum("training: 2 steps of 16 rows on cpu, 2 processes" in each for each in said) == 1
    assert (run / "report" / "report.json").exists() and not any(any((tmp_path / name).iterdir())
                                                                 for name in ("one", "other"))


def test_what_several_processes_save_is_measured(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "bench.processes", "--batch", "4", "--steps", "2", "--rows", "64",
                           "--repeats", "1", "--results", str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["name"], line["processes"]) for line in lines] == [
        *(("scores", processes) for processes in (1, 2, 4, 8)), ("train", 2)]
    assert all(line["ratio"] > 0 for line in lines)
    assert json.loads((tmp_path / "processes.json").read_text())["lines"] == lines
