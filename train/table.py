"""AdamW that passes over those rows of an embedding table that have ever had a gradient; the others only decay.

A batch has some hundreds of a vocabulary's tokens, and an epoch often a fifth of them, but a dense gradient, its norm
and AdamW pass over the whole table, half of a small model. Here the table's gradient is sparse, and the moments of the
rows that have some lie one behind the other. A row without moments has a gradient of zero, so that AdamW would only
shrink it: what is computed is the same, up to rounding.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LEAST = 8192
"""Rows of a table from which this pays."""
_MOMENTS = ("exp_avg", "exp_avg_sq")
_OF_ALL = inspect.unwrap(torch.optim.Adam.step)  # without the hooks that torch puts around it, which run once a step


def by_rows(model: nn.Module) -> None:
    """Let the gradients of a model's large embedding tables be sparse: AdamW below is made for it."""
    for module in model.modules():
        # the kernel takes 16 numbers at a time: rows of another length would be rounded by where they lie
        if isinstance(module, nn.Embedding) and module.num_embeddings >= LEAST and module.embedding_dim % 16 == 0:
            module.sparse = True


def gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Return the numbers of all gradients, of a sparse one those that are there, to be changed in place."""
    found = []
    for parameter in parameters:
        if parameter.grad is not None:
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
            found.append(parameter.grad.values() if parameter.grad.is_sparse else parameter.grad)
    return found


class AdamW(torch.optim.AdamW):
    """torch's fused AdamW, which also takes sparse gradients; its state, as it is saved, is torch's."""

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - as torch's
        super().__init__(*arguments, **named, fused=True)
        self._rows: dict[nn.Parameter, _Rows] = {}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None and (table.grad.is_sparse or table in self._rows):
                    if table not in self._rows:
                        self._rows[table] = _Rows(table, self.state[table])
                    self._rows[table].step(group)
        _OF_ALL(self, closure)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with each row's moments in their place."""
        found = super().state_dict()
        tables = [p for group in self.param_groups for p in group["params"]]
        return {**found, "state": {number: self._rows[tables[number]].whole() if tables[number] in self._rows else state
                                   for number, state in found["state"].items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state as torch has it."""
        super().load_state_dict(state_dict)
        self._rows.clear()


class _Rows:
    """The rows of a table with moments, and these one behind the other at the beginning of the state's tensors."""

    def __init__(self, table: nn.Parameter, state: dict[str, Any]) -> None:
        self.table, self.state = table, state
        self.place = torch.full((len(table),), -1)  # of each row among those with moments
        self.rows = torch.empty(0, dtype=torch.int64)
        before = dict(state)
        # of NumPy: memory that is zero without being touched
        state.update({name: torch.from_numpy(np.zeros(table.shape, dtype=np.float32)) for name in _MOMENTS})
        state.setdefault("step", torch.zeros(()))
        if before:
            self._add((before["exp_avg"].any(1) | before["exp_avg_sq"].any(1)).nonzero()[:, 0])
            for name in _MOMENTS:
                state[name][: len(self.rows)] = before[name][self.rows]

    def step(self, group: dict[str, Any]) -> None:
        """Decay all rows, and move those with moments; the gradient is used up."""
        table, state = self.table, self.state
        assert table.grad is not None
        given = (table.grad if table.grad.is_sparse else table.grad.to_sparse(1)).coalesce()
        table.grad = None
        touched = given.indices()[0]
        self._add(touched[self.place[touched] < 0])
        some = len(self.rows)
        gradient = torch.zeros(some, table.shape[1]).index_copy_(0, self.place[touched], given.values())
        if group["weight_decay"]:
            table.mul_(1 - group["lr"] * group["weight_decay"])
        moved = table[self.rows]
        state["step"] += 1
        torch._fused_adamw_([moved], [gradient], [state["exp_avg"][:some]], [state["exp_avg_sq"][:some]], [],
                            [state["step"]], lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1],
                            weight_decay=0.0, eps=group["eps"], amsgrad=False, maximize=False)
        table.index_copy_(0, self.rows, moved)

    def whole(self) -> dict[str, Any]:
        """Return the state as torch has it."""
        some = len(self.rows)
        return self.state | {name: torch.zeros_like(self.table).index_copy_(0, self.rows, self.state[name][:some])
                             for name in _MOMENTS}

    def _add(self, rows: Tensor) -> None:
        self.place[rows] = torch.arange(len(self.rows), len(self.rows) + len(rows))
        self.rows = torch.cat([self.rows, rows])
