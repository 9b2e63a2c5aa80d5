"""Check an index: checksums, counts, ids, unit vectors, the recall of the fast index, and the export around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sentence_forge.encoders.fingerprint import query_fingerprint
from sentence_forge.encoders.similarity import bad_row
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.manifests import read_manifest
from sentence_forge.search.encoder import check_fingerprint
from sentence_forge.search.fast import CELLS_RECALL, RECALL, FastIndex, recall_at_10, sample_queries
from sentence_forge.search.generation import SEGMENTS, Generation, index_folder, numbers, read_generation

_BLOCK = 65_536
_UNIT = 1e-5


def verify(folder: str | Path) -> list[str]:
    """Check every generation of an index, the segments of a run that was cut short, and the export's model.

    An index without an export around it is checked alone.

    Args:
        folder: an export's output folder, or the ``index`` folder in it.

    Returns:
        One line a problem; empty if all is well.

    Raises:
        UserError: there is no index.
    """
    index = index_folder(folder)
    problems: list[str] = []
    checked = None
    for number in numbers(index):
        try:
            generation = read_generation(index, number)
        except UserError as error:
            problems.append(str(error))
            continue
        checked = checked or generation
        damaged = [f"{path}: damaged, its bytes differ from the manifest's sha256" for path in generation.damaged()]
        # A damaged file is not checked further; it may not even be readable.
        problems += damaged or _contradictions(generation)
    for segment in sorted((index / SEGMENTS).glob("[0-9a-f]*")):
        try:
            read_manifest(segment)
        except UserError as error:
            problems.append(str(error))
    export = index.parent
    if (export / "manifest.json").is_file() or (index != Path(folder) and (export / "model").is_dir()):
        problems += _export_problems(export, checked)
    return problems


def _export_problems(export: Path, generation: Generation | None) -> list[str]:
    """Return what is wrong with an export's manifest, ONNX files and model, each as a search would refuse it.

    Args:
        export: the folder.
        generation: the newest one whose manifest is intact; its vectors must be the model's.
    """
    from sentence_forge.encoders.encoder import load_encoder
    from sentence_forge.encoders.onnx import check_files, read_export

    problems = []
    try:
        about = read_export(export)
        files = (about.get("onnx") or {}).values()
        for each in files:
            try:
                check_files(export, each["files"])
            except UserError as error:
                problems.append(str(error))
        if not problems and generation is not None:
            asked = query_fingerprint(generation.manifest["fingerprint"])
            if asked not in {each["fingerprint"] for each in files}:
                check_fingerprint(export, asked, about["fingerprint"])
            check_fingerprint(generation.folder, about["fingerprint"], load_encoder(export / "model").fingerprint)
    except UserError as error:
        problems.append(str(error))
    return list(dict.fromkeys(problems))  # the precisions share a tokenizer


def _contradictions(generation: Generation) -> list[str]:
    """Return where a generation's intact files contradict one another or the manifest."""
    about = generation.manifest
    try:
        ids, vectors = generation.read_rows(["id", "title"])["id"].to_pylist(), generation.map_vectors()
    except UserError as error:
        return [str(error)]
    problems = []
    if len(set(ids)) != len(ids):
        problems.append(f"{generation.rows}: {len(ids) - len(set(ids))} ids repeat")
    for start in range(0, len(vectors), _BLOCK):
        block = np.asarray(vectors[start:start + _BLOCK])
        bad = bad_row(block)
        if bad is not None:
            problems.append(f"{generation.vectors}: row {start + bad[0]} {bad[1]}")
            continue
        length = np.sqrt(np.einsum("nd,nd->n", block, block, dtype=np.float64))
        wrong = np.flatnonzero(np.abs(length - 1) > _UNIT)
        if len(wrong):
            problems.append(f"{generation.vectors}: row {start + wrong[0]} has length {length[wrong[0]]:.6f}, not 1")
    if about["fast"] is not None and not problems:
        problems += _fast_problems(generation, np.asarray(vectors))
    return problems


def _fast_problems(generation: Generation, vectors: np.ndarray) -> list[str]:
    try:
        fast = FastIndex.load(generation.fast, vectors, generation.manifest["fast"])
    except UserError as error:
        return [str(error)]
    recall = recall_at_10(fast, *sample_queries(vectors))
    least = CELLS_RECALL if "cells" in generation.manifest["fast"] else RECALL
    if recall < least:
        return [f"{generation.fast}: recall@10 {recall:.4f} against the exact scan, under {least}"]
    return []
