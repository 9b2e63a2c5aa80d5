"""AdamW by rows: the same weights and state as torch's own over the whole table, in a run too, and after a resume."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import TINY, Done
from resuming import cut_at, same_end, without_times
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from sentence_forge.train import table
from sentence_forge.train.optim import adamw

WORDS = 9000


def small() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Embedding(WORDS, 32, padding_idx=0), nn.Linear(32, 8))


def batches() -> Iterator[Tensor]:
    """Yield ids: a few of the words in most batches, any of them now and then, the same ones twice, padding."""
    generator = torch.Generator().manual_seed(3)
    for number in range(30):
        yield torch.randint(0, WORDS if number % 7 == 0 else 300, (4, 20), generator=generator)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, taken: list[Tensor]) -> list[float]:
    norms = []
    for ids in taken:
        made = model(ids)
        (made * torch.linspace(-1, 1, made.numel()).view_as(made)).sum().backward()
        found = table.gradients(model.parameters())
        norms.append(float(torch.nn.utils.get_total_norm(found)))
        torch._foreach_mul_(found, 0.5)
        optimizer.step()
        optimizer.zero_grad()
    return norms


def test_weights_and_state_are_those_of_adamw_over_the_whole_table() -> None:
    whole, rows, taken = small(), small(), list(batches())
    table.by_rows(rows)
    assert rows[0].sparse
    torchs = torch.optim.AdamW(whole.parameters(), lr=1e-2, weight_decay=0.1)
    ours = adamw([rows], learning_rate=1e-2, weight_decay=0.1)
    ours.param_groups[1]["weight_decay"] = 0.1  # torch's is told nothing of biases
    hooked: list[int] = []
    ours.register_step_post_hook(lambda *_: hooked.append(1))
    assert steps(rows, ours, taken) == pytest.approx(steps(whole, torchs, taken), rel=1e-6)
    assert len(hooked) == 30, "a hook runs once a step"
    for one, other in zip(rows.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    found, right = (optimizer.state_dict()["state"] for optimizer in (ours, torchs))
    for number in right:
        assert found[number].keys() == right[number].keys()
        for name in right[number]:
            torch.testing.assert_close(found[number][name], right[number][name], rtol=1e-4, atol=1e-7)
    untouched = sorted({*range(WORDS)} - {int(each) for ids in taken for each in ids.flatten()})
    assert untouched and not found[0]["exp_avg"][untouched].any()
    assert (rows[0].weight[untouched] / small()[0].weight[untouched] - 0.999**30).abs().max() < 1e-4  # these decay, too


def test_a_state_that_was_saved_goes_on_to_the_last_bit() -> None:
    taken = list(batches())
    whole, again = small(), small()
    for model in (whole, again):
        table.by_rows(model)
    ours, resumed = (adamw([model], learning_rate=1e-2, weight_decay=0.1) for model in (whole, again))
    steps(whole, ours, taken[:15])
    again.load_state_dict(whole.state_dict())
    resumed.load_state_dict(copy.deepcopy(ours.state_dict()))
    for model, optimizer in ((whole, ours), (again, resumed)):
        steps(model, optimizer, taken[15:])
    assert all(map(torch.equal, whole.parameters(), again.parameters()))
    one, other = (optimizer.state_dict()["state"] for optimizer in (ours, resumed))
    assert all(one[number][name].equal(other[number][name]) for number in one for name in one[number])


def test_a_run_by_rows_is_a_run_and_resumes_exactly(command: Callable[..., Done], tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    shape = ["loss=mnrl", *TINY, "loop.max_steps=6", "loop.checkpoint_every=2", "loop.keep=9", "loop.log_every=1",
             "loop.accumulate=2", "loop.learning_rate=1e-3", "loop.max_grad_norm=0.5"]
    sparse: list[bool] = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: sparse.append(any(
        p.grad is not None and p.grad.is_sparse for group in optimizer.param_groups for p in group["params"])))
    try:
        assert command("train", *shape, "hydra.run.dir=whole").code == 0
        monkeypatch.setattr(table, "LEAST", 1)
        assert command("train", *shape, "hydra.run.dir=rows").code == 0
    finally:
        hook.remove()
    assert sparse == [False] * 6 + [True] * 6
    losses = [[line["train/loss"] for line in without_times(tmp_path / name) if "train/loss" in line]
              for name in ("whole", "rows")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    whole, rows = (load_file(tmp_path / name / "checkpoints" / "step-6" / "optimizer.safetensors")
                   for name in ("whole", "rows"))
    assert {name: each.shape for name, each in whole.items()} == {name: each.shape for name, each in rows.items()}
    cut_at(tmp_path / "rows", tmp_path / "broken", 2)
    assert command("train", "resume=broken").code == 0
    same_end(tmp_path / "rows", tmp_path / "broken", 6)
