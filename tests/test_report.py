"""The report as readers get it: whole files, escaped text, nothing fetched, fractions in JSON and x 100 elsewhere."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import browser
from test_eval import WordSum, write_pairs

from sentence_forge.encoders.card import model_card
from sentence_forge.eval.evaluate import evaluate
from sentence_forge.eval.report import plots
from sentence_forge.eval.report.html import template_file
from sentence_forge.eval.report.report import Report
from sentence_forge.eval.tasks.sts import ScoredPairs
from sentence_forge.runtime.errors import UserError

HOSTILE = 'x"><script>alert(1)</script>|<b>&'
TRAINING = {
    "title": f"Training {HOSTILE}", "rows": [("loss", "cosine"), (HOSTILE, HOSTILE), ("seed", 0)],
    "baseline": {"measure": "spearman_cosine", "before": 0.82, "after": 0.85, "delta_ci95": [0.01, 0.05]},
    "curve": {"step": list(range(1000)), "loss": [1 / (1 + step) for step in range(998)] + [float("nan")] * 2,
              "dev": [(0, 0.82), (500, 0.86), (1000, 0.85)], "measure": "spearman_cosine", "kept": 1000},
}


class Page(HTMLParser):
    """What a browser would see: tags in balance, addresses, texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: dict[str, int] = {}
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("data")
    write_pairs(folder / "large" / "test.csv", rows=4000).write_text(
        (folder / "large" / "test.csv").read_text().replace("captions", HOSTILE.replace('"', '')))
    write_pairs(folder / "small" / "test.csv", rows=12, seed=2)
    tasks = {"large": ScoredPairs(folder="large", label=HOSTILE), "small": ScoredPairs(folder="small"),
             "gone": ScoredPairs(folder="gone")}
    baseline = evaluate(WordSum(seed=5), tasks, folder, resamples=200)
    encoder = WordSum()
    encoder.name = HOSTILE
    return Report(evaluate(encoder, tasks, folder, resamples=200, baseline=baseline))


def test_the_three_files_say_the_same(report: Report, tmp_path: Path) -> None:
    Report(report.evaluation, TRAINING).save(tmp_path / "report")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["report.html", "report.json", "report.md"]
    about = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert about["tasks"]["large"]["spearman_cosine"] == report.evaluation.results["large"].row["spearman_cosine"] <= 1
    assert about["training"]["rows"]["loss"] == "cosine" and about["absent"] == ["gone"]
    markdown = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    texts = Page((tmp_path / "report" / "report.html").read_text(encoding="utf-8")).texts
    for row in about["tasks"].values():
        value = f"{100 * row['spearman_cosine']:.2f}"
        assert value in markdown and value in texts
    for says in ("gone", "82.00 before training", "all"):
        assert says in markdown and any(says in text for text in texts)
    columns = {line.count("|") - line.count("\\|") for line in markdown.split("\n\n")[3].splitlines()}
    assert columns == {8}
    assert about["tasks"]["large"]["failures"][0]["text1"] in markdown


