"""Keep every module under one name: ``sentence_forge.losses``, never also ``losses``.

In a checkout the folders of the package lie at the top level, and ``sentence_forge/`` holds links to them. Imported as
``losses``, a module would be a second copy, whose classes ``isinstance`` does not recognise. Only ``python -m train``
and its like may use a short name, which is given up as soon as the command starts.
"""

from __future__ import annotations

import sys
from importlib import import_module
from os.path import realpath
from types import ModuleType
from typing import Any

PACKAGE = "sentence_forge"
LINKED = ("configs", "data_readers", "eval", "export", "losses", "search", "train")


def refuse_short_name(name: str) -> None:
    """Refuse an import of one of our folders without the package's name before it.

    Args:
        name: the ``__name__`` of the module that calls.

    Raises:
        ImportError: the module is imported as ``train``, say, and not by ``python -m train``.
    """
    if name.startswith(f"{PACKAGE}.") or sys.argv[:1] == ["-m"]:  # what argv holds while -m looks for its module
        return
    raise ImportError(f"error: {name}: a folder of sentence-forge; import {PACKAGE}.{name}, or run python -m "
                      f"{PACKAGE}.{name} in debuggers and profilers", name=name)


def callable_package(name: str, function: str) -> None:
    """Let a package be called, so that ``sf.train(...)`` trains although ``sentence_forge.train`` is a package.

    Args:
        name: the package's ``__name__``.
        function: what its module ``api`` calls it.
    """
    class Package(ModuleType):
        def __call__(self, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - those of the function
            return getattr(import_module(f"{name}.api"), function)(*arguments, **keywords)

    sys.modules[name].__class__ = Package


def drop_short_names() -> None:
    """Forget the packages that ``python -m train`` imported to find its ``__main__``, so that none is used twice."""
    for name in LINKED:
        if f"{PACKAGE}.{name}" in sys.modules and _file(name) == _file(f"{PACKAGE}.{name}"):
            del sys.modules[name]


def _file(name: str) -> str | None:
    file = getattr(sys.modules.get(name), "__file__", None)
    return realpath(file) if file else None
