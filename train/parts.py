"""Make what the loop needs of each part of a run: tokenised rows, a loss, a sampler and the measures on dev rows."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch

from sentence_forge.data_readers import checks
from sentence_forge.data_readers.lazy import LazyStrings
from sentence_forge.data_readers.shapes import SHAPES
from sentence_forge.encoders.computing.token_cache import tokenize_once
from sentence_forge.encoders.computing.tokens import Tokens
from sentence_forge.encoders.encoder import Encoder
from sentence_forge.encoders.protocol import Role
from sentence_forge.eval.dev import dev_measure, similarity_histograms
from sentence_forge.losses.base import Loss
from sentence_forge.losses.loss_set import OF_THE_RUN, LossSet
from sentence_forge.runtime import targets
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.values import check_dims
from sentence_forge.train.batches import Sampler
from sentence_forge.train.rows import Part, Rows
from sentence_forge.train.sources import PartConfig
from sentence_forge.train.split import Split
from sentence_forge.train.teachers import Teachers, checked

log = logging.getLogger(__name__)


class Data:
    """The rows of all parts of a run: those to train on, or those of dev.

    Attributes:
        parts: each with its rows.
        texts: of all of them; a text of two parts is there twice.
    """

    def __init__(self, parts: Sequence[PartConfig], split: str) -> None:
        self.parts: list[tuple[PartConfig, Split]] = []
        for part in parts:
            with part.keys_as_typed():
                self.parts.append((part, Split(part.source, part.shape, split)))
        texts = [each.texts for _, each in self.parts]
        self.texts: Sequence[str] = texts[0] if len(texts) == 1 else LazyStrings(texts)

    def __len__(self) -> int:
        """Return how many rows there are."""
        return sum(len(split.numbers) for _, split in self.parts)

    def report_overlap(self, dev: Data) -> None:
        """Say how many rows there are, and warn of dev rows that are also train rows."""
        for (part, split), (_, held_out) in zip(self.parts, dev.parts, strict=True):
            log.info("data%s: %d training rows (%s), %d for dev", part.name and f" {part.name}", len(split.numbers),
                     part.shape, len(held_out.numbers))
            checks.leakage(split.dataset, held_out.dataset, part.shape)

    def warn_if_uninformative(self, *, suite: bool) -> None:
        """Warn of dev rows that can't tell models apart, bare titles with themselves, unless a suite does."""
        if not suite and all(part.shape == "pair" and (split.text_ids[:, 0] == split.text_ids[:, 1]).all()
                             for part, split in self.parts):
            log.warning("the dev rows are texts with themselves, which every model ranks first, so the last weights "
                        "are kept; suite=sample, or suite=stsb_dev with data_dir=, picks the best by meaning")


def make_losses(data: Data, dim: int, plugins: Collection[str], teachers: Teachers) -> tuple[LossSet, list[Loss]]:
    """Return the losses of a run, and for each part which of them is its own.

    Parts whose loss is configured alike, on the same labels, share one, head included.

    Raises:
        UserError: a loss takes no such key; ``dims`` that the model doesn't have; a teacher that can't be had.
    """
    configs: dict[str, dict[str, Any]] = {}
    same: list[tuple[str, Any]] = []  # the name and what it was made of
    names = []
    for part, split in data.parts:
        labels = sorted(set(map(str, split.labels or ()))) if SHAPES[part.shape].label == "label" else []
        name = next((name for name, made_of in same if made_of == (part.loss, labels)), None)
        if name is None:
            name = part.name
            same.append((name, (part.loss, labels)))
            teacher = teachers.of(part.loss, part.loss_key)
            bound = targets.bound(part.loss, part.loss_key, plugins=plugins, omit=OF_THE_RUN, offers={
                "dim": dim, "labels": labels, **({} if teacher is None else {"teacher_dim": teacher.dim})})
            configs[name] = {**bound, **_dims(part, dim)}
        names.append(name)
    losses = LossSet(configs, plugins)
    return losses, [losses[name] for name in names]


