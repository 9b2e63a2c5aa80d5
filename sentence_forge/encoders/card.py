"""Describe a model in its folder: facts for programs, and a model card for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentence_forge.runtime.errors import printable

ABOUT = "sentence_forge.json"
_TAGS = ["sentence-transformers", "sentence-similarity", "feature-extraction"]


def read_about(folder: Path) -> dict[str, Any]:
    """Return the facts that a run left in its model folder; an empty dict for a model that was not trained here."""
    file = folder / ABOUT
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def model_card(about: Mapping[str, Any]) -> str:
    """Return the README.md of a model folder.

    Args:
        about: ``dim``, ``max_length``, ``fingerprint``; ``training`` and ``measured`` where there was any;
            ``prompts`` by role; ``whole_dim`` where vectors are cut, ``dims`` where they may be; ``blend`` where the
            weights lie between those before the training and those after it.
    """
    from huggingface_hub import ModelCardData
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(loader=PackageLoader("sentence_forge.encoders"), autoescape=False, trim_blocks=True,
                            lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined)
    templates.filters["cell"] = _cell
    optional = dict.fromkeys(("training", "measured", "whole_dim", "dims", "blend"))
    training = about.get("training") or {}
    if "base" not in training:  # a run that hasn't ended has noted its best step, no more
        training = {}
    base = str(training.get("base", ""))
    on_the_hub = base.count("/") == 1 and not base.startswith((".", "/", "~")) and not Path(base).exists()
    head = ModelCardData(library_name="sentence-transformers", pipeline_tag="sentence-similarity", tags=_TAGS,
                         base_model=base if on_the_hub else None)
    return templates.get_template("card.md.j2").render(
        {**optional, **about, "training": training and {"before": None, **training}, "head": head.to_yaml(),
         "prompts": any(about.get("prompts", {}).values())})


def _cell(text: str) -> str:
    """Return a file's or a task's name so that Markdown shows it in a table as it is."""
    return printable(" ".join(text.split())).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
