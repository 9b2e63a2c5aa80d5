"""A run that was cut off at a step, and the comparison of two runs bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file

from sentence_forge.train import checkpoint


def cut_at(whole: Path, broken: Path, step: int) -> None:
    """Copy a finished run as it was when it had just saved ``step``, with what it logged since left in."""
    shutil.copytree(whole, broken)
    shutil.rmtree(broken / "report")
    for folder in checkpoint.steps(broken):
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder)


def without_times(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("speed/")} for line in lines]


def same_end(one: Path, other: Path, step: int) -> None:
    """Bit for bit: weights, loss head, optimizer, generators, the loop's state, the best model, and all metrics."""
    left, right = (run / "checkpoints" / f"step-{step}" for run in (one, other))
    names = sorted(file.relative_to(left).as_posix() for file in left.rglob("*.safetensors"))
    assert names == sorted(file.relative_to(right).as_posix() for file in right.rglob("*.safetensors"))
    for name in names:
        a, b = load_file(left / name), load_file(right / name)
        assert a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a), name
    a, b = (json.loads((folder / "state.json").read_text()) for folder in (left, right))
    a["loop"]["seconds"] = b["loop"]["seconds"] = 0
    assert a == b
    assert without_times(one) == without_times(other)
    best = [load_file(run / "model" / "model.safetensors") for run in (one, other)]
    assert all(best[0][key].equal(best[1][key]) for key in best[0])
