"""Blend a run's beginning and its end before they are exported: a share that is given, or the best one on a suite."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sentence_forge.encoders.making.blend import Between, between, run_of, saved_config
from sentence_forge.runtime import targets
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import sha256_file

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from sentence_forge.configs.schema import Export
    from sentence_forge.eval.tasks.base import Task

log = logging.getLogger(__name__)
SHARES = tuple(number / 10 for number in range(11))
KEEPS = 0.95
"""``blend=auto`` takes the smallest share with so much of the best one's gain, to stay near the beginning."""


def blended(settings: Export, end: SentenceTransformer, device: str,
            before: Mapping[str, Any] | None = None) -> tuple[SentenceTransformer, dict[str, Any]]:
    """Return the model to export on ``device``, and what its card and the manifest say of how it was blended.

    Args:
        settings: the command's keys, with ``blend``.
        end: the run's model, on the CPU.
        device: where to compute, as torch calls it.
        before: what an export that was cut short said of its blend; the shares of the same two are not measured again.

    Raises:
        UserError: the model is no run's, its beginning can't be had, or ``auto`` has no suite to choose by.
    """
    tasks, data_dir = _tasks(settings) if settings.blend == "auto" else ({}, None)
    suite = _digest(tasks, data_dir)
    found = between(settings.model, end, settings.plugins)
    about: dict[str, Any] = {**found.fingerprints}
    if settings.blend == "auto" and before is not None and \
            {**about, "suite_sha256": suite}.items() <= before.items():
        share, about = before["share"], {name: value for name, value in before.items() if name != "share"}
    elif settings.blend == "auto":
        scores, measured_on = _scores(found, tasks, data_dir, device)
        share = chosen(scores)
        about["scores"] = {f"{each:g}": score for each, score in scores.items()}
        about |= {"measured_on": measured_on, "suite_sha256": suite}
        if share == 0:
            log.warning("blend=auto: no share is better than the beginning on %s, which is exported; give blend=1 for "
                        "the run as it ended", ", ".join(measured_on))
        else:
            log.info("blend=auto: %g, the least share with %d %% of the best gain on %s", share, round(100 * KEEPS),
                     ", ".join(measured_on))
    else:
        share = float(settings.blend)
    return found.at(share).to(device), {"share": share, **about}


def _digest(tasks: Mapping[str, Task], data_dir: Path | None) -> str:
    """Return a hash of the tasks, with their settings, and of the rows that they measure on."""
    files = {name: task.locate(data_dir) for name, task in tasks.items()}
    said = {name: [repr(tasks[name]), sha256_file(file) if file.is_file() else str(file)]
            for name, file in files.items() if file}
    return sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def chosen(scores: Mapping[float, float]) -> float:
    """Return the least share whose score is above the beginning's by ``KEEPS`` of the best one's gain, or more.

    >>> chosen({0.0: 0.50, 0.5: 0.598, 1.0: 0.60}), chosen({0.0: 0.6, 1.0: 0.5})
    (0.5, 0.0)
    """
    before, best = scores[min(scores)], max(scores.values())
    return next(share for share, score in sorted(scores.items()) if score >= before + KEEPS * (best - before))


def _tasks(settings: Export) -> tuple[dict[str, Task], Path | None]:
    """Return the tasks to choose by, those of the command or else of the run, and the data folder.

    Raises:
        UserError: there is none, or none of their files is there.
    """
    run = run_of(settings.model)
    config = saved_config(run)
    own = not settings.suite
    nodes = config["suite"] if own else settings.suite
    given = settings.data_dir or config.get("data_dir")
    data_dir = None if given is None else Path(given).expanduser()
    tasks: dict[str, Task] = {name: targets.build(node, f"suite.{name}", plugins=settings.plugins)
                              for name, node in nodes.items() if node is not None}
    if not tasks:
        raise UserError(f"blend=auto: {run} chose its weights by its own rows, not by a suite; say by what to choose "
                        "the share, as suite=dev.csv (your scored pairs) or suite=stsb_dev, or give blend=0.5")
    if all(task.locate(data_dir) is None for task in tasks.values()):
        raise UserError(f"blend=auto: no file of suite {', '.join(tasks)} is in data_dir={given}")
    return tasks, data_dir


def _scores(found: Between, tasks: Mapping[str, Task], data_dir: Path | None,
            device: str) -> tuple[dict[float, float], list[str]]:
    """Return each share's mean score over the tasks, and those whose files are there."""
    from sentence_forge.encoders.encoder import Encoder
    from sentence_forge.eval.evaluate import evaluate

    scores, measured_on = {}, list[str]()
    for share in SHARES:
        encoder = Encoder(found.at(share).to(device), name=f"blend={share:g}")
        results = evaluate(encoder, tasks, data_dir, resamples=1, deep=False).results
        measured_on = list(results)
        scores[share] = float(np.mean([result.value for result in results.values()]))
        log.info("blend=%g: %.4f (%s)", share, scores[share],
                 ", ".join(f"{name} {result.value:.4f}" for name, result in results.items()))
    return scores, measured_on
