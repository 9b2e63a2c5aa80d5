"""Encoding titles, from raw strings, beside sentence-transformers' own ``encode``; in turn, wall-clock.

``python -m bench.encode DIR [--count 2000]``: DIR is what ``python -m export corpus=... out=DIR`` wrote. ``--all`` adds
what was weighed for the exported file: the graph fused by ``onnxruntime.transformers``, and OpenVINO where it is
installed (fp32, the same int8 graph, and int8 by NNCF where that is installed), with what each int8 keeps of fp32.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench.lines import interleaved, line, median
from sentence_forge.encoders.onnx import TOKENIZER, OnnxVectors, read_export

PEER = "sentence-transformers encode, batch 32"
CALIBRATION = 300  # texts


def main() -> None:
    """Print titles a second of each arm, with its ratio to the peer, and cosine and Spearman of the int8 ones."""
    parser = argparse.ArgumentParser(prog="python -m bench.encode", description=__doc__)
    parser.add_argument("export", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--all", action="store_true", help="also what was weighed and not chosen")
    parser.add_argument("--tokens-a-batch", type=int, nargs="*", default=[], help="further sizes of ONNX batches")
    parser.add_argument("--data-dir", type=Path, help="where STS benchmark lies, for --all")
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
        if arguments.all:
            arms |= _weighed(arguments.export, Path(folder), encoder, titles)
            _quality({name: arm for name, arm in arms.items() if "int8" in name}, encoder, arguments.data_dir)
        arms["peer"] = lambda texts: encoder.model.encode(texts, batch_size=32, show_progress_bar=False)
        _speeds(arms, titles, arguments.repeats)


def _exported(export: Path, tokens_a_batch: int | None = None) -> dict[str, OnnxVectors]:
    """Return the export's own ONNX files."""
    size = {} if tokens_a_batch is None else {"tokens_a_batch": tokens_a_batch}
    name = "" if tokens_a_batch is None else f", {tokens_a_batch} tokens a batch"
    return {f"onnx {precision}{name}": OnnxVectors(export / about["file"], export / TOKENIZER, about, **size)
            for precision, about in read_export(export)["onnx"].items()}


def _weighed(export: Path, folder: Path, encoder: Any, titles: list[str]) -> dict[str, OnnxVectors]:  # noqa: ANN401
    from onnxruntime.transformers.optimizer import optimize_model

    about = read_export(export)["onnx"]
    config = encoder.model[0].auto_model.config
    fused = optimize_model(str(export / about["fp32"]["file"]), "bert", num_heads=config.num_attention_heads,
                           hidden_size=config.hidden_size, opt_level=0)
    fused.save_model_to_file(str(folder / "fused.onnx"))
    arms = {"onnx fp32, fused": OnnxVectors(folder / "fused.onnx", export / TOKENIZER, about["fp32"])}
    if find_spec("openvino") is None:
        return arms
    import openvino

    for precision, each in about.items():
        model = openvino.Core().read_model(export / each["file"])
        arms[f"openvino {precision}"] = _OpenVino(model, export, each)
    model = openvino.Core().read_model(export / about["fp32"]["file"])
    arms["openvino as it comes"] = _OpenVino(model, export, about["fp32"], exact=False)
    if find_spec("nncf") is not None:
        import nncf

        model = openvino.Core().read_model(export / about["fp32"]["file"])
        names = {port.get_any_name() for port in model.inputs}
        drawn = np.random.default_rng(0).permutation(len(titles))[:CALIBRATION]
        made: list[dict[str, np.ndarray]] = []
        recorder = _Recorder(export, about["fp32"], made)
        for title in drawn:
            recorder([titles[title]])
        given = [{name: value for name, value in each.items() if name in names} for each in made]
        model = nncf.quantize(model, nncf.Dataset(given), model_type=nncf.ModelType.TRANSFORMER,
                              subset_size=len(given))
        arms["openvino int8 by NNCF"] = _OpenVino(model, export, about["fp32"])
    return arms


class _OpenVino(OnnxVectors):
    """The same tokens and batches, computed by OpenVINO: two batches in flight, a stream a core.

    As it comes it computes in bf16 on processors that have it, whatever the file says; ``exact`` keeps it from that.
    """

    def __init__(self, model: Any, export: Path, about: dict[str, Any], *, exact: bool = True) -> None:  # noqa: ANN401
        super().__init__(export / about["file"], export / TOKENIZER, about)
        import openvino

        how = {"PERFORMANCE_HINT": "THROUGHPUT"} | ({"INFERENCE_PRECISION_HINT": "f32"} if exact else {})
        compiled = openvino.Core().compile_model(model, "CPU", how)
        self._requests = [compiled.create_infer_request() for _ in range(2)]
        self._names = {port.get_any_name() for port in compiled.inputs}

    def compute(self, given: dict[str, np.ndarray]) -> Callable[[], np.ndarray]:
        request = self._requests[0]
        self._requests.reverse()
        request.start_async({name: value for name, value in given.items() if name in self._names}, share_inputs=True)

        def wait() -> np.ndarray:
            request.wait()
            return request.get_output_tensor().data.copy()

        return wait


class _Recorder(OnnxVectors):
    """Keeps what goes into the model, to calibrate with."""

    def __init__(self, export: Path, about: dict[str, Any], made: list[dict[str, np.ndarray]]) -> None:
        super().__init__(export / about["file"], export / TOKENIZER, about)
        self._made = made

    def compute(self, given: dict[str, np.ndarray]) -> Callable[[], np.ndarray]:
        self._made.append(given)
        return super().compute(given)


def _quality(arms: dict[str, Any], encoder: Any, data_dir: Path | None) -> None:  # noqa: ANN401
    """Print what each int8 arm keeps: mean cosine to torch in fp32, and the Spearman of scored pairs."""
    from sentence_forge.export.model import scored_pairs, spearman_of
    from sentence_forge.export.onnx_file import agreement

    name, pairs = scored_pairs(data_dir, "en")
    reference = encoder.encode(pairs.texts)
    whole = spearman_of(pairs.texts, reference, pairs)
    for arm, encode in arms.items():
        made = encode(pairs.texts)
        line(f"spearman, {arm}", 100 * spearman_of(pairs.texts, made, pairs), "x100", peer="torch fp32",
             peer_value=100 * whole, measured_on=name, mean_cosine=round(agreement(reference, made)["mean_cosine"], 5))


def _speeds(arms: dict[str, Callable[[list[str]], np.ndarray]], titles: list[str], repeats: int) -> None:
    calls = [lambda arm=arm: arm(titles) for arm in arms.values()]
    interleaved(calls, 1)
    speeds = {name: [len(titles) / taken for taken in times]
              for name, times in zip(arms, interleaved(calls, repeats), strict=True)}
    for name in list(arms)[:-1]:
        line(f"encode, {name}", median(speeds[name]), "titles/s", peer=PEER, peer_value=median(speeds["peer"]),
             spread=[round(min(speeds[name])), round(max(speeds[name]))])


if __name__ == "__main__":
    main()
