"""What a run makes of its parts (``train.sources.Part``, mostly one): rows, losses, samplers and dev measures."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
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
from sentence_forge.losses.base import Classifies, Loss
from sentence_forge.runtime import targets
from sentence_forge.runtime.errors import UserError
from sentence_forge.train.batches import Sampler
from sentence_forge.train.loop import Rows
from sentence_forge.train.mixing import Mixed, MixedLoss
from sentence_forge.train.sources import Part
from sentence_forge.train.split import Split

log = logging.getLogger(__name__)


class Data:
    """One split, ``train`` or ``dev``, of all parts of a run.

    Attributes:
        parts: with the split of each.
        texts: of all of them; a text of two parts is there twice.
    """

    def __init__(self, parts: Sequence[Part], split: str) -> None:
        self.parts = [(part, Split(part.source, part.shape, split)) for part in parts]
        self.texts: Sequence[str] = LazyStrings([each.texts for _, each in self.parts])
        if len(parts) == 1:
            self.texts = self.parts[0][1].texts

    def __len__(self) -> int:
        """Return how many rows there are."""
        return sum(len(split.numbers) for _, split in self.parts)

    def hold_against(self, dev: Data) -> None:
        """Say how many rows there are, and warn of dev rows that are also train rows."""
        for (part, split), (_, held_out) in zip(self.parts, dev.parts, strict=True):
            log.info("data%s: %d training rows (%s), %d for dev", part.name and f" {part.name}", len(split.numbers),
                     part.shape, len(held_out.numbers))
            checks.leakage(split.dataset, held_out.dataset, part.shape)

    def say_if_blind(self, *, suite: bool) -> None:
        """Warn of dev rows that can't tell models apart, unless a suite does: bare titles, each its own positive."""
        if not suite and all(part.shape == "pair" and (split.text_ids[:, 0] == split.text_ids[:, 1]).all()
                             for part, split in self.parts):
            log.warning("the dev rows are texts with themselves, which every model ranks first, so the last weights "
                        "are kept; suite=sample, or suite=stsb_dev with data_dir=, picks the best by meaning")


def make_loss(data: Data, dim: int, plugins: Collection[str]) -> Loss:
    """Return the loss of a run: the only part's, or all parts' together.

    Parts whose loss is configured alike, on the same labels, share one, head included.
    """
    made: dict[str, tuple[Any, Loss]] = {}
    of_part = []
    for part, split in data.parts:
        labels = sorted(set(map(str, split.labels or ()))) if SHAPES[part.shape].label == "label" else []
        same = (part.loss, labels)
        found = next((name for name, (other, _) in made.items() if other == same), None)
        if found is None:
            found = part.name
            loss = targets.build(part.loss, part.loss_key, plugins=plugins, omit=("shapes", "sampler"), dim=dim,
                                 labels=labels)
            made[found] = same, loss
        of_part.append(found)
    if len(data.parts) == 1:
        return made[of_part[0]][1]
    return MixedLoss({name: loss for name, (_, loss) in made.items()}, of_part)


def make_rows(data: Data, dev: Data, loss: Loss, encoder: Encoder) -> Rows:
    """Return a run's training rows as the loop takes them.

    Raises:
        UserError: a label that its loss can't take, in train or dev.
    """
    made = []
    for number, ((part, split), (_, held_out)) in enumerate(zip(data.parts, dev.parts, strict=True)):
        own = _loss_of(loss, number)
        labels = _encoded_labels(own, part, split)
        if isinstance(own, Classifies):
            _encoded_labels(own, part, held_out)  # a class the head can't name shows now, not at the first evaluation
        role = _role(part, encoder)
        queries = _tokens(encoder, split.texts, "query") if _two_sides(encoder, role) else None
        made.append(Rows(tokens=_tokens(encoder, split.texts, role), text_ids=split.text_ids, numbers=split.numbers,
                         labels=labels, queries=queries))
    if len(made) == 1:
        return made[0]
    numbers = [np.char.add(f"{part.name} ", split.numbers.astype(str)) for part, split in data.parts]
    return Rows(tokens=made[0].tokens, text_ids=np.empty((len(data), 0), dtype=np.int64), labels=None,
                numbers=np.concatenate(numbers), parts=tuple(made))


