"""Tokens kept on disk: made once, the same, never in the way of a run."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, Done
from tokenizers import Tokenizer, models, pre_tokenizers

from sentence_forge.encoders.computing import token_cache
from sentence_forge.encoders.computing.token_cache import tokenize_once, tokenizer_hash
from sentence_forge.encoders.computing.tokens import Tokens, tokenize
from sentence_forge.runtime.cache import MOST_GIB, ROOT

REPOSITORY = Path(__file__).parent.parent
TEXTS = [f"text {number % 97} of {number} words" for number in range(20_000)]


def word_tokenizer(words: Sequence[str] = ("text", "of", "words")) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(["[UNK]", *words])}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


class Counting:
    """Tokenises, and counts the texts it was given."""

    def __init__(self) -> None:
        self.tokenizer, self.texts = word_tokenizer(), 0

    def __call__(self, texts: Sequence[str]) -> Tokens:
        self.texts += len(texts)
        return tokenize(self.tokenizer, texts, None)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ROOT, str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir())


def assert_same(tokens: Tokens, texts: Sequence[str]) -> None:
    whole = tokenize(word_tokenizer(), texts, None)
    np.testing.assert_array_equal(tokens.ids, whole.ids)
    np.testing.assert_array_equal(tokens.offsets, whole.offsets)
    assert tokens.truncated == whole.truncated


def test_the_second_time_nothing_is_tokenised_and_nothing_is_in_memory(cache: Path) -> None:
    counting = Counting()
    for _ in range(2):
        tokens = tokenize_once(TEXTS, counting, "a")
        assert_same(tokens, TEXTS)
        assert not tokens.ids.flags.owndata and not tokens.ids.flags.writeable  # memory-mapped
        assert counting.texts == len(TEXTS)
    some = np.array([19_999, 3, 3, 0])
    assert_same(tokens.take(some), [TEXTS[number] for number in some])


def test_other_texts_another_order_and_another_tokenizer_are_tokenised_anew(cache: Path) -> None:
    counting = Counting()
    for texts, key in [(TEXTS, "a"), (TEXTS[::-1], "a"), ([*TEXTS, "more"], "a"), (TEXTS, "b")]:
        before = counting.texts
        assert_same(tokenize_once(texts, counting, key), texts)
        assert counting.texts == before + len(texts)
    assert len(entries(cache)) == 4


def test_the_hash_of_a_tokenizer_is_of_what_decides_the_ids() -> None:
    one = tokenizer_hash(word_tokenizer(), max_length=8, prompt="")
    truncating = word_tokenizer()
    truncating.enable_truncation(3)  # whoever called last; how texts are cut is max_length here
    truncating.enable_padding()
    assert tokenizer_hash(truncating, max_length=8, prompt="") == one
    others = {tokenizer_hash(word_tokenizer(), max_length=9, prompt=""),
              tokenizer_hash(word_tokenizer(), max_length=8, prompt="query: "),
              tokenizer_hash(word_tokenizer(["of", "text", "words"]), max_length=8, prompt="")}
    assert len(others | {one}) == 4
    assert tokenizer_hash(object(), max_length=8) is None


def test_few_texts_and_an_unknown_tokenizer_leave_no_trace(cache: Path) -> None:
    assert_same(tokenize_once(TEXTS[:-1], Counting(), "a"), TEXTS[:-1])
    assert_same(tokenize_once(TEXTS, Counting(), None), TEXTS)
    assert not cache.exists()
    assert len(tokenize_once([], Counting(), "a")) == 0


@pytest.mark.parametrize("damage", ["flip", "cut", "no manifest"])
def test_a_damaged_entry_is_made_anew_with_one_line(cache: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    tokenize_once(TEXTS, Counting(), "a")
    file = entries(cache)[0] / ("manifest.json" if damage == "no manifest" else "ids.npy")
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.unlink()
    if damage != "no manifest":
        file.write_bytes(content if damage == "flip" else content[:-40])
    counting = Counting()
    assert_same(tokenize_once(TEXTS, counting, "a"), TEXTS)
    assert counting.texts == len(TEXTS)
    assert [record.getMessage().partition(":")[0] for record in caplog.records
            if record.levelname == "WARNING"] == ["made anew"]
    assert_same(tokenize_once(TEXTS, Counting(), "a"), TEXTS)


def test_a_folder_that_cannot_be_written_means_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                        caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(ROOT, str(tmp_path / "file" / "cache"))
    assert_same(tokenize_once(TEXTS, Counting(), "a"), TEXTS)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["tokens are not cached"]


def test_a_full_disk_means_no_cache_and_leaves_nothing(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # as a quota would: writing beyond fails
    try:
        assert_same(tokenize_once(TEXTS, Counting(), "a"), TEXTS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["tokens are not cached"]
    assert entries(cache) == []


def test_what_was_not_used_for_longest_goes_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {}
    for age, key in [(300, "a"), (200, "b")]:
        tokenize_once(TEXTS, Counting(), key)
        made[key] = next(path for path in entries(cache) if path not in made.values())
        os.utime(made[key], (time.time() - age,) * 2)
    counting = Counting()
    tokenize_once(TEXTS, counting, "a")  # used again, so b is the one that goes
    assert counting.texts == 0
    takes = sum(file.stat().st_size for file in made["a"].iterdir())
    monkeypatch.setenv(MOST_GIB, str(2.5 * takes / 2**30))
    tokenize_once(TEXTS, Counting(), "c")
    assert made["a"] in entries(cache) and made["b"] not in entries(cache) and len(entries(cache)) == 2
    monkeypatch.setenv(MOST_GIB, str(0.1 * takes / 2**30))
    assert_same(tokenize_once(TEXTS, Counting(), "d"), TEXTS)  # the newest stays, however large
    assert len(entries(cache)) == 1


def test_processes_that_want_the_same_make_it_once(tmp_path: Path) -> None:
    code = ("import sys, time\nsys.path[:0] = ['tests']\nfrom test_token_cache import *\ncounting = Counting()\n"
            f"os.environ[ROOT] = {str(tmp_path / 'cache')!r}\n"
            "while time.time() < float(sys.argv[1]): pass\n"
            "assert_same(tokenize_once(TEXTS, counting, 'a'), TEXTS)\nprint(counting.texts)")
    together = str(time.time() + 4)
    running = [subprocess.Popen([sys.executable, "-c", code, together], cwd=REPOSITORY, stdout=subprocess.PIPE,
                                text=True) for _ in range(3)]
    counts = [int(each.communicate(timeout=240)[0].split()[-1]) for each in running]
    assert [each.returncode for each in running] == [0, 0, 0]
    assert sorted(counts) == [0, 0, len(TEXTS)]


def test_a_second_run_takes_its_tokens_from_the_first(command: Callable[..., Done], monkeypatch: pytest.MonkeyPatch,
                                                      tmp_path: Path) -> None:
    monkeypatch.setattr(tokenize_once, "__kwdefaults__", {"least": 50})
    losses = []
    for name in ("one", "two"):
        done = command("train", "loss=mnrl", *TINY, "loop.max_steps=3", "loop.log_every=1", f"hydra.run.dir={name}")
        assert done.code == 0, done.err
        lines = map(json.loads, Path(name, "metrics.jsonl").read_text().splitlines())
        losses.append([line["train/loss"] for line in lines if "train/loss" in line])
    assert "tokens: from " in done.err
    assert len(entries(tmp_path / "cache" / "tokens")) == 1
    assert losses[0] == losses[1]
    assert token_cache.LEAST > 50
