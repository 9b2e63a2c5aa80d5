"""The forward without padding against the padded one: each family, vectors and gradients, whatever the layout."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from conftest import TINY, Done
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sentence_forge.encoders.computing.autocast import cast_weights
from sentence_forge.encoders.computing.forward import Forward
from sentence_forge.encoders.computing.layout import by_length, in_bins
from sentence_forge.encoders.computing.matmul import rows_at_once
from sentence_forge.encoders.computing.tokens import Tokens
from sentence_forge.encoders.encoder import Encoder, load_encoder
from sentence_forge.encoders.making.build import from_scratch

TEXTS = ["storm hits the coast", "a", "markets fall again as rates rise", "opera opens", "the storm " * 9,
         "winter air is bad in the north of the country this year", "rates rise", "coast " * 40] * 3
WAYS = {"bert": "flat", "distilbert": "flat", "albert": "flat", "roberta": "flat", "xlmr": "flat", "modernbert": "flat",
        "mpnet": "groups", "xlnet": "groups"}


@pytest.fixture(scope="module", params=WAYS)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Encoder]:
    name = str(request.param)
    return name, load_encoder(tiny_models.make(name, tmp_path_factory.mktemp(name), TEXTS), device="cpu")


def gradients(model: SentenceTransformer) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def run(forward: Forward, tokens: Tokens) -> tuple[Tensor, Tensor]:
    model = forward.model
    model.zero_grad(set_to_none=True)
    vectors = forward(tokens)
    # a loss that no symmetry makes flat
    (vectors * torch.linspace(-1, 1, vectors.numel()).view_as(vectors)).sum().backward()
    return vectors.detach(), gradients(model)


@pytest.fixture(params=[1, 64], ids=["", "filled"])
def multiple(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams as they are, and filled up as on a processor where few shapes are best."""
    monkeypatch.setattr("sentence_forge.encoders.computing.flat_way.rows_at_once", lambda device: request.param)


@pytest.mark.usefixtures("multiple")
@pytest.mark.parametrize("how", [{}, {"rows": True}, {"tokens_at_once": 40}, {"rows": True, "tokens_at_once": 60}],
                         ids=["spans", "rows", "recomputed", "rows recomputed"])
def test_each_way_gives_what_padding_gives(family: tuple[str, Encoder], how: dict[str, int]) -> None:
    name, encoder = family
    model = encoder.model.eval()
    tokens = encoder.tokenize(TEXTS)
    fast = Forward(model, **how)
    vectors, slopes = run(fast, tokens)
    assert fast.way == WAYS[name]
    right, slopes_right = run(Forward(model, fast=False), tokens)
    torch.testing.assert_close(vectors, right, atol=2e-6, rtol=1e-5)
    assert (slopes - slopes_right).norm() <= 1e-5 * slopes_right.norm()


def test_flat_spans_compute_no_padding_and_stock_encode_is_left_alone(family: tuple[str, Encoder]) -> None:
    name, encoder = family
    forward = Forward(encoder.model.eval())
    with torch.no_grad():
        forward(encoder.tokenize(TEXTS))
    assert forward.work.real == encoder.tokenize(TEXTS).offsets[-1]
    if WAYS[name] == "flat":
        assert 0 <= forward.work.padded - forward.work.real < rows_at_once(torch.device("cpu")), "of one stream"
    stock = SentenceTransformer(modules=list(encoder.model.children()), device="cpu")
    np.testing.assert_allclose(encoder.encode(TEXTS), stock.encode(TEXTS), atol=2e-6)


def test_recomputing_draws_the_same_dropout_in_both_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(tiny_models.make("bert", tmp_path, TEXTS), device="cpu")
    tokens = encoder.tokenize(TEXTS)
    encoder.model.train()

    def trained() -> tuple[Tensor, Tensor]:
        torch.manual_seed(3)
        return run(Forward(encoder.model, tokens_at_once=40), tokens)

    recomputed = trained()
    monkeypatch.setattr("sentence_forge.encoders.computing.flat_way.checkpoint",
                        lambda call, *given, use_reentrant: call(*given))
    kept = trained()
    assert torch.equal(recomputed[0], kept[0])
    torch.testing.assert_close(recomputed[1], kept[1], atol=1e-6, rtol=1e-5)


