"""Random search: values that each job of a sweep draws for itself.

``python -m train -m 'draw=range(20)' 'loop.learning_rate=${log_uniform:1e-5,1e-3}' 'loop.batch_size=${choice:16,32}'``
runs 20 jobs. What a job draws depends on its number ``draw`` and on the key alone, so that the same command gives the
same values, and more draws only add to them.
"""

from __future__ import annotations

import math
import random
from typing import Any


def register() -> None:
    """Let configs say ``${uniform:low,high}``, ``${log_uniform:low,high}`` and ``${choice:a,b,c}``."""
    from omegaconf import OmegaConf

    for resolver in (uniform, log_uniform, choice):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def uniform(low: float, high: float, *, _node_: Any, _root_: Any) -> float:  # noqa: ANN401 - of OmegaConf
    """Return a number between ``low`` and ``high``, four digits of it."""
    return _rounded(_generator(_node_, _root_).uniform(low, high))


def log_uniform(low: float, high: float, *, _node_: Any, _root_: Any) -> float:  # noqa: ANN401 - of OmegaConf
    """Return a number whose logarithm is uniform between those of ``low`` and ``high``, four digits of it."""
    if not 0 < low <= high:
        raise ValueError(f"log_uniform:{low},{high}: needs 0 < low <= high")
    return _rounded(math.exp(_generator(_node_, _root_).uniform(math.log(low), math.log(high))))


def choice(*of: Any, _node_: Any, _root_: Any) -> Any:  # noqa: ANN401 - of OmegaConf
    """Return one of the values."""
    return _generator(_node_, _root_).choice(of)


def _generator(node: Any, root: Any) -> random.Random:  # noqa: ANN401 - of OmegaConf
    number = root.get("draw")
    if number is None:
        raise ValueError("draws a value a job; say how many jobs: -m 'draw=range(20)'")
    return random.Random(f"{number} {node._get_full_key(None)}")


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