def make_sampler(data: Data, *, batch_size: int, seed: int, plugins: Collection[str],
                 shares: Mapping[str, Any]) -> Sampler:
    """Return what cuts the epochs; ``shares`` are the weights and the temperature of ``train.mixing.Mixed``."""
    samplers = {}
    for part, split in data.parts:
        samplers[part.name] = targets.build(part.loss["sampler"], f"{part.loss_key}.sampler", plugins=plugins,
                                            rows=len(split.numbers), text_ids=split.text_ids, labels=split.labels,
                                            batch_size=batch_size, seed=seed)
    if len(samplers) == 1:
        return next(iter(samplers.values()))
    return Mixed(samplers, rows=[len(split.numbers) for _, split in data.parts], seed=seed, **shares)


def measure(dev: Data, loss: Loss, encoder: Encoder, step: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return the dev measures, of which the first decides what is best, and the histograms of cosines.

    Of several parts that is the mean of each one's own measure, and theirs follow as ``<source>/<measure>``.
    """
    measures: dict[str, float] = {}
    histograms: dict[str, np.ndarray] = {}
    deciding = []
    for number, (part, split) in enumerate(dev.parts):
        prefix, role = f"{part.name}/" if part.name else "", _role(part, encoder)
        look_up, anchors = _look_up(encoder, split.texts, role, step), None
        if _two_sides(encoder, role):
            anchors = _look_up(encoder, split.columns[SHAPES[part.shape].texts[0]], "query", step)
        head = predictor(_loss_of(loss, number), encoder.model.device)
        found = dev_measure(part.shape, split.columns, look_up, head, queries=anchors)
        deciding.append(next(iter(found.values())))
        measures |= {f"{prefix}{name}": value for name, value in found.items()}
        positive, negative = similarity_histograms(part.shape, split.columns, look_up, queries=anchors)
        histograms |= {f"dev/{prefix}positive_cosines": positive, f"dev/{prefix}negative_cosines": negative}
    if len(dev.parts) > 1:
        measures = {"mean": float(np.mean(deciding)), **measures}
    return measures, histograms


def predictor(loss: Loss, device: torch.device) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """Return the loss's head as a function of arrays, if it has one."""
    if not isinstance(loss, Classifies):
        return None

    @torch.inference_mode()
    def predict(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.array(loss.predict(torch.from_numpy(u).to(device), torch.from_numpy(v).to(device)))

    return predict


def _loss_of(loss: Loss, number: int) -> Loss:
    return loss.of_part(number) if isinstance(loss, MixedLoss) else loss


def _role(part: Part, encoder: Encoder) -> Role | None:
    """Return the role of all columns but the first, which holds queries where there is one."""
    shape = SHAPES[part.shape]
    return "document" if shape.retrieval or (encoder.forward.asymmetric and len(shape.texts) > 1) else None


def _two_sides(encoder: Encoder, role: Role | None) -> bool:
    return role is not None and encoder.role_key("query") != encoder.role_key(role)


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
                        "loop.learning_rate may help, the last checkpoint is whole")
    at = {text: number for number, text in enumerate(texts)}
    return lambda some: vectors[[at[text] for text in some]]


def _encoded_labels(loss: Loss, part: Part, split: Split) -> torch.Tensor | None:
    if split.labels is None:
        return None
    try:
        return loss.encode_labels(split.labels)
    except ValueError as error:
        position, _, reason = str(error).partition(": ")
        row = split.numbers[int(position)] if position.isdigit() else "?"
        raise UserError(f"{part.source.files()[0]}: row {row}: {reason or error}") from None
