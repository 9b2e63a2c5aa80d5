"""Multiply float32 matrices by oneDNN on AMD processors with AVX-512, which MKL does not know well.

MKL, which torch's CPU build calls, reaches 150 to 170 GFLOP/s there on two cores; oneDNN, which lies in the same build,
reaches 340 to 380 (``python -m bench.products``; gradients of weights 210 to 300). With AVX2 alone it is the other way
round: 59 to 70 GFLOP/s by oneDNN, 66 to 79 by MKL (Zen 3), and so it is on Intel's with AVX-512: 160 to 350 by oneDNN,
310 to 365 by MKL (Xeon with AMX). We choose by what the processor is and not by a measurement, so that a resumed run
rounds as an unbroken one.

In bf16, which autocast sees to, it is oneDNN on every processor. It compiles code for every shape it meets and keeps
it: 300 different numbers of tokens leave 1.7 GB behind (likewise). So it only sees numbers of rows that are multiples
of ``ROWS``.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

ROWS = 32


def rows_at_once(device: torch.device) -> int:
    """Return what numbers of rows, or tokens, are best a multiple of on this device: others are padded at a cost."""
    return ROWS if device.type == "cpu" and (_suits() or torch.is_autocast_enabled("cpu")) else 1


def quick_products(device: torch.device) -> AbstractContextManager[object]:
    """Let linear layers in float32 on this device take what multiplies fastest."""
    quick = device.type == "cpu" and _suits() and not torch.is_autocast_enabled("cpu")
    return _ByOneDnn() if quick else nullcontext()


def processor(device: torch.device) -> str:
    """Return what multiplies on this device, in words: another one rounds otherwise."""
    if device.type != "cpu":
        return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    library = "oneDNN" if _suits() else "MKL" if torch.backends.mkl.is_available() else "torch's BLAS"
    return f"{torch.backends.cpu.get_cpu_capability()} by {library}"


@functools.cache
def _suits() -> bool:
    """Whether torch would call MKL, oneDNN is there too, and the processor is AMD's and has AVX-512."""
    try:
        _multiply(torch.ones(1, 1), torch.ones(1, 1), None)
    except (AttributeError, RuntimeError):  # another torch, or one built without
        return False
    return (torch.backends.mkl.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
            and "AuthenticAMD" in _maker())


def _maker() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")[:500]
    except OSError:
        return platform.processor()


class _ByOneDnn(TorchFunctionMode):
    def __torch_function__(self, function: Callable[..., Any], types: Collection[type], args: tuple[Any, ...] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 - what the function gives
        if function is F.linear and not kwargs and not torch.is_autocast_enabled("cpu"):
            given, weight, bias = args if len(args) == 3 else (*args, None)
            if given.dtype == weight.dtype == torch.float32 and given.ndim > 1 and given.numel():
                return _Linear.apply(given, weight, bias)
        return function(*args, **(kwargs or {}))


class _Linear(torch.autograd.Function):
    """``x W^T + b``, as ``torch.nn.functional.linear``; rows of zeros fill up a multiple of ``ROWS``."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ANN401
        rows = _filled(given.flatten(0, -2))
        ctx.save_for_backward(rows, weight)
        return _as_given(_multiply(rows, weight, bias), given)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # noqa: ANN401
        given, weight = ctx.saved_tensors
        rows = _filled(gradients[0].flatten(0, -2))
        to_given, to_weight, to_bias = ctx.needs_input_grad
        return (_as_given(_multiply(rows, weight.t(), None), gradients[0]) if to_given else None,
                _multiply(rows.t(), given.t(), None) if to_weight else None,
                rows.sum(0) if to_bias else None)


def _filled(rows: Tensor) -> Tensor:
    lacking = -len(rows) % ROWS
    return F.pad(rows, (0, 0, 0, lacking)) if lacking else rows


def _as_given(rows: Tensor, given: Tensor) -> Tensor:
    """Return the rows that were given, in their shape."""
    leading = given.shape[:-1]
    return rows[: leading.numel()].view(*leading, rows.shape[-1])


def _multiply(given: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(given, weight, bias, "none", [], "")
