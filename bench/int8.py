"""Ways to make an export int8, beside the one that ``export`` takes: what each keeps of fp32, and its speed.

``python -m bench.int8 DIR [--count 500]``: DIR is what ``python -m export corpus=... out=DIR`` wrote. Every file is
computed by ONNX Runtime, and by OpenVINO where that is installed; with the package nncf also one that only OpenVINO
computes. The static ones are calibrated on the last titles of the corpus, which are not among those that are timed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from bench.encode import speeds
from bench.lines import line
from sentence_forge.encoders.backends import ONNXRUNTIME, OPENVINO, has_openvino, openvino
from sentence_forge.encoders.onnx import TOKENIZER, OnnxVectors, read_export

CALIBRATION = 300  # titles
Inputs = dict[str, np.ndarray]


def main() -> None:
    """Print cosine and Spearman of each way, then its titles a second beside the stock ``encode``."""
    parser = argparse.ArgumentParser(prog="python -m bench.int8", description=__doc__)
    parser.add_argument("export", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SENTENCE_FORGE_DATA"),
                        help="where STS benchmark lies")
    parser.add_argument("--language", default="en", choices=["en", "zh"], help="of the scored pairs")
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # the quantisers' advice on a preprocessing that changes nothing here
    warnings.simplefilter("ignore")
    from sentence_forge.encoders.computing.device import multiplies_in_bf16
    from sentence_forge.encoders.encoder import load_encoder
    from sentence_forge.search.index import Index

    with Index.open(given.export) as index:
        titles = list(index.titles)
    encoder = load_encoder(given.export / "model", device="cpu")
    about = read_export(given.export)["onnx"]["fp32"]
    arms: dict[str, Callable[[list[str]], np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as folder:
        inputs = _inputs(given.export, about, titles[-CALIBRATION:])
        with contextlib.redirect_stdout(io.StringIO()):  # the calibration's progress
            files = list(_written(given.export / about["file"], Path(folder), inputs))
        tokenizer = given.export / TOKENIZER
        for name, file in files:
            for backend in [ONNXRUNTIME] * (file.suffix == ".onnx") + [OPENVINO] * has_openvino():
                arms[f"{name}, {backend}"] = OnnxVectors(file, tokenizer, about, backend=backend)
        if has_openvino() and multiplies_in_bf16(encoder.model.device):
            arms["bf16, openvino"] = OnnxVectors(files[0][1], tokenizer, about, backend=OPENVINO, bf16=True)
        _quality(arms, encoder, given.data_dir, given.language)
        arms["peer"] = lambda texts: encoder.model.encode(texts, batch_size=32, show_progress_bar=False)
        speeds(arms, titles[:given.count], given.repeats)


def _inputs(export: Path, about: dict[str, Any], titles: list[str]) -> list[Inputs]:
    """Return what goes into the model for each title, int64 ``[1, length]``."""
    vectors, made = OnnxVectors(export / about["file"], export / TOKENIZER, about), []
    names = [entry.name for entry in onnx.load(str(export / about["file"]), load_external_data=False).graph.input]
    compute = vectors.compute

    def recorded(given: Any) -> Callable[[], np.ndarray]:  # noqa: ANN401 - a mapping of arrays
        made.append({name: given[name] for name in names})
        return compute(given)

    vectors.compute = recorded
    for title in titles:
        vectors([title])
    return made


def _written(fp32: Path, folder: Path, inputs: list[Inputs]) -> Iterator[tuple[str, Path]]:
    """Write each way's file and yield it with its name; the percentiles need calibration texts of one length."""
    model = onnx.load(str(fp32))
    del model.graph.value_info[:]  # as export.quantize does
    bare = folder / "bare.onnx"
    onnx.save(model, str(bare))
    shapes = {entry.name: entry.dims for entry in model.graph.initializer}
    narrowing = [node.name for node in model.graph.node if node.op_type == "MatMul"
                 and node.input[1] in shapes and shapes[node.input[1]][0] > shapes[node.input[1]][1]]
    most = Counter(each["input_ids"].shape for each in inputs).most_common(1)[0][0]
    equal = [each for each in inputs if each["input_ids"].shape == most]
    yield "fp32", bare
    for name, left_out in (("dynamic", []), ("dynamic, second FFN products left in fp32", narrowing)):
        file = folder / f"{len(list(folder.iterdir()))}.onnx"
        quantize_dynamic(bare, file, per_channel=True, weight_type=QuantType.QInt8, nodes_to_exclude=left_out)
        yield f"int8 {name}", file
    for name, texts, method, left_out in (
            ("min and max", inputs, CalibrationMethod.MinMax, []),
            ("min and max, second FFN products left in fp32", inputs, CalibrationMethod.MinMax, narrowing),
            ("99.999 %", equal, CalibrationMethod.Percentile, [])):
        file = folder / f"{len(list(folder.iterdir()))}.onnx"
        quantize_static(bare, file, _Reader(texts), quant_format=QuantFormat.QDQ, per_channel=True,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, calibrate_method=method,
                        op_types_to_quantize=["MatMul", "Gemm"], nodes_to_exclude=left_out,
                        extra_options={"MatMulConstBOnly": True, "CalibPercentile": 99.999})
        yield f"int8 static, {name}", file
    for block in (32, 128):
        file = folder / f"{len(list(folder.iterdir()))}.onnx"
        made = MatMulNBitsQuantizer(onnx.load(str(bare)), bits=8, block_size=block, is_symmetric=True,
                                    accuracy_level=4)  # int8 activations
        made.process()
        made.model.save_model_to_file(str(file))
        yield f"int8 in blocks of {block}", file
    if has_openvino() and find_spec("nncf") is not None:
        yield "int8 by NNCF", _by_nncf(bare, folder / "nncf.xml", inputs)


def _by_nncf(fp32: Path, file: Path, inputs: list[Inputs]) -> Path:
    """Write int8 as OpenVINO's own tool makes it of a transformer: static, smoothed, sensitive products left out."""
    vino = openvino()  # first, so that neither tells its makers
    import nncf

    made = nncf.quantize(vino.Core().read_model(fp32), nncf.Dataset(inputs), subset_size=len(inputs),
                         model_type=nncf.ModelType.TRANSFORMER)
    vino.save_model(made, file, compress_to_fp16=False)
    return file


class _Reader(CalibrationDataReader):
    """Hands over calibration texts one by one."""

    def __init__(self, inputs: list[Inputs]) -> None:
        self._rest = iter(inputs)

    def get_next(self) -> Inputs | None:
        """Return the next text's inputs; None at the end."""
        return next(self._rest, None)


def _quality(arms: dict[str, Callable[[list[str]], np.ndarray]], encoder: Any, data_dir: Path | None,  # noqa: ANN401
             language: str) -> None:
    """Print what each arm keeps: mean cosine to torch in fp32, and the Spearman of scored pairs."""
    from sentence_forge.export.model import scored_pairs, spearman_of
    from sentence_forge.export.onnx_file import agreement

    name, pairs = scored_pairs(data_dir, language)
    reference = encoder.encode(pairs.texts)
    whole = spearman_of(pairs.texts, reference, pairs)
    for arm, encode in arms.items():
        made = encode(pairs.texts)
        line(f"spearman, {arm}", 100 * spearman_of(pairs.texts, made, pairs), "x100", peer="torch fp32",
             peer_value=100 * whole, measured_on=name, mean_cosine=round(agreement(reference, made)["mean_cosine"], 5))


if __name__ == "__main__":
    main()
