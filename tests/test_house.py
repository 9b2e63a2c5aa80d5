"""The house's rules: who may import whom, no YAML that drifts from the code, start-up without heavy imports."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from mutations import MUTATIONS
from omegaconf import OmegaConf

from sentence_forge.configs import schema
from sentence_forge.runtime import targets
from sentence_forge.runtime.overrides import friendly, options

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sentence_forge"
MAY_IMPORT = {
    "runtime": set(),
    "configs": {"runtime"},
    "data_readers": {"runtime"},
    "losses": {"runtime"},
    "encoders": {"runtime"},
    "eval": {"runtime", "configs", "data_readers", "encoders", "losses"},
    "search": {"runtime", "configs", "data_readers", "encoders", "losses", "eval"},  # of eval the pages' templates
    "train": {"runtime", "configs", "data_readers", "encoders", "losses", "eval", "search"},  # to mine hard negatives
    "export": {"runtime", "configs", "data_readers", "encoders", "losses", "eval", "search"},
}
# who composes a config registers its typed skeleton; both lie on floor 0
ALLOWED_BACK = {("sentence_forge/runtime/cli.py", "configs"), ("sentence_forge/runtime/call.py", "configs"),
                }


def imported_names(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def our_imports(file: Path) -> set[str]:
    parts = [name.split(".") for name in imported_names(file)]
    return {part[1] for part in parts if part[0] == "sentence_forge" and len(part) > 1} & set(MAY_IMPORT) | {
        part[0] for part in parts if part[0] in ("bench", "tests")}


def files_of(package: str) -> list[Path]:
    return sorted((PACKAGE / package).resolve().rglob("*.py"))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_stands_below_it(package: str) -> None:
    wrong = []
    for file in files_of(package):
        for imported in our_imports(file) - MAY_IMPORT[package] - {package}:
            if (file.relative_to(ROOT).as_posix(), imported) not in ALLOWED_BACK:
                wrong.append(f"{file.relative_to(ROOT)} imports {imported}")
    assert not wrong


def test_every_import_of_ours_has_the_package_s_name_before_it() -> None:
    folders = [file for package in MAY_IMPORT for file in files_of(package)]
    folders += [*(ROOT / "tests").glob("*.py"), *(ROOT / "bench").glob("*.py"), *(ROOT / "examples").glob("*.py")]
    bare = [f"{file.relative_to(ROOT)}: {name}" for file in folders for name in imported_names(file)
            if name.partition(".")[0] in MAY_IMPORT]
    assert not bare


GROUPS = ("model", "loss", "data", "suite", "corpus", "baseline", "experiment", "cluster", "to")
EVERY_OPTION = [(group, name) for group in GROUPS for name in options(group)]
OFFERED = {"dim", "labels", "teacher_dim", "texts", "rows", "text_ids", "batch_size", "seed"}


def nodes(config: object, path: str = "") -> list[tuple[str, dict]]:
    if not isinstance(config, dict):
        return []
    here = [(path, config)] if targets.TARGET in config else []
    return here + [each for key, value in config.items() for each in nodes(value, f"{path}.{key}")]


@pytest.mark.parametrize(("group", "name"), EVERY_OPTION)
def test_every_yaml_composes_and_binds_to_what_it_names(group: str, name: str) -> None:
    schema.register()
    command = {"corpus": "export", "cluster": "export", "to": "export", "baseline": "eval"}.get(group, "train")
    with initialize_config_module("sentence_forge.configs", version_base="1.3"):
        config = OmegaConf.to_container(compose(command, [f"{group}={name}"]), resolve=False)
    for key, node in nodes(config):
        target = targets.resolve(node[targets.TARGET], key)
        given = set(node) - {targets.TARGET, "shapes", "sampler", "teacher"}
        signature = inspect.signature(target)
        assert given <= set(signature.parameters), (key, given - set(signature.parameters))
        needed = {n for n, p in signature.parameters.items() if p.default is p.empty}
        assert needed <= given | OFFERED, (key, needed - given)


@pytest.mark.parametrize("name", [name for name in options("model") if name != "folder"])
def test_every_model_is_a_baseline_by_its_name(name: str) -> None:
    schema.register()
    with initialize_config_module("sentence_forge.configs", version_base="1.3"):
        config = OmegaConf.to_container(compose("eval", friendly([f"model={name}", f"baseline={name}"])), resolve=True)
    assert config["baseline"] == config["model"] is not None


@pytest.mark.parametrize("target", [
    "os.system", "builtins.eval", "pandas.read_pickle", "joblib.load", "subprocess.run", "torch.load", "shutil.rmtree",
    "losses.cosine.torch", "losses.base.nn.Module", "encoders.build.locate.__globals__", "train.loop.signal.signal",
    "importlib.import_module", "runtime.files.shutil.rmtree", "losses", "", "losses.cosine.Cosine.__init__",
    "train.checkpoint.prune", "train.tracking.Tracker", "train.__main__.main", "encoders.similarity.normalise",
    "data_readers.delimited.csv.reader", "hydra.utils.instantiate", "eval", "numpy.load",
])
def test_a_hostile_target_is_refused(target: str) -> None:
    with pytest.raises(targets.UserError, match="_target_"):
        targets.build({"_target_": target, "path": "x"}, "data")


def test_measuring_never_imports_telling() -> None:
    commands = {"cli.py", "api.py", "compare.py"}
    wrong = [str(file.relative_to(ROOT)) for file in files_of("eval")
             if file.name not in commands and file.parent.name != "report"
             and any(name.startswith("sentence_forge.eval.report") for name in imported_names(file))]
    assert not wrong


def test_a_saved_run_s_tasks_are_found_where_they_moved_to() -> None:
    for name in ("eval.sts.ScoredPairs", "eval.nli.NLI", "eval.retrieval.KnownItem"):
        assert targets.resolve(name, "suite.x").__module__ == f"sentence_forge.eval.tasks.{name.split('.')[1]}"


@pytest.mark.parametrize("package", ["train", "eval", "export", "search"])
def test_help_answers_at_once(package: str) -> None:
    code = f"""
