"""Hard negatives from an index, against brute force and the stock miner; and bare titles under two dropout masks."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, Done
from corpora import WordEncoder, build, titles_like

from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.encoders.similarity import normalise
from sentence_forge.runtime.errors import UserError
from sentence_forge.search.index import Index
from sentence_forge.search.indexing import index_corpus
from sentence_forge.search.mining import mine, near_duplicates, read_pairs, write_triplets

Command = Callable[..., Done]
Rows = list[list[str]]


def rows_of(file: Path) -> Rows:
    with file.open(encoding="utf-8", newline="") as text:
        return list(csv.reader(text))


def brute_force(titles: list[str], pairs: list[tuple[str, str]], negatives: int, margin: float, range_min: int,
                range_max: int) -> list[tuple[str, ...]]:
    encoder = WordEncoder()
    corpus = list(dict.fromkeys(titles))
    vectors = dict(zip(corpus, normalise(encoder.encode(corpus)), strict=True))
    for text in {text for pair in pairs for text in pair} - set(corpus):
        vectors[text] = normalise(encoder.encode([text]))[0]
    found = []
    for anchor in dict.fromkeys(anchor for anchor, _ in pairs):
        own = list(dict.fromkeys(positive for text, positive in pairs if text == anchor))
        paired = {anchor, *own, *(text for text, positive in pairs if positive == anchor)}
        limit = min(vectors[anchor] @ vectors[positive] for positive in own)
        cosine = {title: vectors[anchor] @ vectors[title] for title in corpus if title not in paired}
        ranked = sorted(cosine, key=lambda title: -cosine[title])
        kept = [title for title in ranked[:range_max] if cosine[title] <= limit - margin * abs(limit)]
        chosen = kept[range_min:range_min + negatives]
        if len(chosen) == negatives:
            found += [(anchor, positive, *chosen) for positive in own]
    return found


@pytest.mark.parametrize(("negatives", "margin", "range_min", "range_max"), [
    (1, 0.05, 0, 100), (3, 0.05, 0, 100), (2, 0.3, 0, 100), (1, 0.0, 4, 100), (2, 0.05, 0, 8), (1, 0.05, 0, 500),
])
def test_mining_is_what_brute_force_finds(tmp_path: Path, negatives: int, margin: float, range_min: int,
                                          range_max: int) -> None:
    titles = titles_like(150)
    titles += titles[:60] * 3  # titles that repeat take places among the nearest
    pairs = [(titles[number], titles[number + 1]) for number in range(0, 80, 2)]
    pairs += [(titles[0], titles[9]), (titles[7], titles[0]), ("storm storm unseen", titles[3]),
              (titles[5], "new text")]
    build(tmp_path, titles)
    with Index.open(tmp_path, WordEncoder()) as index:
        found = mine(index, pairs, negatives=negatives, margin=margin, range_min=range_min, range_max=range_max)
    expected = brute_force(titles, pairs, negatives, margin, range_min, range_max)
    assert found.rows == expected
    assert found.without == len(set(pairs)) - len(expected)
    assert expected and (found.false_negatives or margin == 0)
    assert all(len(set(row)) == 2 + negatives for row in found.rows)


class Prompted(WordEncoder):
    """Queries have a prompt of their own, as E5's have."""

    def role_key(self, role: str | None) -> str:
        return "query: " if role == "query" else ""

    def encode(self, texts: Sequence[str], role: str | None = None) -> np.ndarray:
        return super().encode([self.role_key(role) + text for text in texts], role)


