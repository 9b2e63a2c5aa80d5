"""Check an index: checksums, counts, ids, unit vectors, the recall of the fast index, and the export around it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sentence_forge.encoders.fingerprint import query_fingerprint
from sentence_forge.encoders.similarity import VectorRows, bad_row
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.manifests import read_manifest
from sentence_forge.search.encoder import check_fingerprint
from sentence_forge.search.fast import CELLS_RECALL, RECALL, FastIndex, recall_at_10, sample_queries
from sentence_forge.search.generation import SEGMENTS, Generation, index_folder, numbers, read_generation
from sentence_forge.search.shards import Shard
from sentence_forge.search.vectors import as_read

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
    checked: Generation | None = None
    seen: set[int] = set()
    most = len(numbers(index)) + 3  # a writer may add some meanwhile, and perhaps faster than they are read
    while (left := [number for number in numbers(index) if number not in seen]) and len(seen) < most:
        number = left[0]
        seen.add(number)
        try:
            generation = read_generation(index, number)
            if checked is None or number > checked.number:
                checked = generation
            found = [f"{path}: damaged, its bytes differ from the manifest's sha256" for path in generation.damaged()]
            # A damaged file is not checked further; it may not even be readable.
            found = found or _contradictions(generation)
        except (UserError, FileNotFoundError) as error:
            found = [str(error)]
        problems += found if number in numbers(index) else []  # else a writer has removed it meanwhile
    for segment in sorted((index / SEGMENTS).glob("[0-9a-f]*")):
        try:
            read_manifest(segment)
        except UserError as error:
            problems += [str(error)] if segment.exists() else []
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
    import pyarrow.compute as pc

    problems: list[str] = []
    try:
        ids = generation.read_rows(["id", "title"])["id"]
        for shard in generation.shards:
            problems += _shard_problems(shard, generation.manifest["dim"])
    except UserError as error:
        return [str(error)]
    if repeated := len(ids) - pc.count_distinct(ids).as_py():
        problems.insert(0, f"{generation.shards[0].rows}: {repeated} ids repeat")
    return problems


def _shard_problems(shard: Shard, dim: int) -> list[str]:
    vectors, problems = as_read(shard.map_vectors(dim)), []
    for start in range(0, len(vectors), _BLOCK):
        block = np.asarray(vectors[start:start + _BLOCK])
        bad = bad_row(block)
        if bad is not None:
            problems.append(f"{shard.vectors}: row {start + bad[0]} {bad[1]}")
            continue
        length = np.sqrt(np.einsum("nd,nd->n", block, block, dtype=np.float64))
        wrong = np.flatnonzero(np.abs(length - 1) > _UNIT)
        if len(wrong):
            problems.append(f"{shard.vectors}: row {start + wrong[0]} has length {length[wrong[0]]:.6f}, not 1")
    if shard.about is not None and not problems:
        problems += _fast_problems(shard, shard.about, vectors)
    return problems


def _fast_problems(shard: Shard, about: Mapping[str, Any], vectors: VectorRows) -> list[str]:
    try:
        fast = FastIndex.load(shard.fast, vectors, about)
    except UserError as error:
        return [str(error)]
    recall = recall_at_10(fast, *sample_queries(vectors))
    least = CELLS_RECALL if "cells" in about else RECALL
    if recall < least:
        return [f"{shard.fast}: recall@10 {recall:.4f} against the exact scan, under {least}"]
    return []
