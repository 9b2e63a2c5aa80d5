"""The benches, on tiny models: both sides train alike, every line is well-formed, a run that is cut still tells."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("accelerate")

from database import ask, server

from bench import generated, scale_table, tables
from bench.agreement import curve, first_steps, sides
from bench.all import main, record
from bench.compare import ratio_interval
from bench.lines import slope
from bench.machine import commit as commit_of
from bench.machine import facts, kind
from bench.plot import draw
from bench.profile import PLACES, place_of, where_it_goes
from bench.quality import interval
from bench.results import RESULTS
from bench.results import results_of_this_kind as results_folder
from bench.scale import Made
from bench.steps import SixteenBits
from bench.stock import Stock
from bench.tasks import SHAPE, Task, load, tiny, without_dropout
from bench.train import Case
from sentence_forge.encoders.protocol import Role, TextEncoder
from sentence_forge.encoders.similarity import normalise
from sentence_forge.search.indexing import index_corpus

LINE = {"name", "value", "unit", "peer", "peer_value", "ratio"}


def both(loss: str, batch_size: int = 8) -> tuple[Task, tuple]:
    task = load(loss, batch_size, sample=True)
    return task, sides(task, without_dropout(tiny(lambda: task.texts)))


@pytest.fixture
def lines_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict]]:
    """Run ``python -m bench.<name> <arguments>`` here and return what it printed, a line an object."""

    def run(name: str, *arguments: str) -> list[dict]:
        monkeypatch.setattr(sys, "argv", [f"bench.{name}", *arguments])
        capsys.readouterr()
        assert not import_module(f"bench.{name}").main()
        lines = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
        assert all(set(line) >= LINE for line in lines)
        assert all(line["ratio"] == pytest.approx(line["value"] / line["peer_value"], abs=1e-3) for line in lines
                   if line["peer_value"])
        return lines

    return run


@pytest.mark.parametrize("loss", SHAPE)
def test_first_losses_and_gradients_are_those_of_the_stock_trainer(loss: str) -> None:
    task, (ours, stock) = both(loss)
    assert first_steps(loss, ours, stock, task)


def test_a_difference_shows() -> None:
    task, (ours, stock) = both("mnrl")
    stock.loss.scale = 20.01
    assert not first_steps("mnrl", ours, stock, task)


def test_loss_curves_lie_on_one_another_and_each_turn_begins_with_the_first_weights() -> None:
    task, (ours, stock) = both("mnrl")
    assert curve("first", ours, stock, task, 12) < 1e-4
    assert curve("again", ours, stock, task, 12) < 1e-4


def test_the_padding_share_is_what_the_stock_collator_makes() -> None:
    task, (ours, _) = both("triplet")
    batch = task.batches[0]
    made = [ours.encoder.model.preprocess([column[row] for row in batch])["attention_mask"]
            for column in task.columns.values()]
    assert task.padded_by_column(ours.tokens, [batch]) == sum(mask.numel() for mask in made)
    assert task.real_tokens(ours.tokens, [batch]) == sum(int(mask.sum()) for mask in made)


def test_no_text_is_twice_in_a_batch_of_mnrl() -> None:
    task = load("mnrl", 8, sample=True)
    for batch in task.batches:
        texts = [text for column in task.columns.values() for text in {column[row] for row in batch}]
        assert len(texts) == len(set(texts))


def test_training_beside_the_stock_trainer_prints_its_lines(lines_of: Callable[..., list[dict]]) -> None:
    lines = lines_of("train", "--quick", "--losses", "softmax,batch_hard")
    warm = [line for line in lines if "ratio_ci95" in line]
    assert [line["name"] for line in warm] == ["train softmax, batch 4", "train batch_hard, batch 8"]
    assert [line["unit"] for line in warm] == ["pairs/s", "texts/s"]
    for line in warm:
        low, high = line["ratio_ci95"]
        assert 0 <= low <= line["ratio"] <= high and line["turns"] * line["steps"] > 0 < line["peer_seconds"]
        assert 0 <= line["padding_share"] < line["peer_padding_share"] < 1


@pytest.mark.parametrize("change", ["table", "dropout"])
def test_a_step_is_timed_beside_itself_with_one_thing_changed(lines_of: Callable[..., list[dict]], change: str) -> None:
    (told,) = lines_of("steps", change, "--quick", "--seconds", "0", "--batch", "4")
    low, high = told["ratio_ci95"]
    assert told["peer"] == "as it is" and told["steps"] >= 2 and low <= told["ratio"] <= high


def test_dropout_by_sixteen_bits_keeps_its_share_and_the_mean() -> None:
    torch.manual_seed(0)
    given = torch.ones(1001, 999)
    with SixteenBits():
        made = torch.nn.functional.dropout(given, 0.1, training=True)
        assert torch.nn.functional.dropout(given, 0.1, training=False) is given
    assert float((made == 0).float().mean()) == pytest.approx(0.1, abs=0.002)
    assert float(made.mean()) == pytest.approx(1.0, abs=0.002)


def test_fair_peers_are_measured_and_a_run_that_was_cut_goes_on(lines_of: Callable[..., list[dict]], tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.train.commit", lambda: "0123456789ab")
    monkeypatch.setattr("bench.train.multiplies_in_bf16", lambda device: True)
    monkeypatch.setattr("bench.train.processor", lambda device: "AVX512 by oneDNN")
    monkeypatch.setattr("bench.train.QUICK", (Case("mnrl", 4, products=True), Case("mnrl", 8, alone=1)))
    lines = lines_of("train", "--quick", "--results", str(tmp_path))
    sides = [(line["name"], line["ours"], line["peer"]) for line in lines if "ratio_ci95" in line]
    tuned = ("ours, bf16", "stock trainer, tuned, bf16")
    assert sides == [("train mnrl, batch 4", "ours", "stock trainer, defaults"),
                     ("train mnrl, batch 4, bf16", *tuned),
                     ("train mnrl, batch 4, what oneDNN alone gives", "ours", "ours, MKL instead of oneDNN"),
                     ("train mnrl, batch 8", "ours", "stock trainer, defaults"), ("train mnrl, batch 8, bf16", *tuned)]
    cold, memory = (line for line in lines if line["unit"] in ("s", "MiB"))
    assert cold["name"].startswith("train mnrl, batch 8, cold") and 0 < cold["before"] < cold["value"]
    assert memory["name"].startswith("train mnrl, batch 8, peak") and min(memory["value"], memory["peer_value"]) > 0
    means = [line for line in lines if "geometric mean" in line["name"]]
    assert [(mean["peer"], mean["batches"]) for mean in means] == [(sides[0][2], 2), (tuned[1], 2)]
    for mean in means:
        ratios = [line["ratio"] for line in lines if "ratio_ci95" in line and line["peer"] == mean["peer"]]
        assert mean["value"] == pytest.approx(np.prod(ratios) ** 0.5, rel=1e-5) and mean["lowest"] == min(ratios)
    file = tmp_path / "train.json"
    kept = json.loads(file.read_text(encoding="utf-8"))
    kept["lines"] = [line for line in kept["lines"] if line.get("case") == ["mnrl", 4]]  # cut behind the first case
    file.write_text(json.dumps(kept), encoding="utf-8")
    again = lines_of("train", "--quick", "--results", str(tmp_path))
    assert {line["name"][:19] for line in again if "ratio_ci95" in line} == {"train mnrl, batch 8"}
    assert [line["name"] for line in json.loads(file.read_text(encoding="utf-8"))["lines"]] == [
        line["name"] for line in lines]


def test_the_interval_of_a_ratio_is_that_of_the_turns() -> None:
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        noise = generator.normal(0, 0.1, (2, 12))
        low, high = ratio_interval(3.0 * np.exp(noise[0]), np.exp(noise[1]))
        inside += low <= 3.0 <= high
    assert 180 <= inside <= 198, "of 200, at 95 %"


def test_the_gpu_set_goes_its_whole_way_on_a_cpu(lines_of: Callable[..., list[dict]],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    # the compiler itself takes minutes
    monkeypatch.setattr(torch, "compile", lambda model=None, **_: (lambda made: made) if model is None else model)
    lines = lines_of("gpu", "--device", "cpu", "--quick", "--compile")
    assert not [line for line in lines if line["name"].startswith(("failed", "left out"))]
    assert all(line["within"] for line in lines if "within" in line)
    rounded = [line for line in lines if line["name"].startswith("check: bf16") and line["peer"] == "padded"]
    assert len(rounded) == 4, "vectors and gradients, with the kernel and without"
    assert all(line["value"] > 1e-7 and line["limit"] == pytest.approx(1.2 * line["peer_value"], rel=1e-4)
               for line in rounded), "what bf16 costs is held against what it costs the padded way"
    told = " ".join(line["name"] for line in lines)
    for part in ("machine", "matrix products", "check: bf16, gradients", "batch 8", "batch 16", "utilisation",
                 "a step, products", "ours, compiled, a step, attention", "launches", "encode"):
        assert part in told
    for size in (8, 16):
        peers = [line["peer"] for line in lines if "target_ratio" in line and f"batch {size}" in line["name"]]
        assert peers == ["stock trainer, tuned"] * 2 + ["stock trainer, tuned, torch_compile"]
        epochs = [line for line in lines if line["name"].startswith("gpu epoch") and f"batch {size}," in line["name"]]
        assert len(epochs) == 2 and all(line["target"] == 60 for line in epochs)
    targets = [line["name"] for line in lines if line.get("target") == 0.4]
    assert targets and all("batch 16" in name for name in targets)


def test_attention_of_a_gpu_is_told_as_attention() -> None:
    for name in ("aten::_efficient_attention_forward", "aten::_flash_attention_backward", "torch_attn::_varlen_attn",
                 "aten::_scaled_dot_product_cudnn_attention"):
        assert place_of(name) == "attention"
    assert [place_of(name) for name in ("aten::addmm", "aten::_foreach_norm", "aten::gelu")] == [
        "products", "optimizer", "elementwise"]


def test_a_step_is_told_by_where_it_goes() -> None:
    task, (ours, _) = both("mnrl")
    places = where_it_goes(lambda: ours.turn(task.turn(0, 7)), skip=1, steps=3)
    assert tuple(places) == PLACES and not places["compiled"]
    for place in ("products", "attention", "elementwise", "optimizer"):
        assert 0 < places[place] < sum(places.values())
    with pytest.raises(RuntimeError, match="took 6 steps, and 7 are needed"):
        where_it_goes(lambda: ours.turn(task.turn(0, 6)), skip=1, steps=3)


def test_what_the_time_is_too_short_for_is_said(lines_of: Callable[..., list[dict]]) -> None:
    lines = lines_of("gpu", "--device", "cpu", "--quick", "--minutes", "0")
    assert lines[0]["name"] == "machine"
    assert all(line["name"].startswith("left out") for line in lines[1:])
    assert len(lines) > 4


def test_without_a_gpu_the_gpu_set_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one here")
    monkeypatch.setattr(sys, "argv", ["bench.gpu"])
    assert import_module("bench.gpu").main() == 2
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith("error: there is no CUDA device")


def test_made_up_texts_have_the_stated_lengths_and_known_words(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    words = generated.words(400)
    folder = generated.bert(words, tmp_path / "bert", hidden=16, layers=1, heads=1)
    model = SentenceTransformer(str(folder), device="cpu")
    task = generated.pairs(words, 2000, 16)
    for name, (mean, deviation) in generated.LENGTHS.items():
        ids = model.tokenizer(task.columns[name])["input_ids"]
        lengths = [len(each) for each in ids]
        assert np.mean(lengths) == pytest.approx(mean, rel=0.03)
        assert np.std(lengths) == pytest.approx(deviation, rel=0.08)
        assert model.tokenizer.unk_token_id not in {number for each in ids for number in each}


def test_results_hold_the_lines_of_a_run_that_was_cut(tmp_path: Path) -> None:
    code = """
