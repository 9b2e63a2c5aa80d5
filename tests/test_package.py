"""The wheel: built, installed in a fresh environment, used from another folder."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMPOSE = """
from importlib import resources
from pathlib import Path
import configs, runtime.cli
from hydra import compose, initialize_config_module
configs_folder = Path(configs.__file__).parent
assert "site-packages" in str(configs_folder), configs_folder
from sentence_forge.configs import schema
schema.register()
count = 0
with initialize_config_module("sentence_forge.configs", version_base="1.3"):
    for group in sorted(folder.name for folder in configs_folder.iterdir() if folder.is_dir()):
        for name in runtime.cli.options(group):
            command = {"corpus": "export", "cluster": "export", "baseline": "eval"}.get(group, "train")
            compose(command, [f"{group}={name}"])
            count += 1
assert count > 20, count
sample = resources.files("sentence_forge.data_readers") / "sample"
assert (sample / "zh" / "titles.csv").is_file() and (sample / "LICENSE").is_file()
from sentence_forge.data_readers.titles import read_corpus
assert len(read_corpus(sample / "en" / "titles.csv").ids) == 420
"""


def test_a_wheel_works_from_another_folder(tmp_path: Path) -> None:
    source = tmp_path / "source"
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
                             check=True).stdout.splitlines()
    for name in tracked:  # a copy, so that no build folder is left in the tree, nor used
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(source)], check=True,
                   capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", wheel], check=True, capture_output=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "hydra-core", "-c", ROOT / "constraints.txt"], check=True,
                   capture_output=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run([python, "-c", COMPOSE], cwd=elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for script in ("forge-train", "forge-eval", "forge-export", "forge-search"):
        shown = subprocess.run([home / "bin" / script, "--help"], cwd=elsewhere, capture_output=True, text=True,
                               check=False)
        assert shown.returncode == 0 and "python -m" in shown.stdout, shown.stderr
