"""The second part of the GPU set: training beside the stock trainer, and where a step's milliseconds go."""

from __future__ import annotations

from typing import Any

from bench.arms import Arm
from bench.compare import Speed, measure, told, told_cold
from bench.gpu_setting import EPOCH, Setting
from bench.launches import launches_a_step, waits_a_step
from bench.lines import line
from bench.ours import Ours
from bench.profile import table, where_it_goes

FASTER = 2.5  # than the tuned stock trainer
UTILISATION = 0.4  # of the measured rate of bf16 products, at the larger batch
SECONDS_AN_EPOCH = 60


def train(setting: Setting, batch_size: int) -> None:
    """Compare training at one batch size: as a short run is, not compiled."""
    task = setting.tasks[batch_size]
    ours = setting.ours(task)
    _compare(setting, ours, [setting.tuned(task), setting.stock(task)])


def compiled(setting: Setting, batch_size: int) -> None:
    """Compare training as a long run is, compiled, with the tuned stock trainer with and without ``torch_compile``."""
    task = setting.tasks[batch_size]
    ours = setting.ours(task, compiled=True)
    _compare(setting, ours, [setting.tuned(task), setting.tuned(task, compiled=True), setting.ours(task)])


def launches(setting: Setting) -> None:
    """Print the kernel and graph launches of a step, and the waits for the GPU; on a CPU there are none."""
    task = setting.tasks[min(setting.tasks)]
    arms: list[Arm] = [setting.ours(task), setting.tuned(task), setting.stock(task)]
    for arm in arms:
        arm.prepare()
    few, many = setting.scale.launches
    counts = [launches_a_step(arm, task, few=few, many=many) for arm in arms]
    for peer, count in zip(arms[1:], counts[1:], strict=True):
        line(f"gpu train mnrl, batch {task.batch_size}, launches a step", counts[0], "launches", peer=peer.name,
             peer_value=count or None)
    if setting.bf16:
        waits = [waits_a_step(arm, task, few=few, many=many) for arm in arms]
        for peer, count in zip(arms[1:], waits[1:], strict=True):
            line(f"gpu train mnrl, batch {task.batch_size}, waits a step", waits[0], "calls that wait for the GPU",
                 peer=peer.name, peer_value=count or None)


def _compare(setting: Setting, ours: Ours, peers: list[Arm]) -> None:
    """Print ratios of speeds, how much of the device each side uses, how long an epoch is, and where our step goes."""
    task = ours.task
    mine, *others = speeds = measure(ours, peers, task, setting.scale.length)
    name = f"gpu train mnrl, batch {task.batch_size}"
    for theirs in others:
        tuned = "stock trainer, tuned" in theirs.name
        told_cold(name, mine, theirs, task)
        told(name, mine, theirs, task, **({"target_ratio": FASTER} if tuned else {}))
    for speed in speeds:
        _utilisation(f"{name}, {speed.name}", setting, ours, speed)
    tokenising = mine.cold[0] * EPOCH / len(task.text_ids)
    line(f"gpu epoch of {EPOCH:,} pairs, batch {task.batch_size}, {ours.name}, extrapolated",
         EPOCH / mine.rows_per_second, "s", tokenising_before_it=round(tokenising, 2), target=SECONDS_AN_EPOCH)
    skip, steps = setting.scale.length.skip, setting.scale.launches[1]
    batches = task.turn(0, skip + 2 * steps)
    table(f"{name}, {ours.name}, a step", where_it_goes(lambda: ours.turn(batches), skip=skip, steps=steps))


def _utilisation(name: str, setting: Setting, ours: Ours, speed: Speed) -> None:
    """Print the model's own arithmetic a second, on real tokens, against the measured rate."""
    transformer: Any = ours.encoder.model[0]
    config, lengths = transformer.model.config, ours.tokens.lengths.astype(float)
    hidden, layers = config.hidden_size, config.num_hidden_layers
    weights = layers * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
    # forward and backward: 6 operations a weight and token; attention 12 a layer, dimension, token and length
    flops = 6 * weights + 12 * layers * hidden * float((lengths**2).sum() / lengths.sum())
    done = flops * speed.more["tokens_per_second"]
    target = {"target": UTILISATION} if ours.task.batch_size == max(setting.tasks) else {}
    line(f"{name}: utilisation", done / setting.rate, "of the bf16 rate", tflops=round(done / 1e12, 2), **target)
