"""Hold the ways of computing against texts that are encoded alone, on a few texts: vectors and gradients."""

from __future__ import annotations

import logging
import math

import numpy as np
import torch
from torch import Tensor

from sentence_forge.encoders.computing.chain import Chain
from sentence_forge.encoders.computing.tokens import Tokens
from sentence_forge.encoders.computing.ways import Ways
from sentence_forge.runtime.errors import UserError, warn_once

log = logging.getLogger(__name__)
TOLERANCE = 1e-5
_REFUSALS = (KeyError, RuntimeError, TypeError, IndexError, AttributeError, ValueError, ImportError)
_SHORTCUTS = {"kernel": "the varlen kernel", "compiled": "loop.compile=true"}


def judge(ways: Ways, trial: Tokens) -> Tensor:
    """Return the vectors of the trial's texts, each encoded alone.

    Raises:
        UserError: the modules don't fit together.
    """
    try:
        return ways.way("alone")(trial).float()
    except _REFUSALS as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        names = ", ".join(type(module).__name__ for module in ways.chain.modules)
        said = (str(error).strip() or "?").splitlines()[0]
        raise UserError(f"model: its modules ({names}) can't encode a text: {type(error).__name__}: {said}") from error


def off(ways: Ways, name: str, trial: Tokens, alone: Tensor) -> float:
    """Return the largest difference between a way and the texts alone, relative to the largest value."""
    try:
        found = [ways.way(name)(trial)]
        if name == "flat":
            found.append(ways.flat(trial, by_words=True))
    except _REFUSALS as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        log.info("the %s way can't be taken: %s: %s", name, type(error).__name__, error)
        return float("inf")
    return max(float((each.float() - alone).abs().max() / alone.abs().max()) for each in found)


def kernel_agrees(ways: Ways, trial: Tokens, alone: Tensor, tolerance: float) -> bool:
    """Whether the varlen kernel runs on this GPU and gives in bf16 what texts get alone."""
    ways.flat.kernel = True
    try:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            apart = float((ways.flat(trial).float() - ways.way("alone")(trial).float()).abs().max() / alone.abs().max())
    except (RuntimeError, ImportError, TypeError) as error:  # an older card, a head width it doesn't know
        log.info("the varlen kernel can't be used here: %s", str(error).splitlines()[0])
        return False
    if apart > tolerance:
        log.info("the varlen kernel is off by %.1e from texts encoded alone, so it isn't used", apart)
    return apart <= tolerance


def try_gradients(ways: Ways, trial: Tokens, way: str) -> None:
    """Give up the varlen kernel, or the compiled model, where it doesn't run backward or is less exact than without.

    Both are held against texts alone in float32, in the precision that is set now: vectors and gradients may be off by
    at most twice what they are off without.
    """
    wanted = [name for name in _SHORTCUTS if way == "flat" and getattr(ways.flat, name)]
    if not wanted:
        return
    with torch.autocast(ways.device.type, enabled=False):
        right = _learnt(ways, "alone", trial)
    ways.flat.kernel = ways.flat.compiled = False
    limit = max(TOLERANCE, 2 * _apart(_learnt(ways, way, trial), right))
    for name in wanted:
        setattr(ways.flat, name, True)
        try:
            apart, why = _apart(_learnt(ways, way, trial), right), ""
        except _REFUSALS as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            apart, why = math.inf, f" ({type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]})"
        if not apart <= limit:
            setattr(ways.flat, name, False)
            warn_once(f"{_SHORTCUTS[name]} isn't used: vectors and gradients are off by {apart:.1e} from those of "
                      f"texts encoded alone{why}")


def _learnt(ways: Ways, way: str, trial: Tokens) -> list[Tensor]:
    """Return the texts' vectors, and all parameters' gradients of a function of them that no symmetry makes flat.

    A parameter without a gradient, such as a pooler's, counts as one of zeros, which is what a compiled model gives.
    """
    vectors = ways.way(way)(trial).float()
    parameters = [p for module in ways.chain.modules for p in module.parameters() if p.requires_grad]
    if not vectors.requires_grad:
        return [vectors]
    slope = torch.linspace(-1, 1, vectors.numel(), device=vectors.device).view_as(vectors)
    found = torch.autograd.grad((vectors * slope).sum(), parameters, allow_unused=True, materialize_grads=True)
    return [vectors.detach(), torch.cat([each.float().flatten() for each in found])]


def _apart(found: list[Tensor], right: list[Tensor]) -> float:
    return max(float((one - other).norm() / other.norm()) for one, other in zip(found, right, strict=True))


def trial_of(chain: Chain, tokens: Tokens) -> Tokens:
    """Return the shortest and the longest text of the batch, and three pieced together from them.

    One of these is longer than any sliding window, one nearly as long and one short; whatever depends on its neighbours
    shows among texts of so different lengths.
    """
    order = np.argsort(tokens.lengths, kind="stable")
    some = tokens.take(np.unique(order[[0, -1]]))
    if not len(some.ids):
        return some
    window = max((getattr(chain.config, name, None) or 0) for name in ("sliding_window", "local_attention"))
    longest = min(2 * window or 32, chain.max_length or 512)
    pieces = [np.resize(some.ids, max(1, length)) for length in (longest, longest * 7 // 8, longest // 16)]
    ends = some.offsets[-1] + np.cumsum([len(piece) for piece in pieces])
    return Tokens(np.concatenate([some.ids, *pieces]), np.concatenate([some.offsets, ends]))