@pytest.mark.parametrize("training", [None, {}, TRAINING])
def test_the_page_is_self_contained_and_escaped(report: Report, tmp_path: Path, training: dict | None) -> None:
    Report(report.evaluation, training).save(tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not {"link", "iframe", "img", "object", "b>"} & set(page.tags)
    assert page.tags["script"] == 1 and text.count("<script>") == 1  # ours, without an address
    assert template_file("sort.js").strip() in text
    assert set(page.addresses) == {"#large", "#small"} and "url(" not in text and "@import" not in text
    assert "http" not in text
    assert HOSTILE in page.texts
    assert not re.findall(r'(?:cx|cy|d|x|y)="[^"]*(nan|inf)', text)
    assert "prefers-color-scheme:dark" in text and "1,500 of 4,000 pairs" in text
    assert page.tags["svg"] == 4 + 2 + (2 if training else 0)
    assert len(text) < 400_000


def test_one_task_without_a_baseline(report: Report, tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "one" / "test.csv").parent.parent
    Report(evaluate(WordSum(), {"one": ScoredPairs(folder="one")}, folder, resamples=50)).save(tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    texts = Page(text).texts
    assert "one" in texts and not [said for said in texts if said == "Average" or "the baseline" in said]


def test_a_report_replaces_the_one_before_as_a_whole(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path)
    before = (tmp_path / "report.html").read_bytes()
    report.save(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_saved_report_is_opened_again(report: Report, tmp_path: Path) -> None:
    Report(report.evaluation, TRAINING).save(tmp_path / "one")
    again = Report.open(tmp_path / "one")
    assert str(again) == str(report) and again.json["training"]["rows"]["loss"] == "cosine"
    assert again.json["tasks"] == json.loads(json.dumps(report.json["tasks"]))
    assert HOSTILE in Page(again._repr_html_()).texts
    assert "Worst pairs" in again.save(tmp_path / "two").read_text(encoding="utf-8")
    for text in ("", "{}", '{"tasks": {"a": 3}}'):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(UserError, match=r"holds no report\.json, or a damaged one"):
            Report.open(tmp_path)
    with pytest.raises(UserError, match="nowhere: holds no report"):
        Report.open("nowhere")


def test_a_model_card_s_tables_hold_any_name() -> None:
    training = {"base": "mini", "loss": "Cosine", "rows": 9, "shape": "pair_score", "steps": 2, "batch_size": 3,
                "learning_rate": 1e-5, "seed": 0, "best_step": 2, "measure": "mrr", "after": 0.5,
                "data": [{"name": f"{HOSTILE}\x1b.csv", "sha256": "0" * 64}]}
    card = model_card({"dim": 8, "max_length": 9, "fingerprint": "f", "training": training,
                       "measured": {HOSTILE: {"measure": "mrr", "value": 0.5}}})
    rows = [line.replace("\\|", "") for line in card.splitlines() if "alert" in line]
    assert [row.count("|") for row in rows] == [3, 4] and "<script" not in card and "\x1b" not in card


def test_the_step_whose_weights_were_kept_is_ringed() -> None:
    """Not the highest: step 0 can't be kept, and of equal steps the last one is."""
    def ringed(text: str) -> list[str]:
        return re.findall(r'<circle class="best" cx="([\d.]+)"', text)

    steps, values = [0, 5, 10], [0.9, 0.8, 0.8]
    points = re.findall(r'<circle cx="([\d.]+)"', plots.curve(steps, values, "dev", knots=True))
    assert len(points) == 3 and not ringed(plots.curve(steps, values, "dev", knots=True))
    assert ringed(plots.curve(steps, values, "dev", knots=True, ringed=10)) == points[2:]


def test_thirds_and_bins_of_any_scores() -> None:
    rng = np.random.default_rng(0)
    for gold in (rng.uniform(0, 5, 300), rng.integers(0, 2, 300), np.r_[np.zeros(290), 1:11], rng.integers(1, 4, 300),
                 np.r_[np.full(290, 5.0), 0:10]):
        groups = plots.thirds(gold.astype(float))
        assert 1 < len(groups) <= 3
        assert sum(mask.astype(int) for _, mask in groups).tolist() == [1] * 300
        highest = [gold[mask].max() for _, mask in groups]
        assert highest == sorted(highest)
        centres, quartiles = plots.binned(gold.astype(float), gold + rng.normal(size=300))
        assert (np.diff(centres) > 0).all() and (np.diff(quartiles, axis=1) >= 0).all()
    assert plots.round_values(0, 5) == [0, 1, 2, 3, 4, 5]
    assert plots.round_values(-0.07, 0.31) == [0, 0.1, 0.2, 0.3]
    assert plots.round_values(0.8203, 0.871) == [0.83, 0.84, 0.85, 0.86, 0.87]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_chromium_shows_it_and_a_click_sorts_it(report: Report, tmp_path: Path, scheme: str) -> None:
    Report(report.evaluation, TRAINING).save(tmp_path)
    with browser(tmp_path / "profile") as page:
        page.say("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        page.say("Emulation.setDeviceMetricsOverride", width=1200, height=900, deviceScaleFactor=1, mobile=False)
        page.open(f"file://{tmp_path / 'report.html'}")
        background = page.run("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background))) < 3 * 64) == (scheme == "dark")
        column = "[...document.querySelectorAll('table.pairs')[0].tBodies[0].rows].map(row=>+row.cells[0].dataset.v)"
        head = "document.querySelectorAll('table.pairs th button')[0]"
        before = page.run(column)
        assert sorted(map(abs, before), reverse=True) == list(map(abs, before)) and len(before) > 10
        page.click(head)
        assert page.run(column) == sorted(before, reverse=True) != before
        assert page.run(f"{head}.parentElement.getAttribute('aria-sort')") == "descending"
        page.click(head)
        assert page.run(column) == sorted(before)
        texts = "[...document.querySelectorAll('table.pairs')[0].tBodies[0].rows].map(row=>row.cells[3].textContent)"
        page.click("document.querySelectorAll('table.pairs th button')[3]")
        shown = page.run(texts)
        assert shown == page.run(f"{texts}.sort((a,b)=>b.localeCompare(a))") and len(shown) == len(before)
        assert page.run("document.scrollingElement.scrollWidth") <= 1200
        page.say("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
        assert page.run("document.scrollingElement.scrollWidth") <= 390  # nothing sticks out on a telephone
        assert page.errors == []
        assert page.asked == [f"file://{tmp_path / 'report.html'}"]
