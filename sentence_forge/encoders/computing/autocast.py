"""Cast all weights of a model to half precision at once: what autocast computes, in fewer launches on a GPU.

Autocast rounds the weight and the bias of every linear layer in a launch each, and casts their gradients back likewise:
in a bert-base close to 300 a step. Here all are cast at once, and what is computed is the same to the last bit. bf16
from end to end would save the casts of activations too, and is not done: the residual stream, which autocast keeps in
float32, would lose digits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def cast_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the linear layers' weights by name as autocast would have them; gradients reach the model's own.

    None of them where autocast is off. Layers of another kind are left to it.
    """
    device = next(model.parameters()).device.type
    if not torch.is_autocast_enabled(device):
        return {}
    found = {f"{name}.{key}": weight for name, module in model.named_modules() if isinstance(module, nn.Linear)
             for key, weight in module.named_parameters(recurse=False)}
    if not found:
        return {}
    made = _Cast.apply(torch.get_autocast_dtype(device), *found.values())
    return dict(zip(found, made, strict=True))


class _Cast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        made = [torch.empty_like(weight, dtype=dtype) for weight in weights]
        torch._foreach_copy_(made, list(weights))
        ctx.mark_non_differentiable(*(cast for cast, weight in zip(made, weights, strict=True)
                                      if not weight.requires_grad))
        ctx.set_materialize_grads(False)  # an unused pooler gets no gradient
        ctx.dtype = weights[0].dtype
        return tuple(made)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        given = [gradient for gradient in gradients if gradient is not None]
        made = [torch.empty_like(gradient, dtype=ctx.dtype) for gradient in given]
        torch._foreach_copy_(made, given)
        back = iter(made)
        return None, *(None if gradient is None else next(back) for gradient in gradients)