def test_anchors_are_queries_whether_or_not_they_are_titles_of_the_index(tmp_path: Path) -> None:
    titles = titles_like(150)
    anchors, positives = titles[:40], titles[40:80]
    found = []
    for name, held in (("with", titles), ("without", titles[40:])):
        index_corpus(tmp_path / name, [str(row) for row in range(len(held))], held, Prompted())
        with Index.open(tmp_path / name, Prompted()) as index:
            found.append(mine(index, list(zip(anchors, positives, strict=True)), margin=0.3, range_max=150))
    encoder = Prompted()
    documents = normalise(encoder.encode(titles, "document"))
    for (anchor, positive, negative), query in zip(found[1].rows, normalise(encoder.encode(
            [row[0] for row in found[1].rows], "query")), strict=True):
        cosine = dict(zip(titles, documents @ query, strict=True))
        allowed = {title for title in titles[40:] if cosine[title] <= cosine[positive] - 0.3 * abs(cosine[positive])}
        assert anchor not in titles[40:] and cosine[negative] == max(cosine[title] for title in allowed - {positive})
    # an anchor of the corpus may be a negative of another; beside these the rows are the same
    same = [row for row in found[0].rows if row[2] not in anchors]
    assert len(same) > 10 and set(same) <= set(found[1].rows)


def test_without_thresholds_it_is_said_that_all_the_most_similar_count(tmp_path: Path,
                                                                  caplog: pytest.LogCaptureFixture) -> None:
    build(tmp_path, titles_like(40))
    with Index.open(tmp_path, WordEncoder()) as index:
        assert len(near_duplicates(index, 25)) == 25
    assert len(caplog.records) == 1
    assert "each of its 25 most similar pairs counts as a positive; give fewer as -k N" in caplog.text
    assert "--pairs-from FILE" in caplog.text


def test_what_a_text_is_paired_with_either_way_round_is_never_its_negative(tmp_path: Path) -> None:
    anchor, positive, third = "storm storm storm", "storm storm storm opera", "storm storm storm drought markets"
    build(tmp_path, [anchor, positive, third, *titles_like(20)])
    with Index.open(tmp_path, WordEncoder()) as index:
        assert mine(index, [(anchor, positive)]).rows == [(anchor, positive, third)]
        rows = mine(index, [(anchor, positive), (third, anchor)], margin=0.05).rows
    assert rows[0][:2] == (anchor, positive) and rows[0][2] not in (anchor, positive, third)


def test_mining_agrees_with_the_stock_miner(tmp_path: Path) -> None:
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, mine_hard_negatives
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    titles = titles_like(200, seed=3)
    words = sorted({word for title in titles for word in title.split()} | {"[UNK]"})
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    torch.manual_seed(0)
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=24)], device="cpu")

    class Stock(TextEncoder):
        fingerprint = "stock" * 8

        def encode(self, texts: list[str], role: str | None = None) -> np.ndarray:
            return model.encode(texts)

    corpus, anchors = titles[:150], titles[150:]
    index_corpus(tmp_path, [str(row) for row in range(150)], corpus, Stock())
    pairs = list(zip(anchors, corpus[:50], strict=True))
    stock = mine_hard_negatives(
        Dataset.from_dict({"anchor": anchors, "positive": corpus[:50]}), model, corpus=corpus, num_negatives=2,
        relative_margin=0.05, range_min=1, range_max=60, output_format="n-tuple", verbose=False)
    expected = [(row["anchor"], row["positive"], row["negative_1"], row["negative_2"]) for row in stock]
    with Index.open(tmp_path, Stock()) as index:
        found = mine(index, pairs, negatives=2, margin=0.05, range_min=1, range_max=60)
    assert found.rows == expected
    assert 10 < len(expected) < 50  # some pairs have too few left in both


def mined(*arguments: object) -> int:
    from sentence_forge.search.mine import main

    return main([str(argument) for argument in arguments])


