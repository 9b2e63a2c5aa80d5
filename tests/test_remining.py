"""``loop.remine_every``: hard negatives by the model in training, against brute force, and after a cut."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, Done
from corpora import titles_like
from resuming import cut_at, same_end

from sentence_forge.encoders.encoder import load_encoder
from sentence_forge.train.remining import RANGE_MAX

Command = Callable[..., Done]
EVERY = 4


@pytest.fixture
def data(tmp_path: Path) -> list[list[str]]:
    """Pairs in pairs.csv, of which no text of the first column is in the second."""
    pairs = [[title, f"{title} again"] for title in dict.fromkeys(titles_like(90))][:60]
    (tmp_path / "pairs.csv").write_text("anchor,positive\n" + "".join(f"{a},{b}\n" for a, b in pairs))
    (tmp_path / "dev.csv").write_text("anchor,positive\nstorm at sea,a storm out there\nopera night,an opera\n")
    return pairs


def train(command: Command, name: str, *more: str) -> Done:
    return command("train", "loss=mnrl", "data=pairs.csv", "data.dev_path=dev.csv", *TINY, "loop.max_steps=10",
                   "loop.learning_rate=3e-3", "loop.log_every=1", "loop.checkpoint_every=1", "loop.keep=99",
                   f"hydra.run.dir={name}", *more)


def mined(run: Path, step: int) -> np.ndarray:
    with np.load(run / "mined" / f"step-{step}.npz") as stored:
        return stored["0"]


def by_brute_force(model: Path, pairs: list[list[str]], margin: float) -> list[str | None]:
    """Each anchor's nearest positive of another row whose cosine is low enough; None where there is none."""
    encoder = load_encoder(model, device="cpu")
    anchors, positives = (encoder.encode([pair[side] for pair in pairs]) for side in (0, 1))
    cosines = (anchors / np.linalg.norm(anchors, axis=1, keepdims=True)) @ (
        positives / np.linalg.norm(positives, axis=1, keepdims=True)).T
    found: list[str | None] = []
    for row, own in enumerate(cosines):
        near = [other for other in np.argsort(-own) if other != row][:RANGE_MAX]
        allowed = [other for other in near if own[other] <= own[row] - margin * abs(own[row])]
        found.append(pairs[allowed[0]][1] if allowed else None)
    return found


def test_negatives_are_the_models_own_nearest_and_change_with_it(command: Command, tmp_path: Path,
                                                                 data: list[list[str]]) -> None:
    done = train(command, "run", f"loop.remine_every={EVERY}", "loop.remine_margin=0.01")
    assert done.code == 0, done.err
    run = tmp_path / "run"
    assert sorted(file.name for file in (run / "mined").iterdir()) == ["step-0.npz", "step-4.npz", "step-8.npz"]
    texts = list(dict.fromkeys([*(pair[0] for pair in data), *(pair[1] for pair in data)]))
    for step in (0, 4, 8):
        model = run / "untouched" if step == 0 else run / "checkpoints" / f"step-{step}" / "model"
        expected = by_brute_force(model, data, 0.01)
        found = [texts[number] for number in mined(run, step)]
        assert sum(each is not None for each in expected) > 30
        assert all(want is None or want == got for want, got in zip(expected, found, strict=True)), step
        assert set(found) <= {pair[1] for pair in data}  # at random where none is near enough
    assert (mined(run, 0) != mined(run, 8)).any()
    assert "mined a hard negative for" in done.err
    plain = train(command, "plain")
    assert plain.code == 0 and not (tmp_path / "plain" / "mined").exists()


@pytest.mark.parametrize(("step", "kept"), [
    (3, [0]), (4, [0]), (4, [0, 4]), (6, [0, 4]), (6, [0, 4, 8])])  # a kill comes before a file is there, or behind it
