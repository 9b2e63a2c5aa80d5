"""The wheel: one package, built, installed in a fresh environment, used from folders full of clashing names."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = ("train", "eval", "export", "search")
COMPOSE = """
from importlib import resources
from pathlib import Path
import sentence_forge.configs
from hydra import compose, initialize_config_module
from sentence_forge.configs import schema
from sentence_forge.runtime.overrides import options
folder = Path(sentence_forge.configs.__file__).parent
assert "site-packages" in str(folder), folder
schema.register()
count = 0
with initialize_config_module("sentence_forge.configs", version_base="1.3"):
    for group in sorted(each.name for each in folder.iterdir() if each.is_dir()):
        for name in options(group):
            command = {"corpus": "export", "cluster": "export", "to": "export", "baseline": "eval"}.get(group, "train")
            compose(command, [f"{group}={name}"])
            count += 1
assert count > 20, count
sample = resources.files("sentence_forge.data_readers") / "sample"
assert (sample / "zh" / "titles.csv").is_file() and (sample / "LICENSE").is_file()
assert (resources.files("sentence_forge.eval.report") / "templates" / "base.html.j2").is_file()
from sentence_forge.data_readers.titles import read_corpus
assert len(read_corpus(sample / "en" / "titles.csv").ids) == 420
"""


class Installed(NamedTuple):
    """A wheel of this checkout and an environment that has it."""

    wheel: Path
    bin: Path

    def run(self, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run([self.bin / command[0], *command[1:]], cwd=cwd, env=environment, capture_output=True,
                              text=True, check=False)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
                             check=True).stdout.splitlines()
    for name in tracked:  # a copy, so that no build folder is left in the tree, nor used
        if (ROOT / name).is_symlink():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).symlink_to(os.readlink(ROOT / name))
        elif (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(source)], check=True,
                   capture_output=True)
    (wheel,) = folder.glob("*.whl")
    home = folder / "venv"
    venv.create(home, with_pip=True)
    pip = [home / "bin" / "python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt"]
    subprocess.run([*pip, "--no-deps", wheel], check=True, capture_output=True)
    subprocess.run([*pip, "hydra-core"], check=True, capture_output=True)
    return Installed(wheel, home / "bin")


@pytest.fixture
def clashing(tmp_path: Path) -> Path:
    """A folder with the user's own train.py, eval.py, ..., losses/ and configs/, which end the process if imported."""
    for name in ("train", "eval", "export", "search", "runtime", "encoders"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the user\\'s {name}.py was run')\n")
    for name in ("losses", "configs", "data_readers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('the user\\'s {name} was imported')\n")
    (tmp_path / "configs" / "train.yaml").write_text("nothing: true\n")
    return tmp_path


def test_a_wheel_holds_one_package(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = wheel.namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"sentence_forge"}
    assert {"sentence_forge/py.typed", "sentence_forge/losses/mnrl.py", "sentence_forge/configs/train.yaml",
            "sentence_forge/data_readers/sample/LICENSE"} <= set(names)
    ours = {str(file.relative_to(ROOT)) for folder in (ROOT / "sentence_forge").iterdir() if folder.is_dir()
            for file in folder.rglob("*") if file.suffix in (".py", ".yaml", ".csv", ".j2", ".css", ".js")}
    assert ours <= set(names)


def test_a_wheel_works_from_a_folder_full_of_clashing_names(installed: Installed, clashing: Path,
                                                            tmp_path_factory: pytest.TempPathFactory) -> None:
    done = installed.run("python", "-c", COMPOSE, cwd=tmp_path_factory.mktemp("elsewhere"))
    assert done.returncode == 0, done.stderr
    check_commands(installed, clashing)
    wrong = installed.run("forge-train", "loss=mnr", cwd=clashing)
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: loss=mnr: there is no loss"), wrong.stderr


def check_commands(installed: Installed, cwd: Path) -> None:
    for name in COMMANDS:
        for command in ((f"forge-{name}", "--help"), ("python", "-m", f"sentence_forge.{name}", "--help")):
            shown = installed.run(*command, cwd=cwd)
            assert shown.returncode == 0 and f"python -m {name}" in shown.stdout, (command, shown.stderr)


def test_packages_that_clashed_once_do_no_harm(installed: Installed, tmp_path: Path) -> None:
    pip = ("python", "-m", "pip")
    others = ("configs", "export", "encoders")  # of the index; each ships a package of that name
    done = installed.run(*pip, "install", "-q", "--no-deps", *others, cwd=tmp_path)
    if done.returncode:
        pytest.skip(f"the package index has no {others}: {done.stderr.strip().splitlines()[-1]}")
    check_commands(installed, tmp_path)
    assert installed.run(*pip, "uninstall", "-q", "-y", *others, cwd=tmp_path).returncode == 0
    check_commands(installed, tmp_path)


def test_a_checkout_runs_its_commands_by_their_short_names(tmp_path: Path) -> None:
    for name in COMMANDS:
        done = subprocess.run([sys.executable, "-m", name, "--help"], cwd=ROOT, capture_output=True, text=True,
                              check=False)
        assert done.returncode == 0 and f"python -m {name}" in done.stdout, done.stderr


@pytest.mark.parametrize("name", ["configs", "data_readers", "eval", "export", "losses", "search", "train"])
def test_a_short_name_is_refused_in_an_import(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: error: {name}: a folder of sentence-forge; import "
                                                   f"sentence_forge.{name}")


def test_no_module_is_loaded_under_two_names(tmp_path: Path) -> None:
    """A plug-in that imports ``losses`` while ``python -m train`` runs would get a second copy of every class."""
    (tmp_path / "mine.py").write_text("from losses.cosine import Cosine\n\n\nclass Mine(Cosine):\n    pass\n")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run([sys.executable, "-m", "train", "loss=cosine", "plugins=[mine]", "loss._target_=mine.Mine",
                           "model=mini", f"hydra.run.dir={tmp_path / 'run'}"], cwd=ROOT, env=environment,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: losses: a folder of sentence-forge; import sentence_forge.")


def test_a_plug_in_may_have_the_name_of_a_folder_of_ours(tmp_path: Path) -> None:
    """``plugins=[losses]`` in a folder of the user's: their losses.mine is found, and ours keep their short names."""
    (tmp_path / "losses").mkdir()
    (tmp_path / "losses" / "__init__.py").touch()
    (tmp_path / "losses" / "mine.py").write_text("from sentence_forge.losses.cosine import Cosine\n\n\n"
                                                 "class Mine(Cosine):\n    pass\n")
    code = ("from sentence_forge.runtime.targets import resolve; "
            "print(*(resolve(f'losses.{name}', 'loss', ['losses']) for name in ('mine.Mine', 'cosine.Cosine')))")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "losses.mine.Mine" in done.stdout and "sentence_forge.losses.cosine.Cosine" in done.stdout