import sys
from bench.lines import line
line("one", 2.0, "s", peer="other", peer_value=4.0)
print("a remark")
line("two", 1e-7, "relative difference")
sys.exit(3)
"""
    assert record("cut", [sys.executable, "-c", code], tmp_path) == 3
    kept = json.loads((tmp_path / "cut.json").read_text(encoding="utf-8"))
    assert [(line["name"], line["value"], line["ratio"]) for line in kept["lines"]] == [("one", 2.0, 0.5),
                                                                                       ("two", 1e-7, None)]
    assert kept["machine"]["cores"] > 0
    assert kept["machine"]["versions"]["torch"]
    assert str(Path(__file__).parent.parent) not in json.dumps(kept["machine"])


def test_the_interval_of_the_difference_of_seeds() -> None:
    generator = np.random.default_rng(0)
    stock = generator.normal(84.0, 0.2, 5)
    low, high = interval(stock + 1.0, stock)
    assert 0 < low < 1.0 < high
    assert interval(stock, stock)[0] < 0 < interval(stock, stock)[1]


def test_precisions_are_compared_seed_by_seed_and_what_is_trained_is_kept(
        lines_of: Callable[..., list[dict]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.quality.multiplies_in_bf16", lambda device: True)
    settings = {"epochs": 1, "batch": 16, "steps": None, "learning_rate": 2e-5}
    values = {"ours": [85.0, 84.0, 86.0, 80.0], "ours, bf16": [85.1, 84.3, 86.1, 80.3],
              "stock trainer, bf16": [85.2, 84.1, 86.0, 80.2], "stock trainer": [84.0]}
    kept = [{"side": side, "seed": seed, "value": value, "settings": settings, "commit": facts()["commit"]}
            for side, reached in values.items() for seed, value in enumerate(reached, start=1)]
    (tmp_path / "quality.json").write_text(json.dumps({"lines": kept}), encoding="utf-8")
    lines = lines_of("quality", "--precision", "bf16", "--seeds", "4", "--results", str(tmp_path))
    assert [(line["name"], line["peer"], line["interval"]) for line in lines] == [
        ("STSb test, ours, bf16, mean of 4 seeds", "ours", "paired"),
        ("STSb test, ours, bf16, mean of 4 seeds", "stock trainer, bf16", "Welch")]
    apart = np.subtract(values["ours, bf16"], values["ours"])
    half = 3.18245 * apart.std(ddof=1) / 2  # Student's t with 3 degrees of freedom, of a table
    assert lines[0]["difference"] == pytest.approx(0.2)
    assert lines[0]["ci95"] == pytest.approx([0.2 - half, 0.2 + half], abs=1e-3)
    assert json.loads((tmp_path / "quality.json").read_text(encoding="utf-8"))["lines"] == kept + lines


def test_plots_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    def keep(name: str, *lines: dict) -> None:
        (tmp_path / f"{name}.json").write_text(json.dumps({"lines": lines}), encoding="utf-8")

    assert draw(tmp_path) == []
    keep("scale", {"name": "build", "rows": 1000, "value": 9.0}, {"name": "fast_query", "rows": 1000, "value": 1.0},
         {"name": "fast_query", "rows": 4000, "value": 2.0})
    peer = {"name": "fast_query, hnsw, goal", "rows": 1000, "value": 1.0}
    for recall, drawn in ((0.99, False), (0.995, True)):
        keep("scale", {"name": "fast_query", "rows": 1000, "value": 1.0}, peer | {"recall": recall})
        assert [file.name for file in draw(tmp_path)] == ["scale.svg"]
        assert ("FAISS HNSW" in (tmp_path / "scale.svg").read_text(encoding="utf-8")) == drawn
    keep("train", {"name": "train mnrl, batch 16", "peer": Stock.__name__ + ", defaults", "ratio": 2.0,
                   "ratio_spread": [1.9, 2.1]})
    keep("quality", {"side": "ours", "seed": 1, "value": 84.0})
    keep("agreement", {"value": 1e-6, "last_ten": 1e-6, "ours": [2.0, 1.0], "stock": [2.0, 1.0]})
    assert [file.name for file in draw(tmp_path)] == ["training.svg", "agreement.svg", "quality.svg", "scale.svg"]
    assert "mnrl, batch 16" in (tmp_path / "training.svg").read_text(encoding="utf-8")


def test_the_tables_of_results_are_those_of_the_files_and_machines_stand_side_by_side(tmp_path: Path) -> None:
    page = tables.PAGE.read_text(encoding="utf-8")
    for name in tables.TABLES:
        assert tables.written(page, name, tables.table(name)) == page, "type python -m bench.tables --write"
    speed = {"name": "train mnrl, batch 16", "unit": "pairs/s", "peer": "stock trainer, defaults"}
    cold = speed | {"name": "cold", "value": 2.5, "unit": "s", "peer_value": 1.0, "ratio": 2.5}
    for where, lines in {"old": [speed | {"value": 76.09, "ratio": 2.02, "ratio_spread": [1.9, 2.1]}, cold],
                         "new": [speed | {"value": 1500.4, "ratio": 1.3, "ratio_ci95": [1.25, 1.35]}]}.items():
        (tmp_path / where).mkdir()
        (tmp_path / where / "train.json").write_text(json.dumps({"machine": {"commit": f"{where}c"}, "lines": lines}))
    assert tables.table("training", tmp_path).splitlines() == [
        "|  | beside | new (`newc`) | old (`oldc`) |", "| --- | --- | --- | --- |",
        "| train mnrl, batch 16 | stock trainer, defaults | 1,500 pairs/s, **1.30x** (1.25 to 1.35) | "
        "76.1 pairs/s, **2.02x** (1.90 to 2.10) |",
        "| cold | stock trainer, defaults |  | 2.5 and 1 s |", "",
        "Over 2 kinds of machine from 1.30x (train mnrl, batch 16, new) to 2.02x (train mnrl, batch 16, old)."]


class Drawn(TextEncoder):
    """Vectors around thirty centres, drawn by the number that a text is."""

    name, fingerprint = "drawn", "0" * 64

    def encode(self, texts: Sequence[str], *, role: Role | None = None) -> np.ndarray:
        centres = np.random.default_rng(0).standard_normal((30, 32))
        rows = [np.random.default_rng(int(text)).standard_normal(32) for text in texts]
        return normalise(np.array([centres[int(text) % 30] + 0.7 * row for text, row in zip(texts, rows, strict=True)]))


def test_growth_is_measured_and_a_size_that_is_there_is_left_alone(lines_of: Callable[..., list[dict]], tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.scale.COLD", 1)
    names = [str(number) for number in range(700)]
    index_corpus(tmp_path / "export" / "index", names, names, Drawn())
    arguments = (str(tmp_path / "export"), "--sizes", "2000", "--fast-from", "1000", "--work", str(tmp_path / "work"),
                 "--results", str(tmp_path))
    lines = {line["name"]: line for line in lines_of("scale", *arguments)}
    assert lines["reindex"]["changed"] == 20
    fast = lines["fast_query"]
    assert fast["shards"][0]["factory"].startswith("PQ") and fast["recall"] > 0.99
    peer = lines["fast_query, hnsw"]
    assert peer["recall"] >= fast["recall"] and 0 < peer["value"] <= peer["p95"]
    goal = lines["fast_query, hnsw, goal"]
    assert goal["recall"] >= 0.995 and goal["ef_search"] <= peer["ef_search"]
    assert lines["cold_start, from disk"]["value"] > 0 and lines["build_memory"]["value"] > 50
    assert 0 < lines["fast_query, from disk"]["value"] < 1000 * lines["cold_start, from disk"]["value"]
    assert lines["disk"]["parts"]["vectors"] == pytest.approx(2000 * 32 * 4, abs=200)
    assert 0 < lines["resident_memory"]["not_mapped"] < lines["resident_memory"]["value"]
    assert not list((tmp_path / "work").iterdir()), "a size that was measured is removed"
    kept = (tmp_path / "scale.json").read_text(encoding="utf-8")
    assert [line["name"] for line in json.loads(kept)["lines"]] == list(lines)
    assert lines_of("scale", *arguments) == []
    assert (tmp_path / "scale.json").read_text(encoding="utf-8") == kept


def test_shards_of_float16_are_measured_into_a_file_of_their_own(lines_of: Callable[..., list[dict]], tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.scale.COLD", 1)
    names = [str(number) for number in range(700)]
    index_corpus(tmp_path / "export" / "index", names, names, Drawn())
    lines = {line["name"]: line for line in lines_of(
        "scale", str(tmp_path / "export"), "--sizes", "2400", "--fast-from", "1000", "--no-peer", "--half",
        "--shard-rows", "1200", "--work", str(tmp_path / "work"), "--results", str(tmp_path))}
    assert (tmp_path / "scale_shards_half.json").is_file() and not (tmp_path / "scale.json").exists()
    assert lines["disk"]["parts"]["vectors"] == pytest.approx(2400 * 32 * 2, abs=400)
    fast = lines["fast_query"]
    assert len(fast["shards"]) == 2 and fast["recall"] > 0.99 and lines["disk"]["parts"]["index"] > 0
    (tmp_path / "kind").mkdir()
    (tmp_path / "scale_shards_half.json").rename(tmp_path / "kind" / "scale_shards_half.json")
    assert "| the fast index | 2 shards: all codes |" in scale_table.tables(tmp_path, "scale_shards_half")


def test_what_a_kill_costs_a_build_is_measured(tmp_path: Path) -> None:
    names = [str(number) for number in range(700)]
    index_corpus(tmp_path / "export" / "index", names, names, Drawn())
    done = subprocess.run([sys.executable, "-m", "bench.killed_build", str(tmp_path / "export"), "--rows", "1500",
                           "--cells-from", "1000", "--work", str(tmp_path / "work"), "--results", str(tmp_path)],
                          cwd=RESULTS.parent.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    unbroken, until, again = (json.loads(line) for line in done.stdout.splitlines())
    assert unbroken["steps"] == 7 + 1 + 1 and until["steps"] == 8 and again["same_file"]
    assert not list((tmp_path / "work").iterdir()) and (tmp_path / "killed_build.json").is_file()


def test_pgvector_is_measured_at_the_same_recall(lines_of: Callable[..., list[dict]], tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.scale.COLD", 1)
    names = [str(number) for number in range(700)]
    index_corpus(tmp_path / "export" / "index", names, names, Drawn())
    with server() as url:
        arguments = ("scale", str(tmp_path / "export"), "--sizes", "1500", "--fast-from", "1000", "--no-peer",
                     "--postgres", url, "--work", str(tmp_path / "work"), "--results", str(tmp_path))
        lines = {line["name"]: line for line in lines_of(*arguments)}
        more = {line["name"]: line for line in lines_of(*arguments, "--ivfflat")}
        assert ask(url, "SELECT count(*) FROM pg_tables WHERE tablename = 'bench_scale'") == [(0,)]
    peer = lines["fast_query, pgvector"]
    assert "fast_query, hnsw" not in lines and lines["disk, pgvector"]["value"] > 1500 * 32 * 2 / 2**20
    assert peer["recall"] >= lines["fast_query"]["recall"] > 0.99 and 0 < peer["value"] <= peer["p95"]
    assert set(more) == {f"{name}, ivfflat" for name in ("fast_query", "build", "disk")} | {"fast_query, ivfflat, goal"}
    assert more["fast_query, ivfflat, goal"]["recall"] >= 0.995 and more["fast_query, ivfflat, goal"]["ef_search"] > 1


def test_rows_beyond_the_titles_are_near_copies_of_them_and_the_same_each_time() -> None:
    source = Drawn().encode([str(number) for number in range(50)])
    made = Made(source, "").encode(["first [3.0]", "copy [53.0]", "copy [103.0]", "changed [3.1]"])
    assert np.allclose(made[0], source[3], atol=1e-6)
    cosines = made[1:] @ source[3]
    assert ((cosines > 0.85) & (cosines < 0.99)).all() and made[1] @ made[2] < 0.99
    assert np.array_equal(made[2:], Made(source, "").encode(["copy [103.0]", "changed [3.1]"]))


def test_a_slope_of_one_is_time_that_grows_as_the_rows_do() -> None:
    assert slope({100: 2.0, 1000: 20.0, 10_000: 200.0}) == pytest.approx(1)
    assert slope({100: 2.0, 10_000: 20.0}) == pytest.approx(0.5)


def test_a_result_that_is_written_does_not_make_its_commit_another_one(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t", *arguments], cwd=tmp_path, check=True)

    assert commit_of(tmp_path) is None
    (tmp_path / "bench" / "results").mkdir(parents=True)
    code, result = tmp_path / "code.py", tmp_path / "bench" / "results" / "quality.json"
    code.write_text("1")
    result.write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    commit = commit_of(tmp_path)
    result.write_text("2")
    assert commit == commit_of(tmp_path) is not None
    code.write_text("2")
    assert commit_of(tmp_path) == f"{commit}-dirty"


def test_results_of_a_dirty_tree_are_refused_and_machines_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.results.commit", lambda: "0123456789ab-dirty")
    with pytest.raises(SystemExit, match="error: files differ from the commit"):
        results_folder()
    monkeypatch.setattr("bench.results.commit", lambda: "0123456789ab")
    assert results_folder() == RESULTS / kind()
    found = facts()
    if found["gpu"] is None:
        assert f"-{found['family']}-{found['model']}-{found['capability'].lower()}-" in kind()
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    assert found["avx512_bf16"] == (" avx512_bf16" in flags) and f"cpu family\t: {found['family']}\n" in flags


def test_all_benches_refuse_without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SENTENCE_FORGE_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["bench.all", "train"])
    with pytest.raises(SystemExit, match="error: set SENTENCE_FORGE_DATA to the folder of public data"):
        main()
