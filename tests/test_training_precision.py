"""Training in bf16, what a step computes with clipping off, and a run that goes on on another kind of processor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, Done
from resuming import cut_at, same_end, without_times

from bench.ours import Ours
from bench.tasks import Task, load, tiny
from sentence_forge.configs.choices import Precision
from sentence_forge.configs.schema import Loop
from sentence_forge.losses.base import Loss
from sentence_forge.runtime.errors import UserError
from sentence_forge.train import run
from sentence_forge.train.batches import Batches
from sentence_forge.train.loop import State, Training
from sentence_forge.train.mixing import Batch
from sentence_forge.train.optim import adamw, make_plan
from sentence_forge.train.rows import BatchLoss, Part

Command = Callable[..., Done]
CPU = torch.device("cpu")


@pytest.fixture
def has_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that has it; one that hasn't emulates it."""
    monkeypatch.setattr("sentence_forge.train.optim.multiplies_in_bf16", lambda device: True)


def ours(loss: str, size: int) -> tuple[Task, Ours]:
    task = load(loss, size, sample=True)
    made = Ours(tiny(lambda: task.texts), task)
    made.prepare()
    return task, made


@pytest.mark.usefixtures("has_bf16")
def test_bf16_on_a_cpu_learns_what_fp32_learns_and_resumes_exactly(command: Command, tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    measured_in = []

    def measure(*given: object) -> object:
        measured_in.append(torch.is_autocast_enabled("cpu"))
        return inner(*given)

    inner = run.measure
    monkeypatch.setattr(run, "measure", measure)
    shape = ["loss=mnrl", *TINY, "loop.max_steps=6", "loop.log_every=1", "loop.checkpoint_every=2", "loop.keep=9",
             "loop.learning_rate=3e-3", "loop.evaluate_every=2",
             "model.dropout=0"]  # where streams are filled up in bf16 alone, another dropout would be drawn
    losses = {}
    for precision in ("fp32", "bf16"):
        done = command("train", *shape, f"loop.precision={precision}", f"hydra.run.dir={precision}")
        assert done.code == 0, done.err
        losses[precision] = [row["train/loss"] for row in without_times(tmp_path / precision) if "train/loss" in row]
        assert set(measured_in) == {precision == "bf16"}
        measured_in.clear()
    assert losses["bf16"] != losses["fp32"]
    np.testing.assert_allclose(losses["bf16"], losses["fp32"], rtol=0.02)
    cut_at(tmp_path / "bf16", tmp_path / "broken", 2)
    done = command("train", "resume=broken")
    assert done.code == 0, done.err
    same_end(tmp_path / "bf16", tmp_path / "broken", 6)


def test_gradients_in_bf16_are_near_those_in_fp32_and_kept_in_fp32() -> None:
    task, side = ours("mnrl", 16)
    side.encoder.model.eval()
    found = []
    for bf16 in (False, True):
        side.encoder.model.zero_grad()
        loss_of = BatchLoss(side.encoder, side.losses, [Part(side.rows, side.loss)], bf16=bf16)
        loss_of(loss_of.plan(Batch(0, task.batches[0]))).backward()
        kept = [p.grad for p in side.encoder.model.parameters() if p.grad is not None]
        assert {each.dtype for each in kept} == {torch.float32}
        found.append(torch.cat([each.flatten() for each in kept]))
    assert 1e-4 < (found[1] - found[0]).norm() / found[0].norm() < 0.03


def test_a_cpu_computes_in_fp32_unless_asked_and_refuses_bf16_that_it_lacks(command: Command,
                                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    for capable in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda capable=capable: capable)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert not make_plan(Loop(), 10, CPU).bf16 and not make_plan(Loop(precision=Precision.fp32), 10, CPU).bf16
        if capable and torch.backends.mkldnn.is_available():
            assert make_plan(Loop(precision=Precision.bf16), 10, CPU).bf16
    done = command("train", "loss=mnrl", *TINY, "loop.precision=bf16", "device=cpu")
    assert done.code == 2 and "error: loop.precision=bf16: this cpu doesn't multiply in bf16" in done.err, done.err


class Steep(Loss):
    """A loss whose gradients are finite, and their norm is not."""

    def forward(self, embeddings: list[torch.Tensor], labels: object, text_ids: object) -> torch.Tensor:
        return 1e25 * embeddings[0].sum()


def test_clipping_off_leaves_gradients_as_they_are() -> None:
    """Also where their norm is infinite, which once made all of them NaN."""
    task, side = ours("mnrl", 8)
    stepped = []
    optimizer = adamw([side.encoder.model], learning_rate=0.0, weight_decay=0.0)
    optimizer.register_step_pre_hook(lambda *_: stepped.append(1))
    plan = make_plan(Loop(max_steps=1, max_grad_norm=0), 10, CPU)
    training = Training(run=Path(), encoder=side.encoder, losses=side.losses, parts=[Part(side.rows, Steep())],
                        batches=Batches(lambda epoch: [Batch(0, task.batches[0])]),
                        optimizer=optimizer, plan=plan, state=State(), evaluate=dict, on_better=lambda step: None,
                        tracker=None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="the gradient of step 1 is not finite"):
        training._step()
    assert not stepped
    assert all(p.grad.isfinite().all() for p in side.encoder.model.parameters() if p.grad is not None)


def test_another_kind_of_processor_is_said_when_a_run_goes_on(command: Command, tmp_path: Path) -> None:
    assert command("train", "loss=cosine", *TINY, "loop.max_steps=1", "hydra.run.dir=run").code == 0
    file = tmp_path / "run" / "environment.json"
    capability = torch.backends.cpu.get_cpu_capability()
    for steps, recorded, said in ((2, {}, False), (3, {"processor": "AVX by MKL"}, True),
                                  (4, {"processor": None}, False)):
        environment = json.loads(file.read_text())
        assert environment["processor"].startswith(f"{capability} by ")
        file.write_text(json.dumps(environment | recorded))  # None: a run of before, which recorded none
        done = command("train", "resume=run", f"loop.max_steps={steps}")
        assert done.code == 0, done.err
        assert (f"processor AVX by MKL -> {capability} by" in done.err) == said, done.err
