"""Encoding titles, from raw strings, beside sentence-transformers' own ``encode``; in turn, wall-clock.

``python -m bench.encode DIR [--count 2000]``: DIR is what ``python -m export corpus=... out=DIR`` wrote. ``--fused``
adds the graph fused by ``onnxruntime.transformers``, which was weighed for the exported file; ``python -m bench.int8``
has what was weighed for int8.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.lines import interleaved, line, median
from sentence_forge.encoders.backends import OPENVINO, has_openvino
from sentence_forge.encoders.onnx import TOKENIZER, OnnxVectors, read_export

PEER = "sentence-transformers encode, batch 32"


def main() -> None:
    """Print titles a second of each arm, with its ratio to the peer."""
    parser = argparse.ArgumentParser(prog="python -m bench.encode", description=__doc__)
    parser.add_argument("export", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--fused", action="store_true", help="also what was weighed and not chosen")
    parser.add_argument("--tokens-a-batch", type=int, nargs="*", default=[], help="further sizes of ONNX batches")
    arguments = parser.parse_args()
    from sentence_forge.encoders.encoder import load_encoder
    from sentence_forge.search.index import Index

    with Index.open(arguments.export) as index:
        titles = list(index.titles[:arguments.count])
    encoder = load_encoder(arguments.export / "model", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        arms: dict[str, Callable[[list[str]], np.ndarray]] = {"torch": encoder.encode, **_exported(arguments.export)}
        for size in arguments.tokens_a_batch:
            arms |= _exported(arguments.export, size)
        if arguments.fused:
            arms["onnx fp32, fused"] = _fused(arguments.export, Path(folder), encoder)
        arms["peer"] = lambda texts: encoder.model.encode(texts, batch_size=32, show_progress_bar=False)
        speeds(arms, titles, arguments.repeats)


def _exported(export: Path, tokens_a_batch: int | None = None) -> dict[str, OnnxVectors]:
    """Return the export's ONNX files by ONNX Runtime, and where OpenVINO is installed the fp32 one by that too."""
    import torch

    from sentence_forge.encoders.computing.device import multiplies_in_bf16

    size = {} if tokens_a_batch is None else {"tokens_a_batch": tokens_a_batch}
    name = "" if tokens_a_batch is None else f", {tokens_a_batch} tokens a batch"
    about = read_export(export)["onnx"]
    arms = {f"onnx {precision}{name}": OnnxVectors(export / each["file"], export / TOKENIZER, each, **size)
            for precision, each in about.items()}
    if has_openvino():
        for precision in ["fp32"] + ["bf16"] * multiplies_in_bf16(torch.device("cpu")):
            arms[f"openvino {precision}{name}"] = OnnxVectors(
                export / about["fp32"]["file"], export / TOKENIZER, about["fp32"], backend=OPENVINO,
                bf16=precision == "bf16", **size)
    return arms


def _fused(export: Path, folder: Path, encoder: Any) -> OnnxVectors:  # noqa: ANN401
    from onnxruntime.transformers.optimizer import optimize_model

    about = read_export(export)["onnx"]["fp32"]
    config = encoder.model[0].auto_model.config
    fused = optimize_model(str(export / about["file"]), "bert", num_heads=config.num_attention_heads,
                           hidden_size=config.hidden_size, opt_level=0)
    fused.save_model_to_file(str(folder / "fused.onnx"))
    return OnnxVectors(folder / "fused.onnx", export / TOKENIZER, about)


def speeds(arms: dict[str, Callable[[list[str]], np.ndarray]], titles: list[str], repeats: int) -> None:
    """Print titles a second of each arm, in turn, beside the last one."""
    calls = [lambda arm=arm: arm(titles) for arm in arms.values()]
    interleaved(calls, 1)
    found = {name: [len(titles) / taken for taken in times]
             for name, times in zip(arms, interleaved(calls, repeats), strict=True)}
    for name in list(arms)[:-1]:
        line(f"encode, {name}", median(found[name]), "titles/s", peer=PEER, peer_value=median(found["peer"]),
             spread=[round(min(found[name])), round(max(found[name]))])


if __name__ == "__main__":
    main()
