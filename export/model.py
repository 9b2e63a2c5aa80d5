"""Write a model's part of an export: the folder, the ONNX files, and how near these come to torch."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from sentence_forge.data_readers.training_hashes import FILE as TRAINING_TEXTS
from sentence_forge.encoders.card import ABOUT, model_card, read_about
from sentence_forge.encoders.encoder import Encoder
from sentence_forge.encoders.fingerprint import INT8
from sentence_forge.encoders.onnx import TOKENIZER, OnnxVectors
from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.eval.geometry import calibration_pairs
from sentence_forge.eval.stats import spearman
from sentence_forge.eval.tasks.sts import Pairs, ScoredPairs
from sentence_forge.export import onnx_file
from sentence_forge.export.quantize import misses, write_int8
from sentence_forge.runtime.files import is_own_file, publish, sha256_file, staged_folder, write_atomic, write_json

log = logging.getLogger(__name__)


def write_model(encoder: Encoder, source: Path | None, out: Path, blend: Mapping[str, Any] | None = None) -> None:
    """Write ``out/model``: a folder that stock ``SentenceTransformer(path)`` loads, with its card.

    Args:
        encoder: the model.
        source: the folder it was loaded from; a run's records of its training there are copied.
        out: the export's folder.
        blend: how it was blended of the beginning and the end of its training, where it was.
    """
    about = read_about(source) if source is not None else {}
    with encoder.model.truncate_embeddings(None):
        whole = encoder.dim
    if encoder.dim < whole:
        about |= {"whole_dim": whole, "dims": [each for each in about.get("dims", []) if each <= encoder.dim]}
    about |= {"dim": encoder.dim, "max_length": encoder.max_length, "prompts": encoder.prompts,
              "fingerprint": encoder.fingerprint}
    if blend:
        about = {key: value for key, value in about.items() if key != "measured"} | {"blend": dict(blend)}
    with staged_folder(out / "model", replace=True) as folder:
        encoder.model.save_pretrained(str(folder), create_model_card=False)
        head = () if "whole_dim" in about else ("loss.safetensors", "loss.json")  # it takes uncut vectors
        for name in (*head, TRAINING_TEXTS):
            if source is not None and is_own_file(source / name):
                shutil.copy(source / name, folder / name)
        write_json(folder / ABOUT, about)
        write_atomic(folder / "README.md", model_card(about))


def write_onnx_files(encoder: Encoder, out: Path, data_dir: Path | None,
                     language: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write ``model.onnx`` and, where it keeps the meaning, ``model_int8.onnx``.

    Returns the manifest's entries by precision: of the files written, and of those left out with the reason.

    Each is compared with torch, from the text on, over scored pairs in the corpus's language: those of
    ``eval.geometry.calibration_pairs``, but STS benchmark's test pairs where ``data_dir`` has them.
    """
    name, pairs = scored_pairs(data_dir, language)
    texts = [*pairs.texts, " ".join(pairs.texts[:200])]  # the last one is cut at the model's length
    reference = encoder.encode(texts)
    file, quantized, staged = out / "model.onnx", out / "model_int8.onnx", out / ".tmp-model.onnx"
    for old in (file, quantized):
        old.unlink(missing_ok=True)
    try:
        onnx_file.write_onnx(encoder, staged)
    except onnx_file.Unavailable as reason:
        log.warning("no model.onnx: %s; search will use torch", reason)
        return {}, _without(str(reason))
    how = _how(encoder)
    for how["equal_lengths"] in (False, True):  # where padding disturbs a text, its batches hold one length only
        made = OnnxVectors(staged, out / TOKENIZER, how)(texts)
        parity = onnx_file.agreement(reference, made)
        if parity["max_difference"] <= onnx_file.MOST_DIFFERENCE:
            break
    if not parity["max_difference"] <= onnx_file.MOST_DIFFERENCE:
        differs = f"its vectors differ from torch's by {parity['max_difference']:.2g}"
        log.warning("no model.onnx: %s; search will use torch", differs)
        staged.unlink()
        return {}, _without(differs)
    publish(staged, file)
    log.info("model.onnx: differs from torch by %.1e at most, over %d texts of %s", parity["max_difference"],
             len(texts), name)
    scored = spearman_of(texts, made, pairs)
    about = {"fp32": {**how, **_files(out, file), "fingerprint": encoder.fingerprint, "measured_on": name,
                      "spearman_cosine": scored, **parity}}
    try:
        write_int8(file, staged)
        made = OnnxVectors(staged, out / TOKENIZER, how)(texts)
    except Exception as error:  # of onnxruntime's tools and kernels, which don't take every model
        staged.unlink(missing_ok=True)
        why = f"onnxruntime can't make it: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
        log.warning("no model_int8.onnx: %s", why)
        return about, {"int8": {"reason": why}}
    measured = _beside_fp32("model_int8.onnx", name, texts, pairs, made, reference, scored)
    if "reason" in measured:
        log.warning("no model_int8.onnx: %s, measured on %s", measured["reason"], name)
        staged.unlink()
        return about, {"int8": measured}
    publish(staged, quantized)
    about["int8"] = {**how, **_files(out, quantized), "fingerprint": encoder.fingerprint + INT8, **measured}
    return about, {}


