"""The exported encoder: ONNX Runtime and a tokenizer, without torch, so that a query is answered at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from runtime.errors import UserError
from runtime.files import sha256_file

TOKENIZER = "model/tokenizer.json"


class OnnxEncoder:
    """Texts to vectors through an export's ONNX file.

    Args:
        export: the export's folder; its ``manifest.json`` names the file, its sha256 and how texts become tokens.
        precision: fp32 or int8.

    Raises:
        UserError: the export has no such file, or one that is not what its manifest says.
    """

    def __init__(self, export: Path, precision: str = "fp32") -> None:
        about = read_about(export).get("onnx", {}).get(precision)
        if about is None:
            raise UserError(f"{export}: holds no {precision} ONNX model; export it again with the onnx extra installed")
        for name, expected in about["files"].items():
            if not (export / name).is_file() or sha256_file(export / name) != expected:
                raise UserError(f"{export / name}: is not the file the export wrote; export the model again")
        self.fingerprint: str = about["fingerprint"]
        self.name = str(export)
        self._prompt: str = about["prompt"]
        self._tokenizer = Tokenizer.from_file(str(export / TOKENIZER))
        self._tokenizer.enable_truncation(max_length=about["max_length"])
        self._tokenizer.no_padding()
        self._pad_id, self._left_padding = about["pad_id"], about["left_padding"]
        self._session = session(export / about["file"])
        self.dim: int = about["dim"]

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Return float32 ``[n, dim]`` vectors, in the texts' order.

        Texts are taken by length, so that a batch is padded little.
        """
        ids = [each.ids for each in self._tokenizer.encode_batch_fast([self._prompt + text for text in texts])]
        order = sorted(range(len(ids)), key=lambda number: -len(ids[number]))
        vectors = np.empty((len(ids), self.dim), dtype=np.float32)
        for start in range(0, len(order), 32):
            batch = order[start : start + 32]
            vectors[batch] = run(self._session, [ids[number] for number in batch], self._pad_id, self._left_padding)
            if progress:
                progress(len(batch))
        return vectors


def read_about(export: Path) -> dict:
    """Return an export's manifest.

    Raises:
        UserError: there is none, or it can't be read.
    """
    try:
        return json.loads((export / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{export}: is no export (it has no manifest.json)") from None
    except ValueError:
        raise UserError(f"{export / 'manifest.json'}: is not readable JSON; export the model again") from None


def session(file: Path) -> onnxruntime.InferenceSession:
    """Open an ONNX file on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def run(opened: onnxruntime.InferenceSession, ids: Sequence[Sequence[int]], pad_id: int,
        left_padding: bool = False) -> np.ndarray:
    """Run one padded batch of token ids; returns float32 ``[len(ids), dim]``."""
    width = max(map(len, ids))
    padded = np.full((len(ids), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(ids), width), dtype=np.int64)
    for number, each in enumerate(ids):
        at = slice(width - len(each), width) if left_padding else slice(0, len(each))
        padded[number, at], mask[number, at] = each, 1
    names = {entry.name for entry in opened.get_inputs()}
    given = {"input_ids": padded, "attention_mask": mask}
    return opened.run(None, {name: value for name, value in given.items() if name in names})[0]
