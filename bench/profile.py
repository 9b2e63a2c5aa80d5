"""Where a training step's milliseconds go on this machine, by torch's profiler.

``python -m bench.profile loss=mnrl [data=pairs.csv model=bert loop.batch_size=64 loop.precision=bf16 ...]``: what is
typed is what ``python -m train`` takes. Some steps are timed and as many profiled, nothing is kept. ``host`` is what is
left of a step: Python, autograd, and on a GPU the time in which it waits for work. ``--steps 20`` is how many of each.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.profiler import profile, supported_activities

from bench.lines import line

OPERATORS = {
    "optimizer": ("_fused_adamw_", "_foreach_norm", "_foreach_mul_", "linalg_vector_norm", "clip_grad"),
    "attention": ("scaled_dot_product", "_attention_", "bmm", "aten::_softmax", "attn", "_fused_sdp",
                  "_masked_softmax"),
    "products": ("mm", "linear", "matmul"),
}  # by a part of their names; those that compute nothing are host, the others elementwise
VIEWS = {f"aten::{name}" for name in (
    "t", "view", "empty", "empty_like", "empty_strided", "as_strided", "transpose", "detach", "expand", "slice",
    "select", "squeeze", "unsqueeze", "split", "split_with_sizes", "reshape", "flatten", "unflatten", "permute",
    "_unsafe_view")}
PLACES = ("products", "attention", "elementwise", "optimizer", "compiled", "host")


class _EnoughError(BaseException):
    """Ends a training behind the last step that is watched; no ``except Exception`` on the way takes it."""


def main() -> None:
    """Print one line of the whole step and one a place, milliseconds a step."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("words", nargs="+", help="of python -m train, such as loss=mnrl")
    arguments = parser.parse_args()
    from sentence_forge.runtime.errors import UserError
    from sentence_forge.train.api import train

    endless = [f"loop.{key}=1000000" for key in ("max_steps", "evaluate_every", "checkpoint_every")]
    with tempfile.TemporaryDirectory() as folder:
        try:
            places = where_it_goes(lambda: train(*endless, *arguments.words, out=f"{folder}/run"),
                                   skip=3, steps=arguments.steps)
        except UserError as error:
            sys.exit(f"error: {error}")
    table("step", places)


def table(name: str, places: dict[str, float]) -> None:
    """Print the milliseconds of a step, and of each place its share."""
    whole = sum(places.values())
    line(f"{name}, all", whole, "ms")
    for place, taken in places.items():
        if taken:
            line(f"{name}, {place}", taken, "ms", share=round(taken / whole, 3))


def where_it_goes(train: Callable[[], object], *, skip: int, steps: int) -> dict[str, float]:
    """Return the milliseconds of a training step by place, ``PLACES``; they add up to an unwatched step.

    Args:
        train: trains at least ``skip + 2 * steps`` steps by an optimizer of torch; it is ended behind them.
        skip: steps before the first that is timed, in which code for new shapes is made.
        steps: that are timed, and again that are profiled.
    """
    profiler = profile(activities=supported_activities())
    taken, at = 0, []

    def after(*_: object) -> None:
        nonlocal taken
        taken += 1
        if taken in (skip, skip + steps, skip + 2 * steps):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            at.append(time.perf_counter())
        if taken == skip + steps:
            profiler.start()
        elif taken == skip + 2 * steps:
            profiler.stop()
            raise _EnoughError

    hook = register_optimizer_step_post_hook(after)
    try:
        train()
    except _EnoughError:
        return _by_place(profiler, 1000 * (at[1] - at[0]) / steps, steps)
    finally:
        hook.remove()
    raise RuntimeError(f"the training took {taken} steps, and {skip + 2 * steps} are needed")


def place_of(operator: str) -> str:
    """Return the place that an operator's time is told under."""
    return next((place for place, names in OPERATORS.items() if any(name in operator for name in names)), "elementwise")


def _by_place(profiler: profile, step: float, steps: int) -> dict[str, float]:
    places = dict.fromkeys(PLACES, 0.0)
    kernels = 0.0
    for event in profiler.key_averages():
        ours = event.device_type == torch.autograd.DeviceType.CPU
        if not ours:
            kernels += event.self_device_time_total / 1000 / steps
        elif "::" in event.key and not event.key.startswith("autograd::") and event.key not in VIEWS:
            place = place_of(event.key)
            spent = event.self_device_time_total if torch.cuda.is_available() else event.self_cpu_time_total
            places[place] += spent / 1000 / steps
    places["compiled"] = max(0.0, kernels - sum(places.values()))  # kernels that no operator started
    places["host"] = 0.0
    places["host"] = max(0.0, step - sum(places.values()))
    return places


if __name__ == "__main__":
    main()