import sys
sys.argv = ["x", "--help"]
try:
    import sentence_forge.{package}.cli
    sys.exit(sentence_forge.{package}.cli.main())
except SystemExit as leaving:
    assert not leaving.code, leaving.code
heavy = {{"torch", "transformers", "sentence_transformers", "datasets", "pandas", "scipy", "faiss", "jinja2", "fastapi",
         "sqlite3"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert f"python -m {package}" in done.stdout


def test_files_have_40_to_250_lines_and_functions_at_most_60() -> None:
    wrong = []
    for file in [each for package in MAY_IMPORT for each in files_of(package)]:
        text = file.read_text(encoding="utf-8")
        least = 1 if file.name in ("__init__.py", "__main__.py") else 40  # those name a package and start a command
        if not least <= (lines := len(text.splitlines())) <= 250:
            wrong.append(f"{file.relative_to(ROOT)}: {lines} lines")
        wrong += [f"{file.relative_to(ROOT)}: {node.name} has {lines} lines" for node in ast.walk(ast.parse(text))
                  if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                  and (lines := (node.end_lineno or 0) - node.lineno + 1) > 60]
    assert not wrong


@pytest.mark.parametrize(("before", "now"), targets.MOVED.items())
def test_a_moved_module_is_found_by_its_former_name(before: str, now: str) -> None:
    """Configs of saved runs name it."""
    names = [name for module, _, name in (each.rpartition(".") for each in targets.known_targets())
             if module == f"sentence_forge.{now}"]
    assert names
    for name in names:
        assert targets.resolve(f"{before}.{name}", "model") is targets.resolve(f"{now}.{name}", "model")


def test_every_mutant_is_a_change_of_the_code_as_it_is() -> None:
    """``make mutants`` runs rarely: what it changes is held to the code here."""
    lost = [(each.file, each.right) for each in MUTATIONS if (ROOT / each.file).read_text().count(each.right) != 1]
    assert not lost
