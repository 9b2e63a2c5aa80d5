"""Between a run's beginning and its end: weights a share of the way, the share chosen on a suite, the curve."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, Done
from safetensors.numpy import load_file
from test_report import Page

import sentence_forge as sf
from sentence_forge.encoders.making.blend import Between
from sentence_forge.encoders.making.build import from_scratch, pretrained
from sentence_forge.export.blend import chosen

Command = Callable[..., Done]
TEXTS = ["a cat sat on the mat", "a dog ran over there", "prices climbed", "rain fell all day"]
SHORT = ["loss=cosine", "loop.max_steps=3", "loop.learning_rate=0.01", "loop.evaluate_every=3", "loop.projector=0",
         "loop.batch_size=16", "hydra.run.dir=run"]


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def test_a_weight_lies_so_much_of_the_way_and_both_ends_are_exact() -> None:
    one, other = (from_scratch(lambda: TEXTS, hidden=16, layers=1, heads=2, seed=seed) for seed in (1, 2))
    found = Between(Path("run"), one, other)
    for share in (0.0, 0.3, 0.7, 1.0):
        made = found.at(share).state_dict()
        for name, before in one.state_dict().items():
            after = other.state_dict()[name].numpy().astype(np.float64)
            hand = before.numpy() + share * (after - before.numpy())
            np.testing.assert_allclose(made[name].numpy(), hand, atol=1e-7)
    assert sf.Encoder(found.at(0.0)).fingerprint == found.fingerprints["start"] == sf.Encoder(one).fingerprint
    assert sf.Encoder(found.at(1.0)).fingerprint == found.fingerprints["end"] == sf.Encoder(other).fingerprint
    deeper = from_scratch(lambda: TEXTS, hidden=16, layers=2, heads=2)
    with pytest.raises(sf.UserError, match=r"blend: run ends with other weights.*leave blend= out"):
        Between(Path("run"), one, deeper)


def test_the_least_share_with_nearly_all_of_the_gain_is_chosen() -> None:
    assert chosen({0.0: 0.80, 0.5: 0.896, 0.6: 0.894, 1.0: 0.90}) == 0.5
    assert chosen({0.0: 0.80, 0.5: 0.85, 1.0: 0.90}) == 1.0
    assert chosen({0.0: 0.90, 0.5: 0.89, 1.0: 0.85}) == 0.0
    assert chosen({0.0: -0.2, 0.5: 0.1, 1.0: 0.0}) == 0.5


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, ``M``, and a short training from it, ``run``."""
    folder = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(folder):
        from_scratch(lambda: TEXTS, hidden=32, layers=1, heads=2).save_pretrained("M", create_model_card=False)
        sf.train("model=M", *SHORT)
    return folder


