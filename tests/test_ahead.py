"""Batches planned one ahead, and models compiled for a few shapes: the same training, and the same when resumed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, Done
from resuming import cut_at, same_end
from safetensors.torch import load_file

from sentence_forge.encoders.computing.flat_way import sent
from sentence_forge.encoders.computing.plan import MOST_SHAPES, How, Packed, lay_out, shapes_of
from sentence_forge.encoders.computing.tokens import Tokens
from sentence_forge.runtime.errors import UserError
from sentence_forge.train import ahead
from sentence_forge.train.ahead import Ahead
from sentence_forge.train.batches import Batches
from sentence_forge.train.compiling import REPAYS, compiles

Command = Callable[..., Done]
LOOP = ["loss=mnrl", *TINY, "loop.max_steps=6", "loop.checkpoint_every=2", "loop.evaluate_every=3", "loop.keep=9",
        "loop.log_every=1", "loop.learning_rate=1e-3"]


def tokens_of(lengths: np.ndarray) -> Tokens:
    return Tokens(np.arange(lengths.sum(), dtype=np.int32) % 50, np.concatenate([[0], np.cumsum(lengths)]))


def handed_out(batches: list[int], *, threaded: bool, **more: Any) -> Ahead:
    def plan(batch: Any) -> Any:
        if batch == 13:
            raise UserError("row 13: is no good")
        return batch, threading.current_thread().name

    return Ahead(Batches(lambda epoch: [each + 100 * epoch for each in batches]), plan=plan,  # type: ignore[arg-type]
                 settle=more.pop("settle", lambda batch: None), left=more.pop("left", 99), threaded=threaded)


def test_one_batch_is_planned_ahead_and_counts_when_it_is_handed_out() -> None:
    planned: list[tuple[Any, str]] = []
    for threaded in (False, True):
        settled: list[Any] = []
        with handed_out([1, 2], threaded=threaded, left=5, settle=settled.append) as coming:
            assert settled == [1] and (coming.epoch, coming.position, coming.done) == (0, 0, 0.0)
            stands = []
            for _ in range(5):
                planned.append(next(coming))
                coming.plan_next()
                stands.append((coming.epoch, coming.position, coming.done))
            assert coming._batches.epoch == 2, "what is beyond the last step isn't planned"
        assert stands == [(0, 1, 0.5), (0, 2, 1.0), (1, 1, 1.5), (1, 2, 2.0), (2, 1, 2.5)]
    assert [batch for batch, _ in planned] == [1, 2, 101, 102, 201] * 2
    assert {name for _, name in planned[:6]} == {"MainThread"}, "the first one, and all without a thread"
    assert all(name.startswith("batches") for _, name in planned[6:])


def test_a_batch_that_can_t_be_planned_fails_when_it_is_asked_for_and_the_thread_ends() -> None:
    coming = handed_out([1, 13, 3], threaded=True)
    with pytest.raises(UserError, match="row 13"), coming:
        assert next(coming)[0] == 1  # type: ignore[comparison-overlap]
        coming.plan_next()
        next(coming)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]
    with pytest.raises(KeyboardInterrupt), handed_out([1, 2, 3], threaded=True) as coming:
        next(coming)
        coming.plan_next()
        raise KeyboardInterrupt
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_a_run_that_plans_in_a_thread_is_the_run_that_does_not(command: Command, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("train", *LOOP, "hydra.run.dir=plain").code == 0
    before = ahead.Ahead.__init__

    def on_a_gpu(self: Ahead, *arguments: Any, **named: Any) -> None:
        before(self, *arguments, **{**named, "threaded": True})

    monkeypatch.setattr(ahead.Ahead, "__init__", on_a_gpu)
    assert command("train", *LOOP, "hydra.run.dir=threaded").code == 0
    same_end(tmp_path / "plain", tmp_path / "threaded", 6)
    cut_at(tmp_path / "threaded", tmp_path / "broken", 2)
    done = command("train", "resume=broken")
    assert done.code == 0, done.err
    same_end(tmp_path / "plain", tmp_path / "broken", 6)


def test_plans_need_no_torch() -> None:
    code = ("import sys; sys.modules['torch'] = None\n"
            "from sentence_forge.encoders.computing.plan import lay_out")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_arrays_arrive_as_they_were() -> None:
    groups = [{"a": np.arange(7, dtype=np.int32), "b": np.array([[True, False, True]])},
              {"c": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3), "d": np.empty((0, 2)), "e": np.arange(4)}]
    there = sent(Packed(groups), torch.device("cpu"))
    assert [list(group) for group in there] == [list(group) for group in groups]
    for group, arrived in zip(groups, there, strict=True):
        for name, array in group.items():
            assert arrived[name].shape == array.shape and torch.equal(arrived[name], torch.from_numpy(array))


def test_few_shapes_hold_most_streams_and_little_padding() -> None:
    generator = np.random.default_rng(0)
    how = How(limit=100_000, rows=True, learning=True, compiled=True)
    for spread in (0.0, 0.7):  # batches of nearly the same number of tokens, and of very different ones
        counts = (60 * np.exp(spread * generator.normal(size=300))).astype(int) + 4
        batches = [tokens_of(np.clip(generator.gamma(4, 4, count).astype(int), 3, 120)) for count in counts]
        batches[3] = tokens_of(np.array([400, 20]))  # one long text does not make all rows long
        shapes = shapes_of(lay_out(each, how) for each in batches[:64])
        assert shapes.row == 128 and 0 < len(shapes.rows[0]) <= MOST_SHAPES and not shapes.rows[1]
        assert spread or len(shapes.rows[0]) == 1
        again = How(limit=100_000, rows=True, learning=True, compiled=True, shapes=shapes)
        streams = [stream for each in batches for stream in lay_out(each, again).streams]
        compiled = [stream for stream in streams if stream.compiled]
        assert len(compiled) >= (0.4 if spread else 0.9) * len(streams)
        assert {stream.layout.size // 128 for stream in compiled} <= set(shapes.rows[0])
        real = sum(int(stream.layout.lengths.sum()) for stream in compiled)
        assert sum(stream.layout.size for stream in compiled) < 1.4 * real


@pytest.mark.parametrize(("wanted", "device", "left", "before", "chosen"), [
    ("auto", "cuda", REPAYS, {}, True), ("auto", "cuda", REPAYS - 1, {}, False), ("auto", "cpu", 10**6, {}, False),
    ("auto", "cuda", 10, {"compiled": True, "device": "cuda"}, True),
    ("auto", "cuda", 10**6, {"compiled": False, "device": "cuda"}, False),
    ("auto", "cpu", 10, {"compiled": True, "device": "cuda"}, False),
    (True, "cpu", 1, {}, True), (False, "cuda", 10**6, {"compiled": True, "device": "cuda"}, False)])
def test_a_run_is_compiled_where_that_repays_and_a_resumed_one_as_it_began(
        wanted: bool | str, device: str, left: int, before: dict, chosen: bool) -> None:
    assert compiles(wanted, device=device, left=left, before=before) == chosen


@pytest.fixture
def compiled_shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """In place of torch's compiler, which takes minutes: what each call's training mode and size were."""
    seen: list[tuple[bool, int]] = []

    def compile_nothing(model: torch.nn.Module, **_: object) -> Callable[..., Any]:
        def call(**inputs: Any) -> Any:
            seen.append((model.training, inputs["position_ids"].numel()))
            return model(**inputs)
        return call

    monkeypatch.setattr(torch, "compile", compile_nothing)
    return seen


def test_shapes_are_compiled_before_the_first_step_and_no_other_later(
        command: Command, tmp_path: Path, compiled_shapes: list[tuple[bool, int]]) -> None:
    done = command("train", *LOOP, "loop.compile=true", "hydra.run.dir=whole")
    assert done.code == 0, done.err
    sizes = {size for training, size in compiled_shapes if training}
    said = [line for line in done.err.splitlines() if "loop.compile" in line]
    assert len(said) == 1 and f"{len(sizes)} shape" in said[0] and "TORCHINDUCTOR_CACHE_DIR" in said[0]
    assert said[0] in done.err.split("step 3 of 6")[0]
    assert len(compiled_shapes) == len(sizes) + 6 + 1, "a rehearsal each, the steps, and what is held against fp32"
    assert json.loads((tmp_path / "whole" / "environment.json").read_text())["compiled"] is True
    plain = command("train", *LOOP, "hydra.run.dir=plain")
    assert plain.code == 0 and "loop.compile" not in plain.err
    weights = [load_file(tmp_path / run / "checkpoints" / "step-2" / "generators.safetensors")
               for run in ("whole", "plain")]
    assert weights[0].keys() == weights[1].keys(), "rehearsals draw nothing that steps draw"
    cut_at(tmp_path / "whole", tmp_path / "broken", 4)
    done = command("train", "resume=broken")
    assert done.code == 0, done.err
    same_end(tmp_path / "whole", tmp_path / "broken", 6)


def test_a_shape_that_can_t_be_compiled_is_one_line_and_the_run_goes_on(
        command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_training(model: torch.nn.Module, **_: object) -> Callable[..., Any]:
        def call(**inputs: Any) -> Any:
            if model.training:
                raise RuntimeError("no kernel for this shape\nand much more")
            return model(**inputs)
        return call

    monkeypatch.setattr(torch, "compile", refuse_training)
    done = command("train", *LOOP, "loop.compile=true", "hydra.run.dir=run")
    assert done.code == 0, done.err
    assert [line for line in done.err.splitlines() if "loop.compile isn't used" in line and "no kernel" in line]


def test_what_is_no_choice_is_refused(command: Command) -> None:
    for wrong in ("yes please", "1", "null"):
        done = command("train", *LOOP, f"loop.compile={wrong}")
        assert done.code == 2 and "loop.compile" in done.err and done.err.count("\n") <= 2, done.err
