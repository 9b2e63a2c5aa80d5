"""Run a command's job from Python: with the words of the command line, without leaving the process."""

from __future__ import annotations

import contextlib
import copy
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from sentence_forge.runtime.disk import shortage
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.overrides import friendly, quoted

if TYPE_CHECKING:
    from omegaconf import DictConfig

T = TypeVar("T")
_ONE_AT_A_TIME = threading.RLock()  # Hydra's state is the process's


def call(command: str, job: Callable[[DictConfig], T], words: Sequence[str]) -> T:
    """Run a job on the config that ``python -m <command> <words>`` would compose.

    Hydra's state and ``sys.argv`` are restored afterwards; logging is left alone. Calls from several threads wait for
    one another.

    Args:
        command: ``train``, ``eval`` or ``export``.
        job: what the command runs; it finds Hydra's own config as under ``hydra.main``.
        words: overrides as typed, such as ``loss=mnrl`` and ``data=pairs.csv``.

    Returns:
        What the job returns.

    Raises:
        UserError: the line that the command would print after ``error:``.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from sentence_forge.runtime.explain import explained

    for word in words:
        if not isinstance(word, str):
            raise UserError(f"overrides are strings such as 'loss=mnrl', not {type(word).__name__}; rows and paths are "
                            "given by a keyword such as data=")
        if word.startswith("-") or ("=" not in word and not word.startswith("~")):
            raise UserError(f"{word!r}: give overrides such as 'loss=mnrl'; flags are for the command line")
    arguments = friendly(words)
    with _ONE_AT_A_TIME:
        try:
            with _composed(command, arguments) as config:
                return job(config)
        except (HydraException, OmegaConfBaseException) as error:
            raise explained(error, command, arguments) from None
        except (OSError, MemoryError, RuntimeError) as error:
            if (line := shortage(error)) is None:
                raise
            raise UserError(line) from error


@contextlib.contextmanager
def _composed(command: str, arguments: list[str]) -> Iterator[DictConfig]:
    """Compose a config and stand in for ``hydra.main``, which ends the process and sets up logging."""
    from hydra import compose
    from hydra.core.hydra_config import HydraConfig
    from hydra.initialize import initialize_config_module
    from hydra.types import RunMode
    from omegaconf import open_dict, read_write

    from sentence_forge.configs import schema
    from sentence_forge.runtime.trust import check_trust

    schema.register()
    argv, before = sys.argv, HydraConfig.instance().cfg
    with initialize_config_module("sentence_forge.configs", version_base="1.3"):
        config = compose(command, arguments, return_hydra_config=True)
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.mode = RunMode.RUN
            config.hydra.runtime.output_dir = str(Path(config.hydra.run.dir).absolute())
        Path(config.hydra.runtime.output_dir).mkdir(parents=True, exist_ok=True)
        try:
            sys.argv = [f"python -m {command}", *arguments]
            HydraConfig.instance().set_config(config)
            own = copy.deepcopy(config)
            with read_write(own), open_dict(own):
                del own["hydra"]
            check_trust(own, config.hydra.overrides.task)
            yield own
        finally:
            sys.argv = argv
            HydraConfig.instance().cfg = before


@runtime_checkable
class HasFolder(Protocol):
    """Anything with a folder that holds a model, such as a finished training."""

    @property
    def folder(self) -> Path:
        """A run, an export, or a model folder."""
        ...


def model_path(model: object) -> str:
    """Return what ``model=`` takes for a model that a caller gave by its name, its path or its run.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(model, str | Path):
        return str(model)
    if isinstance(model, HasFolder):
        return str(model.folder)
    raise UserError(f"{type(model).__name__} is no model; give a folder, a name, a run or an Encoder")


def check_path(value: object, key: str, also: str = "") -> None:
    """Refuse what is neither a string nor a path.

    Args:
        value: as a caller gave it.
        key: what the error calls it.
        also: ends the advice: what else is taken, or what the path is of.

    Raises:
        UserError: says what is taken; also for an empty string.
    """
    if not isinstance(value, str | Path):
        raise UserError(f"{key}: is of type {type(value).__name__}; give a path or a name as a string{also}")
    if not str(value).strip():
        raise UserError(f"{key}: is empty; give a path or a name{also}")


def words_of(keywords: Mapping[str, Any]) -> list[str]:
    """Write keyword arguments as overrides.

    Raises:
        UserError: a value is neither text, a number, None nor a list or mapping of such; names its key.

    >>> words_of({"loss": "mnrl", "loop": {"epochs": 1}, "data_dir": None, "plugins": ["mine"]})
    ['loss=mnrl', 'loop.epochs=1', 'data_dir=null', "plugins=['mine']"]
    """
    words = []
    for key, value in keywords.items():
        if isinstance(value, Mapping):
            words += [f"{key}.{name}={_word(below, f'{key}.{name}')}" for name, below in value.items()]
        else:
            words.append(f"{key}={_word(value, key)}")
    return words


def _word(value: Any, key: str) -> str:  # noqa: ANN401 - whatever a caller gives
    return str(value) if isinstance(value, str | Path) else _literal(value, key)  # a name, a path: as one would type it


def _literal(value: Any, key: str) -> str:  # noqa: ANN401 - whatever a caller gives
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Path):
        return quoted(str(value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_literal(below, key)}" for name, below in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(each, key) for each in value) + "]"
    if isinstance(value, Number):
        return str(value)
    raise UserError(f"{key}: is of type {type(value).__name__}; give a name, a number, a list or a mapping")
