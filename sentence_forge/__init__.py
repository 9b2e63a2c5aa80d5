"""Fine-tune sentence embeddings, see whether they got better, export them, index a corpus and search it.

>>> import sentence_forge as sf
>>> run = sf.train("loss=mnrl", "data=pairs.csv", "loop.epochs=1")      # doctest: +SKIP
>>> sf.evaluate(run, baseline="minilm", suite="sts", data_dir="public")  # doctest: +SKIP
>>> sf.export(run, corpus="titles.csv", out="news")                     # doctest: +SKIP
>>> with sf.Index.open("news") as index:                                # doctest: +SKIP
...     index.search(["winter air"], k=10)

Every name below is loaded when it is first used, so that the import alone takes no time.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentence_forge.api import load, read
    from sentence_forge.encoders.encoder import Encoder
    from sentence_forge.eval.api import evaluate
    from sentence_forge.eval.report.report import Report
    from sentence_forge.export.api import export
    from sentence_forge.losses.base import Loss
    from sentence_forge.runtime.errors import UserError
    from sentence_forge.search.index import Index
    from sentence_forge.train.api import train

# Official builds of ONNX Runtime, from 1.29 on, tell their makers about every model unless this is set
# (https://github.com/microsoft/onnxruntime, docs/Privacy.md). Nothing of yours leaves this machine unasked.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_MODULES = {
    "train": "train.api", "evaluate": "eval.api", "export": "export.api", "load": "api", "read": "api",
    "Encoder": "encoders.encoder", "Index": "search.index", "Loss": "losses.base", "Report": "eval.report.report",
    "UserError": "runtime.errors",
}
__all__ = ["Encoder", "Index", "Loss", "Report", "UserError", "evaluate", "export", "load", "losses", "read", "train"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a function, a class or a package
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    if name == "losses":
        return import_module(f"{__name__}.losses")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