def trained_dims(losses: LossSet) -> tuple[int, ...]:
    """Return the lengths that vectors can be cut to after the training, the longest first; none if the parts differ."""
    found = {tuple(config.get("dims", ())) for config in losses.configs.values()}
    return found.pop() if len(found) == 1 else ()


def _dims(part: PartConfig, dim: int) -> dict[str, Any]:
    """Return ``dims``, the longest first, and ``dim_weights`` in the same order, where a part's loss has them."""
    dims, weights = part.loss.get("dims"), part.loss.get("dim_weights")
    if dims is None:
        return {}
    key = f"{part.loss_key}.dims" if part.name else "dims"
    if dims == "auto":
        dims = [dim // divisor for divisor in (1, 2, 4, 8) if dim // divisor]
    ordered = check_dims(dims, dim, key)
    if weights is not None and len(weights) != len(dims):
        raise UserError(f"{key.removesuffix('s')}_weights: has {len(weights)} entries for {len(dims)} dims; give one "
                        "each")
    if dim not in dims:
        log.warning("%s: the model's own %d is not among %s, so whole vectors are not trained", key, dim, list(dims))
    weight = dict(zip(dims, weights or [1.0] * len(dims), strict=True))
    return {"dims": list(ordered), "dim_weights": [float(weight[each]) for each in ordered]}


def make_parts(data: Data, dev: Data, losses: Sequence[Loss], encoder: Encoder, teachers: Teachers) -> list[Part]:
    """Return a run's parts as the loop takes them.

    Raises:
        UserError: a label that its loss can't take, in train or dev; a loss of classes without a head that tells
            them apart.
    """
    made = []
    for (part, split), (_, held_out), loss in zip(data.parts, dev.parts, losses, strict=True):
        teacher = teachers.of(part.loss, part.loss_key)
        labels = _encoded_labels(loss, part, split) if teacher is None else _taught(part, split, teacher)
        if part.shape == "pair_class" and not loss.classes:
            raise UserError(f"{part.loss_key}={type(loss).__name__}: takes rows of classes (shape pair_class) and "
                            "tells none apart; give it `classes` and `predict`, or other shapes")
        if labels is None and SHAPES[part.shape].label == "label":
            raise UserError(f"{part.loss_key}={type(loss).__name__}: takes rows with a label (shape {part.shape}) and "
                            "makes nothing of it; give it `encode_labels`, or other shapes")
        if loss.classes:
            _encoded_labels(loss, part, held_out)  # a class the head can't name shows now, not at the first evaluation
        role = _role(part, encoder)
        queries = _tokens(encoder, split.texts, "query") if _queries_differ(encoder, role) else None
        rows = Rows(tokens=_tokens(encoder, split.texts, role), text_ids=split.text_ids, numbers=split.numbers,
                    labels=labels, queries=queries)
        made.append(Part(rows, loss, part.name))
    return made


def make_samplers(data: Data, *, batch_size: int, seed: int, plugins: Collection[str]) -> dict[str, Sampler]:
    """Return the sampler of each part by its name."""
    return {part.name: targets.build(part.loss["sampler"], f"{part.loss_key}.sampler", plugins=plugins,
                                     rows=len(split.numbers), text_ids=split.text_ids, labels=split.labels,
                                     batch_size=batch_size, seed=seed) for part, split in data.parts}


def measure(dev: Data, losses: Sequence[Loss], encoder: Encoder,
            step: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return the dev measures, of which the first decides what is best, and the histograms of cosines.

    Of several parts that is the mean of each one's own measure, and theirs follow as ``<source>/<measure>``.
    """
    measures: dict[str, float] = {}
    histograms: dict[str, np.ndarray] = {}
    deciding = []
    for (part, split), loss in zip(dev.parts, losses, strict=True):
        prefix, role = f"{part.name}/" if part.name else "", _role(part, encoder)
        look_up, anchors = _look_up(encoder, split.texts, role, step), None
        if _queries_differ(encoder, role):
            anchors = _look_up(encoder, split.columns[SHAPES[part.shape].texts[0]], "query", step)
        head = predictor(loss, encoder.model.device)
        found = dev_measure(part.shape, split.columns, look_up, head, queries=anchors)
        deciding.append(next(iter(found.values())))
        measures |= {f"{prefix}{name}": value for name, value in found.items()}
        positive, negative = similarity_histograms(part.shape, split.columns, look_up, queries=anchors)
        histograms |= {f"dev/{prefix}positive_cosines": positive, f"dev/{prefix}negative_cosines": negative}
    if len(dev.parts) > 1:
        measures = {"mean": float(np.mean(deciding)), **measures}
    return measures, histograms


def lone_head(losses: Sequence[Loss], device: torch.device) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """Return the head that a suite is measured by while training: that of the only part, if it has one."""
    return predictor(losses[0], device) if len(losses) == 1 else None


def predictor(loss: Loss, device: torch.device) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """Return the loss's head as a function of arrays, if it has one."""
    if not loss.classes:
        return None

    @torch.inference_mode()
    def predict(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.array(loss.predict(torch.from_numpy(u).to(device), torch.from_numpy(v).to(device)))

    return predict


def _role(part: PartConfig, encoder: Encoder) -> Role | None:
    """Return the role of all columns but the first, which holds queries where there is one."""
    shape = SHAPES[part.shape]
    return "document" if shape.retrieval or (encoder.forward.asymmetric and len(shape.texts) > 1) else None


def _queries_differ(encoder: Encoder, role: Role | None) -> bool:
    """Whether the model encodes queries otherwise than texts of this role: by another prompt, or other modules."""
    return role is not None and encoder.role_key("query") != encoder.role_key(role)


def _taught(part: PartConfig, split: Split, teacher: Encoder) -> torch.Tensor:
    """Return the teacher's vectors of all texts of each row, float32 ``[rows, columns, dim]``, by their roles."""
    role = _role(part, teacher)
    vectors = teacher.encode(split.texts, role=role)
    columns = [vectors[ids] for ids in split.text_ids.T]
    if _queries_differ(teacher, role):
        columns[0] = teacher.encode(split.texts, role="query")[split.text_ids[:, 0]]
    return checked(np.stack(columns, axis=1), teacher.name)


def _tokens(encoder: Encoder, texts: Sequence[str], role: Role | None) -> Tokens:
    tokens = tokenize_once(texts, functools.partial(encoder.tokenize, role=role), encoder.tokenizer_hash(role))
    cut = f", {tokens.truncated} cut at {encoder.max_length}" if tokens.truncated else ""
    log.info("texts: %d distinct, %.1f tokens each%s", len(tokens), float(tokens.lengths.mean()), cut)
    return tokens


def _look_up(encoder: Encoder, texts: Sequence[str], role: Role | None, step: int) -> Callable[[list[str]], np.ndarray]:
    """Encode ``texts`` now, and return what finds their vectors."""
    vectors = encoder.encode(texts, role=role)
    if not np.isfinite(vectors).all():
        raise UserError(f"after step {step} the model gives vectors that are no numbers; a smaller "
                        "loop.learning_rate may help, the last checkpoint is good")
    at = {text: number for number, text in enumerate(texts)}
    return lambda some: vectors[[at[text] for text in some]]


def _encoded_labels(loss: Loss, part: PartConfig, split: Split) -> torch.Tensor | None:
    if split.labels is None:
        return None
    try:
        return loss.encode_labels(split.labels)
    except ValueError as error:
        position, _, reason = str(error).partition(": ")
        row = split.numbers[int(position)] if position.isdigit() else "?"
        file = next(iter(part.source.paths()), "data")
        raise UserError(f"{file}: row {row}: {reason or error}") from None