def measured_in_bf16(encoder: Encoder, lower: TextEncoder, data_dir: Path | None, language: str) -> dict[str, Any]:
    """Return the manifest's entry on ``lower``, the model in bf16; it has a ``reason`` where it loses too much.

    The pairs are those of ``write_onnx_files``.
    """
    name, pairs = scored_pairs(data_dir, language)
    reference, made = (each.encode(pairs.texts) for each in (encoder, lower))
    return _beside_fp32("bf16", name, pairs.texts, pairs, made, reference,
                        spearman_of(pairs.texts, reference, pairs))


def _beside_fp32(which: str, name: str, texts: Sequence[str], pairs: Pairs, made: np.ndarray, reference: np.ndarray,
                 scored: float) -> dict[str, Any]:
    """Return the measures of a lower precision; with a ``reason`` where it loses too much against fp32's ``scored``."""
    found, parity = spearman_of(texts, made, pairs), onnx_file.agreement(reference, made)
    about = {"measured_on": name, "spearman_cosine": found, **parity}
    loss = misses(parity["mean_cosine"], found, scored)
    if loss is not None:
        return about | {"reason": loss}
    log.info("%s: Spearman %.2f (fp32 %.2f), mean cosine to fp32 %.4f, measured on %s", which, 100 * found,
             100 * scored, parity["mean_cosine"], name)
    return about


def _without(reason: str) -> dict[str, Any]:
    return {"fp32": {"reason": reason}, "int8": {"reason": f"there is no ONNX of it: {reason}"}}


def scored_pairs(data_dir: Path | None, language: str) -> tuple[str, Pairs]:
    """Return the name of the data that exported files are measured on, and its scored pairs."""
    task = ScoredPairs(folder="stsb", split="test")
    if language == "en" and data_dir is not None and task.locate(data_dir) is not None:
        return "stsb-test", task.read(data_dir)
    return calibration_pairs(data_dir, language)


def spearman_of(texts: Sequence[str], vectors: np.ndarray, pairs: Pairs) -> float:
    """Return the Spearman of the pairs' cosines; 0 for a model that gives every pair the same."""
    at = {text: number for number, text in enumerate(texts)}
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    left, right = ([at[text] for text in side] for side in (pairs.sentence1, pairs.sentence2))
    cosines = (unit[left] * unit[right]).sum(axis=1).astype(np.float64)
    return spearman(cosines, np.asarray(pairs.gold)) if np.ptp(cosines) > 0 else 0.0


def _how(encoder: Encoder) -> dict[str, Any]:
    """Return the manifest's keys that ``encoders.onnx.OnnxVectors`` reads."""
    chain = encoder.forward.chains["document"]
    return {"dim": encoder.dim, "max_length": encoder.max_length,
            "prompts": {"default": encoder.prompt(), **encoder.prompts},
            "special_tokens": not chain.static, "pad_id": chain.pad_id, "left_padding": chain.left_padding,
            "truncation_side": getattr(chain.tokenizer, "truncation_side", "right")}


def _files(out: Path, file: Path) -> dict[str, Any]:
    return {"file": file.name, "files": {name: sha256_file(out / name) for name in (file.name, TOKENIZER)}}


def cut(model: SentenceTransformer, dim: int, source: Path | None) -> None:
    """Cut a model's vectors to their first ``dim`` numbers; say so where it was not trained for that."""
    from sentence_forge.encoders.making.build import truncate

    truncate(model, dim)
    trained = read_about(source).get("dims", []) if source is not None else []
    if dim not in trained:
        log.warning("dim=%d: the model was not trained to be cut there%s; python -m eval model=... 'dims=[%d]' says "
                    "what that loses", dim, f", but to {', '.join(map(str, trained))}" if trained else
                    " (train with dims= does that)", dim)
