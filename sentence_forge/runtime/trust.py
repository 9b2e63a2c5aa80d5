"""The settings that decide which code runs: taken from the command line, never from a YAML file.

A YAML file of somebody else (``--config-dir``, a run that is gone on with) is data, like a model's weights. It must not
be able to import a package, to let a model's own code run, or to have Hydra instantiate a class.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Keys below hydra. that a YAML file may set: names of folders, what a sweep varies, and what Hydra itself fills in.
_FREE = ("hydra.searchpath", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.sweeper.params",
         "hydra.sweeper.max_batch_size", "hydra.mode", "hydra.verbose", "hydra.job.name", "hydra.job.num",
         "hydra.job.id", "hydra.job.config_name", "hydra.job.override_dirname", "hydra.job.config.override_dirname",
         "hydra.runtime", "hydra.overrides", "hydra.help", "hydra.hydra_help")
_OUR_SOURCES = ("hydra", "main", "schema")
_OURS = "sentence_forge.configs"


def check_trust(config: DictConfig | Mapping[str, Any], overrides: Iterable[str], source: str = "") -> None:
    """Refuse ``plugins`` and ``trust_remote_code`` that were not typed.

    Args:
        config: the composed config, or one that a run has saved.
        overrides: those of the command line.
        source: the file that the config is from, for messages.

    Raises:
        UserError: names the key and what to type.
    """
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(config, resolve=False) if OmegaConf.is_config(config) else config
    typed = {override.partition("=")[0].lstrip("+") for override in overrides}
    where = f"{source}: " if source else ""
    assert isinstance(plain, Mapping)
    plugins = plain.get("plugins")
    if plugins and "plugins" not in typed:
        listed = ",".join(map(str, plugins)) if isinstance(plugins, list | tuple) else str(plugins)
        raise UserError(f"{where}plugins: is [{listed}], whose code would run, so it is taken from the command line "
                        f"alone; type 'plugins=[{listed}]' if you trust it")

    def look(node: Any, path: str) -> None:  # noqa: ANN401 - a mapping or a list
        for name, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            key = f"{path}{name}"
            if name == "trust_remote_code" and value not in (False, None) and key not in typed:
                raise UserError(f"{where}{key}: runs code that a model brings along, so it is taken from the command "
                                f"line alone; type {key}=true there if you trust it")
            if isinstance(value, Mapping | list):
                look(value, f"{key}.")

    look(plain, "")


@contextlib.contextmanager
def hydra_checked(config_name: str) -> Iterator[None]:
    """Check each config that Hydra composes within the block, before Hydra instantiates anything that it names.

    Callbacks, launchers, sweepers and logging handlers are classes that Hydra makes from the node ``hydra`` before a
    job starts. Hydra offers no place to look at that node first, so its loader is wrapped here.

    Args:
        config_name: our own primary config, such as ``train``.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    load = ConfigLoaderImpl.load_configuration

    def checked(self: ConfigLoaderImpl, *args: Any, **kwargs: Any) -> DictConfig:  # noqa: ANN401 - Hydra's
        config = load(self, *args, **kwargs)
        foreign = _foreign_sources(config)
        if foreign:
            _check_hydra_node(config, config_name, foreign)
        return config

    ConfigLoaderImpl.load_configuration = checked  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign]


def _foreign_sources(config: DictConfig) -> list[str]:
    """Return the folders and packages besides Hydra's and ours that a config was composed of."""
    return [f"{source.schema}://{source.path}" for source in config.hydra.runtime.config_sources
            if source.provider not in _OUR_SOURCES or (source.provider == "main" and source.path != _OURS)]


def _check_hydra_node(config: DictConfig, config_name: str, foreign: Collection[str]) -> None:
    """Compare the node ``hydra`` with the one that our own YAML and the command line's overrides give.

    Raises:
        UserError: a key differs.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    def advice(key: str) -> str:
        return (f"{key}: decides which code runs, so it is taken from the command line and never from a YAML of "
                f"{', '.join(foreign)}; take it out there, or type it")

    typed = [each for each in config.hydra.overrides.hydra if not each.lstrip("+~").startswith("hydra.searchpath")]
    try:
        own = ConfigLoaderImpl(create_config_search_path(f"pkg://{_OURS}"))._load_configuration_impl(
            config_name, typed, RunMode.MULTIRUN, validate_sweep_overrides=False)
    except HydraException as error:
        raise UserError(advice(next(iter(typed), "hydra")) + f" ({str(error).splitlines()[0]})") from None
    ours, theirs = ({key: value for key, value in _leaves(OmegaConf.to_container(each.hydra, resolve=False), "hydra")}
                    for each in (own, config))
    for key in sorted(ours.keys() | theirs.keys()):
        if not any(key == free or key.startswith(f"{free}.") for free in _FREE) and ours.get(key) != theirs.get(key):
            raise UserError(advice(key))


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - what YAML holds
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _leaves(value, f"{path}.{name}")
    elif node is not None:
        yield path, node