def test_a_model_that_reads_the_mask_its_own_way_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = load_encoder(tiny_models.make("bert", tmp_path, TEXTS), device="cpu")
    bert = encoder.model[0].auto_model
    inner = bert.embeddings.forward

    def looks_at_positions(*args: object, **kwargs: object) -> Tensor:
        kwargs["position_ids"] = None  # as a model would that counts positions along the row
        return inner(*args, **kwargs)

    bert.embeddings.forward = looks_at_positions
    caplog.set_level("INFO")
    forward = Forward(encoder.model.eval())
    with torch.no_grad():
        vectors = forward(encoder.tokenize(TEXTS))
        right = Forward(encoder.model, fast=False)(encoder.tokenize(TEXTS))
    assert forward.way == "groups" and "isn't taken" in caplog.text
    torch.testing.assert_close(vectors, right, atol=2e-6, rtol=1e-5)


class Casts(TorchDispatchMode):
    """Counts the tensors that change their precision."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        self.count += function is torch.ops.aten._to_copy.default and made.dtype != args[0].dtype
        return made


@pytest.mark.parametrize("how", [{}, {"rows": True}, {"rows": True, "tokens_at_once": 60}],
                         ids=["spans", "rows", "recomputed"])
def test_weights_are_cast_together_and_autocast_computes_the_same(family: tuple[str, Encoder], how: dict[str, int],
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    name, encoder = family
    if WAYS[name] != "flat":
        pytest.skip("is not computed without padding")
    model, tokens = encoder.model.eval(), encoder.tokenize(TEXTS)
    frozen = next(module for module in model.modules() if isinstance(module, torch.nn.Linear)).weight
    frozen.requires_grad_(False)
    found = []
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16), Casts() as counter:
            found.append((*run(Forward(model, **how), tokens), counter.count))
        assert frozen.grad is None
        # the second time autocast does it
        monkeypatch.setattr("sentence_forge.encoders.computing.flat_way.cast_weights", lambda model: {})
    (vectors, slopes, casts), (vectors_right, slopes_right, casts_right) = found
    vectors_exact, slopes_exact = run(Forward(model, **how), tokens)
    frozen.requires_grad_(True)
    assert torch.equal(vectors, vectors_right)
    assert not torch.equal(vectors, vectors_exact), "nothing was rounded"
    if "tokens_at_once" in how:  # autocast keeps a cast weight, so that the parts' gradients add up in bf16
        assert (slopes - slopes_exact).norm() <= 1.05 * (slopes_right - slopes_exact).norm()
    else:
        assert torch.equal(slopes, slopes_right)
    assert slopes.dtype == torch.float32
    linear = sum(isinstance(module, torch.nn.Linear) for module in model.modules())
    assert casts <= casts_right - linear


class Sizes(TorchDispatchMode):
    """Keeps how large the tensors are that are made, and which operations take a tensor of booleans."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.of_booleans = 0, 0

    def __torch_dispatch__(self, function: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.largest = max(self.largest, made.numel())
        self.of_booleans += any(isinstance(each, Tensor) and each.dtype == torch.bool for each in args)
        return made


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("mode", ["mean", "max", "cls", "lasttoken", "weightedmean", ("cls", "mean")])
def test_every_pooling_gives_what_padding_gives(mode: Any, rows: bool, tmp_path: Path) -> None:
    transformer = load_encoder(tiny_models.make("bert", tmp_path, TEXTS), device="cpu").model[0]
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode=mode)
    dense = Dense(pooling.get_embedding_dimension(), 7)
    model = SentenceTransformer(modules=[transformer, pooling, dense, Normalize()], device="cpu").eval()
    tokens = Encoder(model).tokenize(TEXTS)
    for half in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            fast = Forward(model, rows=rows)
            vectors, slopes = run(fast, tokens)
            right, slopes_right = run(Forward(model, fast=False), tokens)
        assert fast.way == "flat"
        near, slope = (2e-2, 0.2) if half else (2e-6, 1e-5)
        torch.testing.assert_close(vectors, right, atol=near, rtol=1e-5)
        assert (slopes - slopes_right).norm() <= slope * slopes_right.norm()


