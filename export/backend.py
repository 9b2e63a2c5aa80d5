"""Decide whether a corpus is encoded by OpenVINO: where that is installed and faster than ONNX Runtime when tried."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from sentence_forge.configs.choices import Backend, ClusterKind
from sentence_forge.configs.schema import Export
from sentence_forge.encoders.backends import ONNXRUNTIME, OPENVINO, has_openvino
from sentence_forge.encoders.onnx import TOKENIZER, OnnxVectors
from sentence_forge.encoders.similarity import FloatArray
from sentence_forge.runtime.errors import UserError

LEAST_TITLES = 5000  # of a corpus; for fewer, trying takes longer than it saves
TRIED, ROUNDS = 128, 3  # titles, and how often each backend encodes them in turn
LEAST_GAIN = 1.05  # times as fast, or it is not worth another backend

log = logging.getLogger(__name__)


def weigh_openvino(settings: Export, out: Path, device: str, about: Mapping[str, Any],
                   titles: Sequence[str]) -> dict[str, Any]:
    """Return the manifest's entry on OpenVINO: whether it is ``used`` for the corpus, and what a trial found.

    What ``about`` says already stays, unless OpenVINO is asked for or excluded.

    Args:
        settings: the command's keys.
        out: the export.
        device: where torch would compute.
        about: the export's manifest, with the corpus's ``precision``.
        titles: the corpus.

    Raises:
        UserError: OpenVINO was asked for and can't compute this; says why.
    """
    asked = settings.backend
    before = about.get("openvino")
    if before is not None and (asked is Backend.auto or before["used"] == (asked is Backend.openvino)):
        return before
    unfit = _unfit(device, about)
    worthwhile = (unfit is None and about["precision"] == "fp32" and len(titles) >= LEAST_TITLES and has_openvino()
                  and settings.cluster.kind is ClusterKind.none)  # a cluster's workers may have GPUs, or no OpenVINO
    if asked is Backend.onnxruntime or (asked is Backend.auto and not worthwhile):
        return {"used": False}
    tried: dict[str, Any] = _try(out, about, titles) if unfit is None else {"reason": unfit}
    if "reason" in tried:
        if asked is Backend.openvino:
            raise UserError(f"backend=openvino: {tried['reason']}; without backend= ONNX Runtime or torch encodes")
        log.info("OpenVINO is not used: %s", tried["reason"])
        return {"used": False, **tried}
    speeds = tried["titles_per_second"]
    used = asked is Backend.openvino or speeds[OPENVINO] >= LEAST_GAIN * speeds[ONNXRUNTIME]
    log.info("OpenVINO encodes %.0f titles/s and ONNX Runtime %.0f, their vectors differ by %.1e at most: the corpus "
             "is encoded by %s", speeds[OPENVINO], speeds[ONNXRUNTIME], tried["max_difference"],
             "OpenVINO" if used else "ONNX Runtime")
    return {"used": used, **tried}


def _unfit(device: str, about: Mapping[str, Any]) -> str | None:
    """Return why OpenVINO can't encode this corpus; None where it may be tried."""
    if about["precision"] == "int8":
        return "it computes exports in fp32 or bf16, and this one is int8"
    if device != "cpu":
        return f"it computes on a CPU, and device= is {device}"
    if "fp32" not in about.get("onnx", {}):
        reason = about.get("onnx_left_out", {}).get("fp32", {}).get("reason", "it was exported without")
        return f"there is no ONNX of this model: {reason}"
    return None


def _try(out: Path, about: Mapping[str, Any], titles: Sequence[str]) -> dict[str, Any]:
    """Encode some titles by both backends, in turn; return how fast and how near they are, or a ``reason`` not to.

    ONNX Runtime computes in fp32, OpenVINO in the corpus's precision; how near bf16 must be is measured elsewhere.
    """
    from sentence_forge.export.onnx_file import MOST_DIFFERENCE, plain_reason

    file, bf16 = about["onnx"]["fp32"], about["precision"] == "bf16"
    drawn = [titles[row] for row in np.random.default_rng(0).permutation(len(titles))[:TRIED]]
    arms: dict[str, OnnxVectors] = {}
    made: dict[str, FloatArray] = {}
    taken: dict[str, list[float]] = {}
    try:
        for name in (ONNXRUNTIME, OPENVINO):
            arms[name] = OnnxVectors(out / file["file"], out / TOKENIZER, file, backend=name,
                                     bf16=bf16 and name == OPENVINO)
            made[name], taken[name] = arms[name](drawn), []
    except UserError as error:
        return {"reason": str(error)}
    except Exception as error:  # of its reader and kernels, which don't take every model
        return {"reason": f"it can't compute this model: {plain_reason(error)}"}
    apart = float(np.abs(made[ONNXRUNTIME] - made[OPENVINO]).max())
    if not (bf16 or apart <= MOST_DIFFERENCE):
        return {"reason": f"its vectors differ from ONNX Runtime's by {apart:.2g}"}
    for _ in range(ROUNDS):
        for name, arm in arms.items():
            begun = perf_counter()
            arm(drawn)
            taken[name].append(perf_counter() - begun)
    return {"titles_per_second": {name: round(len(drawn) / median(times), 1) for name, times in taken.items()},
            "max_difference": apart}
