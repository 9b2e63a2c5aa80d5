"""Load model folders that old versions of sentence-transformers wrote."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Versions before 0.3 had a class for each family of transformers, where there is one for all today.
TRANSFORMERS = ("BERT", "RoBERTa", "DistilBERT", "ALBERT", "XLNet", "XLMRoBERTa", "CamemBERT", "T5")
NOW = "sentence_transformers.models.Transformer"


@contextmanager
def modern_layout(folder: Path) -> Iterator[Path]:
    """Give a folder that today's sentence-transformers loads: this one, or links to its files in today's layout.

    Args:
        folder: a sentence-transformers folder that ``making.safety`` has let pass; it isn't changed.
    """
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    old = [module for module in modules if is_old(str(module.get("type")))]
    if not old:
        yield folder
        return
    for module in old:
        module["type"] = NOW
    with tempfile.TemporaryDirectory() as made:
        for file in folder.iterdir():
            Path(made, file.name).symlink_to(file.resolve(), target_is_directory=file.is_dir())
        Path(made, "modules.json").unlink()
        Path(made, "modules.json").write_text(json.dumps(modules), encoding="utf-8")
        yield Path(made)


def is_old(kind: str) -> bool:
    """Whether a module's type is one of the classes for a family."""
    package, _, name = kind.rpartition(".")
    return package == "sentence_transformers.models" and name in TRANSFORMERS