@pytest.mark.parametrize("mode", ["mean", "max", "cls", "lasttoken"])
def test_one_long_text_makes_no_rectangle_of_all(mode: Any, tmp_path: Path) -> None:
    transformer = load_encoder(tiny_models.make("bert", tmp_path, TEXTS), device="cpu").model[0]
    width = transformer.get_embedding_dimension()
    model = SentenceTransformer(modules=[transformer, Pooling(width, pooling_mode=mode)], device="cpu").eval()
    texts = ["a"] * 200 + ["coast " * 60]
    tokens, forward = Encoder(model).tokenize(texts), Forward(model)
    run(forward, tokens)
    with Sizes() as sizes:
        run(forward, tokens)
    assert sizes.largest < len(texts) * tokens.lengths.max() * width / 4


def test_the_mask_of_rows_is_made_once_for_all_layers(tmp_path: Path) -> None:
    counts = []
    for layers in (1, 4):
        encoder = Encoder(from_scratch(lambda: TEXTS, hidden=16, layers=layers, heads=2, vocabulary=60))
        tokens, forward = encoder.tokenize(TEXTS), Forward(encoder.model.eval(), rows=True)
        run(forward, tokens)
        with Sizes() as sizes:
            run(forward, tokens)
        counts.append(sizes.of_booleans)
    assert 0 < counts[0] == counts[1]


def test_layers_that_are_not_linear_are_left_to_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert cast_weights(torch.nn.LayerNorm(3)) == {}
        assert cast_weights(torch.nn.Sequential(torch.nn.Linear(2, 2)))["0.weight"].dtype == torch.bfloat16
    assert cast_weights(torch.nn.Linear(2, 2)) == {}


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a compiler on a CPU")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # torch's own
def test_compiled_rows_give_what_padding_gives(tmp_path: Path) -> None:
    encoder = load_encoder(tiny_models.make("bert", tmp_path, TEXTS), device="cpu")
    tokens = encoder.tokenize(TEXTS)
    encoder.model.eval()
    compiled = Forward(encoder.model, compiled=True)
    vectors, _ = run(compiled, tokens)
    right, _ = run(Forward(encoder.model, fast=False), tokens)
    assert compiled.way == "flat" and compiled.work.padding_share > 0
    torch.testing.assert_close(vectors, right, atol=2e-6, rtol=1e-5)


class Skewed(torch.autograd.Function):
    """As it should be forward, and wrong backward."""

    @staticmethod
    def forward(ctx: Any, given: Tensor) -> Tensor:
        return given.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return 1.1 * gradients[0]