def test_a_run_that_was_cut_goes_on_with_the_same_negatives(command: Command, tmp_path: Path, data: list[list[str]],
                                                            step: int, kept: list[int]) -> None:
    assert train(command, "whole", f"loop.remine_every={EVERY}", "loop.accumulate=2", "loop.batch_size=8").code == 0
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    cut_at(whole, broken, step)
    for later in {0, 4, 8} - set(kept):
        (broken / "mined" / f"step-{later}.npz").unlink()
    done = command("train", f"resume={broken}")
    assert done.code == 0, done.err
    assert done.err.count("mined a hard negative") == 3 - len(kept)
    same_end(whole, broken, 10)
    for each in (0, 4, 8):
        assert (mined(whole, each) == mined(broken, each)).all()


def test_negatives_that_are_not_those_of_the_checkpoint_are_refused(command: Command, tmp_path: Path,
                                                                    data: list[list[str]]) -> None:
    assert train(command, "run", f"loop.remine_every={EVERY}").code == 0
    for name, change in (("lost", shutil.rmtree), ("replaced", lambda mined: (mined / "step-4.npz").write_bytes(
            (mined / "step-0.npz").read_bytes()))):
        cut_at(tmp_path / "run", tmp_path / name, 6)
        change(tmp_path / name / "mined")
        refused = command("train", f"resume={tmp_path / name}")
        assert refused.code == 2 and "step-4.npz: is gone or was replaced" in refused.err, refused.err
        assert "a checkpoint before step 5" in refused.err
    done = command("train", f"resume={tmp_path / 'replaced' / 'checkpoints' / 'step-4'}")  # mines it anew
    assert done.code == 0 and (mined(tmp_path / "replaced", 4) == mined(tmp_path / "run", 4)).all()


def test_a_longer_plan_and_one_that_begins_to_mine_go_on(command: Command, tmp_path: Path,
                                                         data: list[list[str]]) -> None:
    assert train(command, "run", "loop.remine_every=0.4").code == 0
    done = command("train", f"resume={tmp_path / 'run'}", "loop.max_steps=20")  # 0.4 is now every eight
    assert done.code == 0, done.err
    assert sorted(file.name for file in (tmp_path / "run" / "mined").iterdir()) == [
        "step-0.npz", "step-16.npz", "step-4.npz", "step-8.npz"]
    assert train(command, "late").code == 0
    cut_at(tmp_path / "late", tmp_path / "cut", 5)
    done = command("train", f"resume={tmp_path / 'cut'}", "loop.remine_every=4")
    assert done.code == 0, done.err
    assert sorted(file.name for file in (tmp_path / "cut" / "mined").iterdir()) == ["step-5.npz", "step-8.npz"]


def test_each_part_of_a_mix_has_its_own(command: Command, tmp_path: Path, data: list[list[str]]) -> None:
    (tmp_path / "triplets.csv").write_text("anchor,positive,negative\n" + "".join(
        f"{a} now,{b} now,{a} never\n" for a, b in data[:20]))
    done = command("train", "loss=mnrl", "data=mix", "+data.sources={one: pairs.csv, two: triplets.csv}", *TINY,
                   "loop.max_steps=4", "loop.remine_every=2", "loop.remine_margin=0.01", "hydra.run.dir=run")
    assert done.code == 0, done.err
    with np.load(tmp_path / "run" / "mined" / "step-2.npz") as stored:
        assert sorted(stored.files) == ["0", "1", "made_of"] and len(stored["0"]) > len(stored["1"]) > 0


def test_what_can_not_be_mined_is_refused(command: Command, tmp_path: Path, data: list[list[str]]) -> None:
    (tmp_path / "scored.csv").write_text("sentence1,sentence2,score\na b,a c,4\nd e,f g,1\nb b,c c,2\n")
    for words, expected in ((["loss=cosine", "data=scored.csv"], "and loss takes pair_score without"),
                            (["loss=distill", "loss.teacher=minilm", "data=pairs.csv"], "and loss takes pair without"),
                            (["loss=mnrl", "data=pairs.csv", "loop.remine_margin=1"], "loop.remine_margin: is 1")):
        done = command("train", *words, *TINY, "loop.remine_every=0.5", "hydra.run.dir=refused")
        assert done.code == 2 and expected in done.err, done.err
    done = train(command, "zero", "loop.remine_every=0")
    assert done.code == 2 and "loop.remine_every: is 0" in done.err
