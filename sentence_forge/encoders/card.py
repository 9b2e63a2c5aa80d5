"""What a model folder says of itself: facts for programs, a card for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ABOUT = "sentence_forge.json"


def read_about(folder: Path) -> dict[str, Any]:
    """Return the facts a run left in its model folder; an empty dict for a model that was not trained here."""
    file = folder / ABOUT
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def model_card(about: Mapping[str, Any]) -> str:
    """Return the README.md of a model folder.

    Args:
        about: ``dim``, ``max_length``, ``fingerprint``; ``training`` and ``measured`` where there was any;
            ``prompts`` by role; ``whole_dim`` where vectors are cut, ``dims`` where they may be.
    """
    training, measured = about.get("training"), about.get("measured")
    length = "" if about["max_length"] is None else f" of up to {about['max_length']} tokens"
    lines = [
        "---", "library_name: sentence-transformers", "pipeline_tag: sentence-similarity", "tags:",
        "- sentence-transformers", "- sentence-similarity", "- feature-extraction", "---", "",
        "# A sentence embedding model", "",
        f"Maps a text{length} to a vector of {about['dim']} numbers; "
        "texts of like meaning have a high cosine.", "",
        "```python", "from sentence_transformers import SentenceTransformer", "",
        'model = SentenceTransformer("this folder")', 'vectors = model.encode(["a text", "another"])', "```", "",
    ]
    if any(about.get("prompts", {}).values()):
        lines += ["Queries and documents have prompts of their own, which `model.encode_query` and "
                  "`model.encode_document` put before them.", ""]
    if whole := about.get("whole_dim"):
        lines += [f"Vectors are cut to the first {about['dim']} of {whole} numbers; `encode(..., "
                  "normalize_embeddings=True)` gives them length 1 again. What is measured below is of whole ones.", ""]
    elif dims := about.get("dims"):
        lines += [f"Trained so that vectors can be cut to {', '.join(map(str, dims))} numbers: "
                  f'`SentenceTransformer("this folder", truncate_dim={dims[-1]})`.', ""]
    if training:
        lines += [
            "## Training", "",
            f"From `{training['base']}` by sentence-forge: loss {training['loss']}, {training['rows']} rows "
            f"({training['shape']}), {training['steps']} steps of {training['batch_size']} rows, learning rate "
            f"{training['learning_rate']:g}, seed {training['seed']}; the weights are those of step "
            f"{training['best_step']}, the best by dev {training['measure']}: {training['after']:.4f}"
            + (f" ({training['before']:.4f} before)." if training.get("before") is not None else "."), "",
            "| data | sha256 |", "|---|---|",
            *(f"| {data['name']} | `{data['sha256'][:16]}…` |" for data in training["data"]), "",
        ]
    if measured:
        lines += ["## Measured", "", "| task | measure | x 100 |", "|---|---|---|",
                  *(f"| {task} | {found['measure'].replace('_', ' ')} | {100 * found['value']:.2f} |"
                    for task, found in measured.items()), ""]
    lines += [f"Fingerprint (sha256 of weights, tokenizer, modules, prompts, precision): `{about['fingerprint']}`", ""]
    return "\n".join(lines)