@pytest.fixture
def run(trained: Path, command: Command, tmp_path: Path) -> Path:
    """The run, in a folder of this test's own."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


def test_an_export_is_an_ordinary_model_that_says_what_it_was_made_of(run: Path, command: Command) -> None:
    done = command("export", "model=run", "blend=0.25", "out=mixed")
    assert done.code == 0, done.err
    start, end, made = (weights(folder) for folder in (run / "untouched", run / "model", Path("mixed/model")))
    assert any((start[name] != end[name]).any() for name in start)
    for name, before in start.items():
        np.testing.assert_allclose(made[name], 0.75 * before + 0.25 * end[name], atol=1e-6)
    about = json.loads(Path("mixed/manifest.json").read_text())
    report = json.loads((run / "report" / "report.json").read_text())
    assert about["blend"] == {"share": 0.25, "start": report["baseline"]["fingerprint"], "end": report["fingerprint"]}
    card = Path("mixed/model/README.md").read_text()
    assert "0.25 of the way" in card and report["fingerprint"] in card and report["baseline"]["fingerprint"] in card
    assert "## Measured" not in card  # which are the end's scores
    done = command("eval", "model=mixed", "baseline=run", "suite=sample", "resamples=20", "output=out")
    assert done.code == 0 and json.loads(Path("out/report.json").read_text())["fingerprint"] == about["fingerprint"]


def test_auto_tells_each_share_s_score_and_takes_the_least_good_one(run: Path, command: Command) -> None:
    lines = [f"{text},{other},{score % 6}" for score, (text, other) in enumerate(product(TEXTS, TEXTS))]
    Path("dev.csv").write_text("\n".join(["sentence1,sentence2,score", *lines]) + "\n")
    done = command("export", "model=run", "blend=auto", "suite=dev.csv", "score_range=[0,5]", "out=best")
    assert done.code == 0, done.err
    said = {float(share): float(score) for share, score in re.findall(r"blend=([\d.]+): (-?[\d.]+)", done.err)}
    assert sorted(said) == [number / 10 for number in range(11)]
    about = json.loads(Path("best/manifest.json").read_text())["blend"]
    assert about["share"] == chosen({float(share): score for share, score in about["scores"].items()})
    assert {share: round(score, 4) for share, score in about["scores"].items()} == {
        f"{share:g}": score for share, score in said.items()}
    assert about["measured_on"] == ["file"] and f"blend=auto: {about['share']:g}" in done.err
    manifest = json.loads(Path("best/manifest.json").read_text())
    Path("best/manifest.json").write_text(json.dumps({**{key: manifest[key] for key in (
        "fingerprint", "corpus", "precision", "blend")}, "state": "unfinished"}))
    done = command("export", "model=run", "blend=auto", "suite=dev.csv", "score_range=[0,5]", "out=best")
    assert done.code == 0 and "going on with the unfinished export" in done.err and "blend=0.5:" not in done.err
    assert json.loads(Path("best/manifest.json").read_text())["blend"] == about
    Path("best/manifest.json").write_text(json.dumps({**manifest, "state": "unfinished"}))
    Path("other.csv").write_text("\n".join(["sentence1,sentence2,score", *lines[:-3]]) + "\n")
    done = command("export", "model=run", "blend=auto", "suite=other.csv", "score_range=[0,5]", "out=best")
    assert "blend=0.5:" in done.err  # by other rows another share may be best


@pytest.mark.parametrize(("words", "said"), [
    (["model=run", "blend=1.5"], "blend: is 1.5; give a number from 0 to 1, or auto"),
    (["model=run", "blend=half"], "blend: is half; give a number from 0 to 1, or auto"),
    (["model=run", "blend=auto"], "blend=auto: RUN chose its weights by its own rows, not by a suite; say by what"),
    (["model=run", "blend=auto", "suite=stsb_dev", "data_dir=run"], "no file of suite stsb-dev is in data_dir=run"),
    (["model=M", "blend=0.5"], "blend: M is no run of python -m train"),
    (["only=index", "blend=0.5"], "leave model=, dim= and blend= out"),
])
def test_what_can_t_be_blended_is_one_line(words: list[str], said: str, run: Path, command: Command) -> None:
    done = command("export", *words, "out=made")
    assert done.code == 2 and said.replace("RUN", str(run)) in done.err and not Path("made").exists(), done.err


def test_a_beginning_that_is_gone_is_made_again_or_refused(run: Path, command: Command) -> None:
    shutil.rmtree(run / "untouched")
    end = weights(run / "model")
    assert command("export", "model=run", "blend=0.5", "out=again").code == 0
    start = weights(Path("M"))
    for name, made in weights(Path("again/model")).items():
        np.testing.assert_allclose(made, (start[name] + end[name]) / 2, atol=1e-6)
    other = from_scratch(lambda: TEXTS, hidden=32, layers=1, heads=2, seed=7)
    other.save_pretrained("M", create_model_card=False)
    done = command("export", "model=run", "blend=0.5", "out=wrong")
    assert done.code == 2 and "M is another model than" in done.err
    done = command("train", *TINY, *SHORT[:-1], "hydra.run.dir=scratch")
    shutil.rmtree("scratch/untouched")
    done = command("export", "model=scratch", "blend=0.5", "out=wrong")
    assert done.code == 2 and "began from weights made by chance" in done.err


def test_adapters_and_a_head_are_no_obstacle(run: Path, command: Command) -> None:
    """Adapters are merged in both ends; the head is the end's."""
    done = command("train", "model=M", "model.lora.r=2", "loss=softmax", *SHORT[1:-1], "hydra.run.dir=adapted")
    assert done.code == 0, done.err
    assert command("export", "model=adapted", "blend=0.5", "out=half").code == 0
    start, end = weights(Path("M")), weights(Path("adapted/model"))
    for name, made in weights(Path("half/model")).items():
        np.testing.assert_allclose(made, (start[name] + end[name]) / 2, atol=1e-6)
    head = [load_file(f"{folder}/model/loss.safetensors") for folder in ("adapted", "half")]
    assert all((head[0][name] == head[1][name]).all() for name in head[0])


def test_the_report_shows_gain_against_loss_by_share(run: Path, command: Command) -> None:
    done = command("eval", "model=run", "baseline=M", "blend=[0.5]", "suite=sample", "resamples=50", "output=out")
    assert done.code == 0, done.err
    about = json.loads(Path("out/report.json").read_text())
    rows = about["blends"]
    assert [row["share"] for row in rows] == [0.0, 0.5, 1.0]
    assert rows[2]["fingerprint"] == about["fingerprint"] and rows[0]["others"]["delta"] == 0
    half = pretrained("run")
    half.load_state_dict(Between(run, pretrained("M"), pretrained("run")).at(0.5).state_dict())
    report = sf.evaluate(sf.Encoder(half), baseline="M", suite="sample", resamples=50)
    for name, row in report.json["tasks"].items():
        assert rows[1]["tasks"][name]["value"] == pytest.approx(row["spearman_cosine"], abs=1e-6)
        gain = report.json["baseline"]["tasks"][name]
        assert rows[1]["tasks"][name]["delta"] == pytest.approx(gain["delta"], abs=1e-6)
        np.testing.assert_allclose(rows[1]["tasks"][name]["delta_ci95"], gain["delta_ci95"], atol=1e-6)
    page = Path("out/report.html").read_text()
    assert "Between its beginning and its end" in Page(page).texts and 'class="share high"' in page
    assert "## Between its beginning and its end" in Path("out/report.md").read_text()
    done = command("eval", "model=M", "blend=[0.5]", "suite=sample", "output=no")
    assert done.code == 2 and "blend: M is no run of python -m train" in done.err
    with pytest.raises(sf.UserError, match="blend: is of a run"):
        sf.evaluate(sf.Encoder(half), suite="sample", blend=[0.5])