def test_what_is_mined_trains_by_the_next_command(command: Command, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    titles = titles_like(80)
    titles += [title.replace("report", "new report") for title in titles[:30]]
    corpus, news = tmp_path / "titles.csv", tmp_path / "news"
    corpus.write_text("title\n" + "\n".join(titles) + "\n")
    assert command("train", "loss=mnrl", f"data={corpus}", *TINY, "loop.max_steps=3",
                   f"hydra.run.dir={tmp_path / 'run'}").code == 0
    done = command("export", f"model={tmp_path / 'run'}", f"corpus={corpus}", f"out={news}")
    assert done.code == 0, done.err
    assert mined(news, tmp_path / "own.csv", "-k", 50, "--margin", "0.001", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    for old_form in ([news, "--mine", tmp_path / "old.csv", "-k", 50, "--margin", "0.001"],
                     [news, f"--mine={tmp_path / 'older.csv'}", "-k", 50, "--margin", "0.001"]):
        assert command("search", *map(str, old_form)).code == 0
    assert (tmp_path / "old.csv").read_bytes() == (tmp_path / "older.csv").read_bytes() == (
        tmp_path / "own.csv").read_bytes()
    own = rows_of(tmp_path / "own.csv")
    assert own[0] == ["anchor", "positive", "negative"]
    assert said["triplets"] == len(own) - 1 > 20
    done = command("train", "loss=mnrl", f"data={tmp_path / 'own.csv'}", *TINY, "loop.max_steps=2",
                   f"hydra.run.dir={tmp_path / 'next'}")
    assert done.code == 0 and "(triplet)" in done.err, done.err

    pairs = tmp_path / "pairs.csv"
    pairs.write_text('anchor,positive\n' + "\n".join(f'"a storm, ""{n}""",{title}' for n, title in enumerate(
        row[0] for row in own[1:21])) + "\n")
    assert mined(news, tmp_path / "given.csv", "--pairs-from", pairs, "--negatives", 2, "--margin", 0) == 0
    given = rows_of(tmp_path / "given.csv")
    assert given[0] == ["anchor", "positive", "negative", "negative_2"]
    assert {row[0] for row in given[1:]} <= {f'a storm, "{n}"' for n in range(20)}
    done = command("train", "loss=mnrl", f"data={tmp_path / 'given.csv'}", *TINY, "loop.max_steps=2",
                   f"hydra.run.dir={tmp_path / 'more'}")
    assert done.code == 0 and "(triplet)" in done.err, done.err


def test_what_cannot_be_mined_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    news = tmp_path / "index"
    build(news, titles_like(120))
    (tmp_path / "titles.csv").write_text("title\na title\n")
    (tmp_path / "there.csv").write_text("anchor,positive\na,b\n")
    (tmp_path / "scores.csv").write_text("sentence1,sentence2,score\na,b,4\nc,d,1\n")
    (tmp_path / "same.csv").write_text("anchor,positive\na,a\n")
    (tmp_path / "bad.csv").write_text("anchor,positive\na,\n")
    out = tmp_path / "out.csv"
    for arguments, expected in [
        ([tmp_path / "there.csv"], "is there already, and would be overwritten"),
        ([tmp_path / "out.txt"], r"must end in .csv"),
        ([tmp_path / "no" / "out.csv"], "its folder isn't there"),
        ([out, "--pairs-from", tmp_path / "none.csv"], "none.csv: no such file"),
        ([out, "--pairs-from", tmp_path / "titles.csv"], "pairs to mine for have anchor, positive"),
        ([out, "--pairs-from", tmp_path / "scores.csv"], "--least-score says from which on"),
        ([out, "--pairs-from", tmp_path / "scores.csv", "--least-score", "9"], "at least 9"),
        ([out, "--pairs-from", tmp_path / "there.csv", "--least-score", "1"], "holds no scores"),
        ([out, "--pairs-from", tmp_path / "same.csv"], "no pair of two different texts"),
        ([out, "--pairs-from", tmp_path / "bad.csv"], "bad.csv, line 2 (row 1), column positive: is empty"),
        ([out, "--negatives", "0"], "--negatives 0: must be 1 or more"),
        ([out, "--margin", "5"], "--margin 5: is a fraction"),
        ([out, "--range-min", "100"], "leave no room for 1 negative"),
        ([out, "--margin", "0.9", "--range-max", "1"], "a smaller --margin or a larger --range-max"),
        ([out, "--repeats"], "unrecognized arguments: --repeats; see python -m search.mine --help"),
        ([out, "a query"], "unrecognized arguments: a query"),
        ([out, "-k", "0"], "-k 0: must be 1 or more"),
        ([], "required: OUT.csv"),
    ]:
        assert mined(news, *arguments) == 2, arguments
        said = capsys.readouterr().err.strip()
        assert said.startswith("error: ") and "\n" not in said and expected in said, said
        assert not out.exists()


def test_a_title_that_begins_like_a_formula_is_text_in_a_spreadsheet_and_itself_in_a_training(tmp_path: Path) -> None:
    rows = [('=HYPERLINK("http://x","y")', "+1 storm", "-1 opera"), ("@SUM(1+1)*cmd", "'=quoted", "\tstorm, \"x\"")]
    write_triplets(tmp_path / "mined.csv", rows)
    cells = [cell for row in rows_of(tmp_path / "mined.csv") for cell in row]
    assert len(cells) == 9 and not [cell for cell in cells if cell[:1] in "=+-@\t\r"]
    assert read_pairs(tmp_path / "mined.csv") == [row[:2] for row in rows]


def test_scored_pairs_and_nli_rows_give_pairs(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("sentence1,sentence2,score\na,b,4\nc,d,1\ne,f,4.5\n")
    assert read_pairs(tmp_path / "scores.csv", 4.0) == [("a", "b"), ("e", "f")]
    (tmp_path / "nli.csv").write_text("premise,hypothesis,label\na,b,entailment\na,c,contradiction\n")
    assert read_pairs(tmp_path / "nli.csv") == [("a", "b")]
    (tmp_path / "mined.csv").write_text("anchor,positive,negative\na,b,c\n")
    assert read_pairs(tmp_path / "mined.csv") == [("a", "b")]
    with pytest.raises(UserError, match="no such file"):
        read_pairs(tmp_path / "none.csv")


# --- bare titles --------------------------------------------------------------------------------------------------

SPY = '''
import json
from pathlib import Path
import torch
from sentence_forge.losses.mnrl import MultipleNegativesRanking

class Spy(MultipleNegativesRanking):
    """Notes how far each anchor is from its positive, and how alike the differences of two rows are."""

    def forward(self, embeddings, labels, text_ids):
        anchor, positive = (each.detach() for each in embeddings)
        away = torch.nn.functional.normalize(anchor - positive, dim=-1) @ \\
            torch.nn.functional.normalize(anchor - positive, dim=-1).T
        loss = super().forward(embeddings, labels, text_ids)
        with Path("seen.jsonl").open("a") as file:
            file.write(json.dumps({"least": float((anchor - positive).norm(dim=-1).min()), "rows": len(anchor),
                                   "alike": float(away.fill_diagonal_(0).abs().max()), "loss": float(loss.detach()),
                                   "same_text": bool((text_ids[:, 0] == text_ids[:, 1]).all()),
                                   "distinct": int(text_ids[:, 0].unique().numel())}) + "\\n")
        return loss
'''


@pytest.mark.parametrize(("dropout", "fast"), [(0.1, "true"), (0.1, "false"), (0.0, "true")])
def test_a_bare_title_is_its_own_positive_under_another_dropout_mask(
        command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropout: float, fast: str) -> None:
    (tmp_path / "dropout_spy.py").write_text(SPY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "dropout_spy", raising=False)
    titles = [*titles_like(60), *titles_like(5)]  # the last five repeat
    (tmp_path / "titles.csv").write_text("title\n" + "\n".join(titles) + "\n")
    done = command("train", "loss=mnrl", "data=titles.csv", "plugins=[dropout_spy]", "loss._target_=dropout_spy.Spy",
                   *TINY, f"model.dropout={dropout}", f"loop.fast={fast}", "loop.max_steps=4",
                   f"hydra.run.dir={tmp_path / 'run'}")
    assert done.code == 0, done.err
    seen = [json.loads(line) for line in (tmp_path / "seen.jsonl").read_text().splitlines()]
    assert len(seen) == 4
    for batch in seen:
        assert "every model ranks first" in done.err
        assert batch["same_text"] and batch["distinct"] == batch["rows"] > 1  # no title twice in a batch
        assert np.isfinite(batch["loss"]) and batch["loss"] > 0.01  # a masked positive would be inf, masked others 0
        if dropout:
            assert batch["least"] > 0.01  # each text computed twice, with two masks
            assert batch["alike"] < 0.99  # and every row with masks of its own
        else:
            assert batch["least"] < 1e-5