class Refusing(Skewed):
    """As it should be forward, and refused backward."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise RuntimeError("no backward for this head width")


def attention(wrapped: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """A kernel for texts of any length that is right forward."""
    def attend(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, *_: object, scale: float, **__: object) -> Tensor:
        pieces = [[each[a:b].transpose(0, 1) for each in (q, k, v)] for a, b in itertools.pairwise(starts.tolist())]
        done = [torch.nn.functional.scaled_dot_product_attention(*piece, scale=scale) for piece in pieces]
        return wrapped(torch.cat([each.transpose(0, 1) for each in done]))
    return attend


@pytest.mark.parametrize(("wrapped", "kept"), [(torch.clone, True), (Skewed.apply, False), (Refusing.apply, False)])
def test_a_kernel_that_is_wrong_backward_is_given_up_before_it_trains(
        wrapped: Callable[[Tensor], Tensor], kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", attention(wrapped))
    encoder = load_encoder(tiny_models.make("bert", tmp_path, TEXTS), device="cpu")
    tokens = encoder.tokenize(TEXTS)
    encoder.model.eval()
    forward = Forward(encoder.model, rows=True)
    exact = run(forward, tokens)[1]
    forward = Forward(encoder.model, rows=True)
    forward.kernel = True
    with torch.autocast("cpu", dtype=torch.bfloat16):
        slopes = run(forward, tokens)[1]
    assert forward.kernel == kept
    assert (slopes - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("wrapped", [Skewed.apply, Refusing.apply])
@pytest.mark.parametrize("half", [False, True])
def test_a_compiled_model_that_learns_something_else_is_given_up(
        wrapped: Callable[[Tensor], Tensor], half: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture) -> None:
    def miscompiled(model: torch.nn.Module, **_: object) -> Callable[..., Any]:
        def call(**inputs: Any) -> Any:
            made = model(**inputs)
            made.last_hidden_state = wrapped(made.last_hidden_state)
            return made
        return call

    monkeypatch.setattr(torch, "compile", miscompiled)
    encoder = load_encoder(tiny_models.make("bert", tmp_path, TEXTS), device="cpu")
    tokens = encoder.tokenize(TEXTS)
    encoder.model.eval()
    exact = run(Forward(encoder.model), tokens)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        slopes = run(Forward(encoder.model, compiled=True), tokens)[1]
    assert half or "loop.compile=true isn't used" in caplog.text, "a warning is given once"
    assert (slopes - exact).norm() < (0.03 if half else 1e-5) * exact.norm()


def test_rows_hold_each_text_once_and_waste_little() -> None:
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.gamma(4, 4, 256).astype(np.int64), 3, 60)
    layout = in_bins(lengths, 128, multiple=2)
    segments = layout.segments()
    assert segments.shape[0] % 2 == 0
    for text, length in enumerate(lengths):
        rows, columns = np.nonzero(segments == text)
        assert len(columns) == length and len(set(rows)) == 1 and np.ptp(columns) == length - 1
    assert layout.size < 1.1 * lengths.sum() + 2 * 128
    bounds = layout.bounds()
    assert len(bounds) == len(lengths) + len(segments) + 1 and bounds[-1] == layout.size
    pieces = np.diff(bounds)
    assert sorted(pieces[pieces > 0]) == sorted([*lengths, *(n for n in (segments == -1).sum(axis=1) if n)])


def test_spans_follow_one_another() -> None:
    layout = by_length(np.array([2, 2, 5, 7]))
    assert layout.spans == ((2, 2), (1, 5), (1, 7)) and layout.starts.tolist() == [0, 2, 4, 9]
    assert layout.size == 16
    filled = by_length(np.array([2, 2, 5, 7]), multiple=10)
    assert filled.spans == (*layout.spans, (1, 4)) and filled.size == 20 and filled.starts.tolist() == [0, 2, 4, 9]


def test_a_run_within_a_token_budget_learns_what_one_without_learns(command: Callable[..., Done]) -> None:
    logged = []
    for extra in ("loop.tokens_at_once=null", "loop.tokens_at_once=100", "loop.fast=false"):
        done = command("train", *TINY, "loss=mnrl", "loss.false_negative_margin=0.05", "model.dropout=0", extra,
                       "loop.max_steps=6", "loop.log_every=1",
                       f"hydra.run.dir={extra}")
        assert done.code == 0, done.err
        lines = [json.loads(line) for line in Path(extra, "metrics.jsonl").read_text().splitlines()]
        logged.append([line["train/loss"] for line in lines if "train/loss" in line])
    assert len(logged[0]) == 6
    np.testing.assert_allclose(logged[1], logged[0], rtol=1e-5)
    np.testing.assert_allclose(logged[2], logged[0], rtol=1e-5)
