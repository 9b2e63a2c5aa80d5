"""The exported encoder: ONNX Runtime and a tokenizer, without torch, so that a query is answered at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from runtime.errors import UserError
from runtime.files import sha256_file

TOKENIZER = "model/tokenizer.json"
BATCH = 32


class OnnxEncoder:
    """Texts to vectors through an export's ONNX file.

    Args:
        export: the export's folder; its ``manifest.json`` names the file, its sha256 and how texts become tokens.
        precision: fp32 or int8.

    Raises:
        UserError: the export has no such file, or one that is not what its manifest says.
    """

    def __init__(self, export: Path, precision: str = "fp32") -> None:
        about = read_export(export).get("onnx", {}).get(precision)
        if about is None:
            raise UserError(f"{export}: holds no {precision} ONNX model; export it again with the onnx extra installed")
        for name, expected in about["files"].items():
            if not (export / name).is_file() or sha256_file(export / name) != expected:
                raise UserError(f"{export / name}: is not the file the export wrote; export the model again")
        self.fingerprint: str = about["fingerprint"]
        self.name = str(export)
        self.dim: int = about["dim"]
        self._vectors = OnnxVectors(export / about["file"], export / TOKENIZER, about)

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Return float32 ``[n, dim]`` vectors, in the texts' order."""
        return self._vectors(texts, progress)


class OnnxVectors:
    """An ONNX file with its tokenizer: what an export measures, and what a query goes through.

    Args:
        file: int64 ``input_ids`` and ``attention_mask`` ``[batch, length]`` to float32 ``[batch, dim]``.
        tokenizer: a ``tokenizer.json``.
        how: ``dim``, ``max_length``, ``prompt``, ``pad_id``, ``left_padding``.
    """

    def __init__(self, file: Path, tokenizer: Path, how: Mapping[str, Any]) -> None:
        self._how = how
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.enable_truncation(max_length=how["max_length"])
        self._tokenizer.no_padding()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._inputs = {entry.name for entry in self._session.get_inputs()}

    def __call__(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Return float32 ``[n, dim]`` vectors; texts are taken by length, so that a batch is padded little."""
        ids = [each.ids for each in self._tokenizer.encode_batch_fast([self._how["prompt"] + text for text in texts])]
        order = sorted(range(len(ids)), key=lambda number: -len(ids[number]))
        vectors = np.empty((len(ids), self._how["dim"]), dtype=np.float32)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            vectors[batch] = self._run([ids[number] for number in batch])
            if progress:
                progress(len(batch))
        return vectors

    def _run(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
        width = max(map(len, ids))
        padded = np.full((len(ids), width), self._how["pad_id"], dtype=np.int64)
        mask = np.zeros((len(ids), width), dtype=np.int64)
        for number, each in enumerate(ids):
            at = slice(width - len(each), width) if self._how["left_padding"] else slice(0, len(each))
            padded[number, at], mask[number, at] = each, 1
        given = {"input_ids": padded, "attention_mask": mask}
        return self._session.run(None, {name: value for name, value in given.items() if name in self._inputs})[0]


def read_export(export: Path) -> dict[str, Any]:
    """Return an export's manifest.

    Raises:
        UserError: there is none, or it is not one of ours.
    """
    try:
        about = json.loads((export / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{export}: is no export (it has no manifest.json)") from None
    except ValueError:
        raise UserError(f"{export / 'manifest.json'}: is not readable JSON; export the model again") from None
    if not isinstance(about, dict) or not {"state", "fingerprint"} <= about.keys():
        raise UserError(f"{export / 'manifest.json'}: is not an export's (it has no state and fingerprint)")
    return about
