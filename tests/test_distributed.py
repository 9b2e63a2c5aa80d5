"""Two processes train what one would: losses, gradients, whole commands, and a resume on another number."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from resuming import cut_at, same_end
from torch import Tensor

from sentence_forge.encoders.encoder import Encoder
from sentence_forge.encoders.making.build import from_scratch
from sentence_forge.losses.base import Loss
from sentence_forge.losses.batch_hard import BatchHard
from sentence_forge.losses.cosine import Cosine
from sentence_forge.losses.mnrl import MultipleNegativesRanking
from sentence_forge.losses.softmax import Softmax
from sentence_forge.train.distributed import ALONE, World
from sentence_forge.train.rows import Part, Rows, batch_loss

ROOT = Path(__file__).parent.parent
WORDS = ["storm", "coast", "markets", "fall", "rates", "rise", "opera", "winter", "air", "north", "city", "sea"]
LOSSES = ("mnrl", "mnrl equal texts", "mnrl margin", "softmax", "cosine", "batch_hard", "mnrl one row each",
          "cosine one row")


def a_batch(name: str) -> tuple[Encoder, Part]:
    """One batch of a loss."""
    generator = np.random.default_rng(1)
    texts = [" ".join(generator.choice(WORDS, generator.integers(1, 12))) for _ in range(22)]
    encoder = Encoder(from_scratch(lambda: texts, hidden=32, layers=2, heads=2, vocabulary=90, dropout=0.0))
    rows = {"mnrl one row each": 2, "cosine one row": 1}.get(name, 7)  # 7: shares of 4 and 3; 1: of 1 and none
    name = name.removesuffix(" one row")
    columns = {"batch_hard": 1, "softmax": 2, "cosine": 2}.get(name, 3)
    ids = np.arange(columns * rows).reshape(columns, rows).T
    if name == "mnrl equal texts":
        ids[5, 1] = ids[0, 1]  # of the other process: a false negative unless it is masked
        ids[6, 2] = ids[1, 0]
    classes = [str(row % 3) for row in range(rows)]
    torch.manual_seed(0)
    loss: Loss = {"softmax": lambda: Softmax(dim=32, labels=["0", "1", "2"]), "cosine": Cosine,
                  "mnrl margin": lambda: MultipleNegativesRanking(false_negative_margin=0.01),
                  "batch_hard": lambda: BatchHard(labels=["0", "1", "2"])}.get(name, MultipleNegativesRanking)()
    labels = loss.encode_labels([0.1 * row for row in range(rows)] if name == "cosine" else classes)
    return encoder, Part(Rows(encoder.tokenize(texts), ids, labels, np.arange(rows)), loss)


def gradients_of(encoder: Encoder, part: Part, world: World) -> tuple[Tensor, Tensor, Encoder]:
    """The loss and all gradients of a batch, which every process knows whole and computes its share of."""
    encoder.model.train()
    value = batch_loss(encoder, part, np.arange(len(part.rows.numbers)), world, bf16=False)
    value.backward()
    world.sum_gradients(encoder.model.parameters())
    found = [p.grad.flatten() for p in (*encoder.model.parameters(), *part.loss.parameters()) if p.grad is not None]
    return value.detach(), torch.cat(found), encoder


def torchrun(*arguments: str, processes: int = 2, cwd: Path, wait: bool = True) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1",
                                "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
               *arguments]
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, start_new_session=True)
    if wait:
        said, _ = process.communicate(timeout=300)
        process.said = said  # type: ignore[attr-defined]
    return process


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("two")
    done = torchrun(str(ROOT / "tests" / "torchrun_case.py"), str(folder), cwd=folder)
    assert done.returncode == 0, done.said  # type: ignore[attr-defined]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", LOSSES)
def test_two_processes_compute_what_one_does(name: str, two: list[dict[str, Tensor]]) -> None:
    loss, gradient, _ = gradients_of(*a_batch(name), ALONE)
    assert float(gradient.norm()) > 0
    for each in two:
        torch.testing.assert_close(each[f"{name}/loss"], loss, rtol=1e-5, atol=1e-7)
        assert (each[f"{name}/gradient"] - gradient).norm() <= 1e-5 * gradient.norm()


def test_each_encodes_its_share_and_all_have_all(two: list[dict[str, Tensor]]) -> None:
    encoder = a_batch("mnrl")[0]
    right = encoder.encode(["rates rise", "storm hits", "a", "opera opens in winter", "coast"])
    for each in two:
        np.testing.assert_allclose(each["vectors"].numpy(), right, atol=1e-6)
        assert int(each["largest"]) == 3


def test_all_measure_the_same_on_dev(two: list[dict[str, Tensor]]) -> None:
    """Else one would stop early, or take another step for the best."""
    assert len(two[0]["dev"]) >= 2 and two[0]["dev"].isfinite().all()
    assert two[0]["dev"].equal(two[1]["dev"])


TRAIN = ["-m", "train", "loss=mnrl", "model=mini", "model.hidden=32", "model.layers=1", "model.heads=2",
         "model.vocabulary=600", "loop.projector=0", "loop.batch_size=16", "hydra.run.dir=run"]


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
    assert len(saved) == 1 and "go on with: python -m train resume=" in said, said
    assert said.count("training: 4000 steps") == 1 and "2 processes" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]

    last = int(saved[0].name.partition("-")[2])
    more = [f"loop.max_steps={last + 3}", "loop.schedule=constant"]
    done = torchrun("-m", "train", "resume=run", *more, processes=1, cwd=tmp_path)
    assert done.returncode != 0 and "processes 2 -> 1" in done.said  # type: ignore[attr-defined]
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


def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = torchrun(*TRAIN, "loop.batch_size=-1", cwd=tmp_path)
    said = done.said  # type: ignore[attr-defined]
    assert done.returncode != 0 and "error: loop.batch_size" in said
    assert not list(tmp_path.iterdir())
