"""Build a SentenceTransformer from a model's config: on pretrained weights, or a small BERT from scratch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from torch import nn
from transformers.utils.logging import disable_progress_bar

from sentence_forge.encoders.computing.chain import chains_of
from sentence_forge.encoders.making.checks import check_loaded, longest, make_ready
from sentence_forge.encoders.making.convert import as_safetensors
from sentence_forge.encoders.making.families import warn_of_missing_prompts
from sentence_forge.encoders.making.layouts import modern_layout
from sentence_forge.encoders.making.lora import add, merged
from sentence_forge.encoders.making.modules import (
    drop_layers,
    pooling_mode,
    with_dense,
    with_normalize,
    with_pooling,
)
from sentence_forge.encoders.making.prompts import set_prompts
from sentence_forge.encoders.making.safety import vet
from sentence_forge.encoders.making.weights import Weights, locate
from sentence_forge.encoders.making.wordpiece import learn_wordpiece
from sentence_forge.runtime.errors import UserError, one_of
from sentence_forge.runtime.values import check_dims

log = logging.getLogger(__name__)
disable_progress_bar()  # a bar for 100 tensors, in the middle of our own lines
for module in ("modeling_utils", "distributed.tensor_parallel"):  # a table of weights, of which check_loaded says
    logging.getLogger(f"transformers.{module}").setLevel(logging.ERROR)  # a line, and all layers' names, as not sharded


def pretrained(
    path: str,
    *,
    package: str | None = None,
    max_length: int | None = None,
    pooling: str | None = None,
    dense: Sequence[Mapping[str, Any]] = (),
    normalize: bool | None = None,
    prompts: Mapping[str, str | None] | None = None,
    keep_layers: Sequence[int] | None = None,
    dtype: str = "float32",
    lora: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
) -> SentenceTransformer:
    """Build a model on pretrained weights.

    A sentence-transformers folder keeps its own modules; ``max_length``, ``pooling`` and ``normalize`` change them
    only where they are given, ``dense`` layers are added before the normalisation. A plain transformers checkpoint
    gets mean pooling unless `pooling` is given.

    Args:
        path: a folder, run, export or hub id (see ``encoders.making.weights.locate``).
        package: an installed Python package that carries the weights.
        max_length: tokens a text keeps, special tokens included; None is the model's own.
        pooling: mean, cls, max, mean_sqrt_len, weighted_mean or last_token; None is the model's own, else mean.
        dense: layers after the pooling, each ``{out_features, activation}``; new ones are seeded by ``seed``.
        normalize: whether vectors have unit length; None is the model's own, else no.
        prompts: put before texts by their role, ``query``, ``document`` or ``default``; None is the model's own.
        keep_layers: numbers from 0 of the transformer's layers to keep; None keeps all.
        dtype: of the parameters; training wants float32.
        lora: see ``making.lora.add``; adapters that lie in a sentence-transformers folder are merged on loading.
        trust_remote_code: whether code in the folder may run.
        seed: of new layers' weights.

    Raises:
        UserError: the weights can't be had, or a value is unknown.
    """
    weights = locate(path, package)
    log.info("model: weights from %s", weights.origin)
    vet(weights.folder, trust_remote_code=trust_remote_code)
    weights = as_safetensors(weights, path)
    model = _loaded(weights, _dtype(dtype), trust_remote_code=trust_remote_code)
    drop_layers(model, keep_layers)
    modules = with_pooling(list(model.children()), pooling)
    modules = with_dense(modules, dense, seed)
    modules = with_normalize(modules, normalize)
    if modules != list(model.children()):
        prompts_now = {name: prompt or "" for name, prompt in model.prompts.items()}
        model = SentenceTransformer(modules=modules, device="cpu", prompts=prompts_now,
                                    default_prompt_name=model.default_prompt_name,
                                    similarity_fn_name=model.similarity_fn_name,
                                    truncate_dim=None if dense else model.truncate_dim)
    set_prompts(model, prompts or {})
    if max_length is not None:
        _cut_at(model, max_length)
    make_ready(model)
    if not any(prompt is not None for prompt in (prompts or {}).values()):
        warn_of_missing_prompts(model, path, weights.folder)
    return add(model.to(_dtype(dtype)), lora, seed)  # modules that take no dtype when they are loaded


def _loaded(weights: Weights, dtype: torch.dtype, *, trust_remote_code: bool) -> SentenceTransformer:
    """Load a folder as it is; adapters in it are merged, and a plain transformers checkpoint gets mean pooling."""
    trust = {"trust_remote_code": trust_remote_code}
    model_kwargs: dict[str, Any] = {"dtype": dtype}
    if weights.is_sentence_transformer:
        with modern_layout(weights.folder) as folder:
            return merged(_loading(weights.folder, lambda: SentenceTransformer(
                str(folder), device="cpu", trust_remote_code=trust_remote_code, model_kwargs=model_kwargs,
                local_files_only=True)))
    transformer = _loading(weights.folder, lambda: Transformer(
        str(weights.folder), model_kwargs=model_kwargs | trust, processor_kwargs=dict(trust), config_kwargs=trust))
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[transformer, pooling], device="cpu")


def truncate(model: SentenceTransformer, dim: int) -> None:
    """Let ``model`` give the first ``dim`` numbers of each vector; its folder keeps that (``truncate_dim``).

    Raises:
        UserError: it has fewer.
    """
    whole = model.get_embedding_dimension() or 0
    if check_dims([dim], whole, "dim") != (whole,):
        model.truncate_dim = dim


def from_scratch(
    texts: Callable[[], list[str]],
    *,
    vocabulary: int = 8000,
    hidden: int = 256,
    layers: int = 4,
    heads: int = 4,
    max_length: int = 64,
    pooling: str = "mean",
    dropout: float = 0.1,
    normalize: bool = False,
    prompts: Mapping[str, str | None] | None = None,
    seed: int = 0,
) -> SentenceTransformer:
    """Build a small BERT with random weights and a WordPiece tokenizer learnt from the run's own texts.

    Chinese characters are words of their own, as in BERT, so either language works, and nothing is downloaded.

    Args:
        texts: gives the run's texts (offered by the run).
        vocabulary: most entries the tokenizer may learn.
        hidden: width of the model; the feed-forward layers are four times as wide.
        layers: transformer layers.
        heads: attention heads; must divide ``hidden``.
        max_length: tokens a text keeps, special tokens included.
        pooling: as in ``pretrained``.
        dropout: of hidden states and attention.
        normalize: whether vectors have unit length.
        prompts: put before queries, documents and other texts.
        seed: of the weights.
    """
    least = {"vocabulary": (vocabulary, 1), "hidden": (hidden, 1), "layers": (layers, 1), "heads": (heads, 1),
             "max_length": (max_length, 3)}
    for name, (value, low) in least.items():
        if value < low:
            raise UserError(f"model.{name}: is {value}; it must be at least {low}")
    if hidden % heads:
        raise UserError(f"model.heads: {heads} does not divide model.hidden={hidden}")
    if not 0 <= dropout < 1:
        raise UserError(f"model.dropout: is {dropout}; it must be at least 0 and below 1")
    from transformers import BertConfig, BertModel, BertTokenizer

    learnt = learn_wordpiece(texts(), vocabulary, by="mini")
    tokenizer = BertTokenizer(tokenizer_object=learnt, model_max_length=max_length)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * hidden, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
        max_position_embeddings=max(max_length, 64), pad_token_id=tokenizer.pad_token_id)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bert = BertModel(config)
    modules: list[nn.Module] = [_as_transformer(bert, tokenizer), Pooling(hidden, pooling_mode=pooling_mode(pooling))]
    if normalize:
        modules.append(Normalize())
    model = SentenceTransformer(modules=modules, device="cpu")
    set_prompts(model, prompts or {})
    _cut_at(model, max_length)
    return model


def _as_transformer(model: Any, tokenizer: Any) -> Transformer:  # noqa: ANN401 - any transformers pair
    """Wrap a model and tokenizer made in memory as ST's module, which only loads from folders."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return Transformer(folder, model_kwargs={"dtype": torch.float32})


def _loading(folder: Any, load: Callable[[], Any]) -> Any:  # noqa: ANN401 - gives back what load gives
    """Run a library's loader on a user's folder: whatever it stumbles over is the folder's fault."""
    try:
        model = load()
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "custom code" in said:
            raise UserError(f"{folder}: wants to run code of its own; if you trust it, type "
                            "model.trust_remote_code=true") from error
        raise UserError(f"{folder}: can't be loaded as a model: {said}; if a file of it is damaged, fetch or make "
                        "it again") from error
    check_loaded(model, folder)
    return model


def _dtype(name: str) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise UserError(f"model.dtype: there is no {name!r}; {one_of(known, name)}")
    return known[name]


def _cut_at(model: SentenceTransformer, length: int) -> None:
    """Cut texts at the length that a user typed.

    Raises:
        UserError: the weights don't take that many tokens.
    """
    for chain in chains_of(model).values():
        most = longest(chain)
        if not chain.static and (length < 3 or (most or length) < length):
            range_ = f"3..{most}, the model's positions" if most else "what a text needs, 3 or more"
            raise UserError(f"model.max_length: {length} is outside {range_}")
        chain.cut_at(length)
