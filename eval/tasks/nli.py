"""Natural language inference: the accuracy of a model's own head (``loss=softmax``), with a confusion matrix."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sentence_forge.data_readers.shapes import NLI_LABELS
from sentence_forge.data_readers.table import read_table
from sentence_forge.eval.stats import Seed
from sentence_forge.eval.tasks.base import EncodedTexts, Head, TaskResult, TaskRows, finite_vectors, mean_result
from sentence_forge.eval.tasks.file_task import FileTask, check_enough
from sentence_forge.runtime.errors import UserError

_COLUMNS = ("premise", "hypothesis", "label")


@dataclass(frozen=True, kw_only=True)
class Classified(TaskRows):
    """The rows of one file: pairs and the names of their classes."""

    premise: list[str]
    hypothesis: list[str]
    label: list[str]

    @property
    def texts(self) -> list[str]:
        """All texts of both sides, each once."""
        return list(dict.fromkeys([*self.premise, *self.hypothesis]))

    @property
    def units(self) -> list[tuple[str, ...]]:
        """The pairs."""
        return list(zip(self.premise, self.hypothesis, strict=True))


@dataclass(kw_only=True)
class NLI(FileTask):
    """A file of premise, hypothesis and label; the arguments are those of ``FileTask``."""

    needs_head = True
    sample_file = "nli_dev"

    def read(self, data_dir: Path | None) -> Classified:
        """Return the file's rows.

        Raises:
            UserError: the file is absent, has fewer than 10 rows or a bad one.
        """
        path = self.existing_file(data_dir)
        table = read_table(path, {name: name for name in _COLUMNS})
        check_enough(path, len(table["label"]), "rows", "an accuracy")
        return Classified(premise=table["premise"], hypothesis=table["hypothesis"], label=table["label"],
                          **self.source(path))

    def score(self, rows: Classified, encoder: EncodedTexts, *, resamples: int = 2000, seed: Seed = 0) -> TaskResult:
        """Return the head's accuracy and its confusion matrix: a row a gold label, a column a predicted one.

        Raises:
            UserError: a vector is not finite; the head knows none of the file's labels.
        """
        if encoder.head is None:
            raise UserError(f"{rows.path}: the model {encoder.name} has no head that classifies pairs; "
                            "train one with loss=softmax")
        left, right = (finite_vectors(encoder, side, rows.path) for side in (rows.premise, rows.hypothesis))
        predicted = [str(label) for label in encoder.head(left, right)]
        if not set(rows.label) & set(predicted):
            raise UserError(f"{rows.path}: the head of {encoder.name} says {', '.join(sorted(set(predicted)))}, the "
                            f"file {', '.join(sorted(set(rows.label)))}: they share no label")
        names = sorted({*rows.label, *predicted})
        number = {name: position for position, name in enumerate(names)}
        matrix = np.zeros((len(names), len(names)), dtype=int)
        np.add.at(matrix, ([number[name] for name in rows.label], [number[name] for name in predicted]), 1)
        correct = np.array([gold == label for gold, label in zip(rows.label, predicted, strict=True)], dtype=np.float64)
        return mean_result(rows, encoder, self.label, "accuracy", correct,
                           {"confusion": {"labels": names, "gold_by_predicted": matrix.tolist()}},
                           resamples=resamples, seed=seed)


def load_head(folder: Path | None, dim: int, plugins: Collection[str] = ()) -> Head | None:
    """Return the classifier that a run left in its model folder; None where there is none.

    Of those of a mix it is the first on NLI's labels, else the first.

    Args:
        folder: of the model.
        dim: numbers of a vector of the model.
        plugins: the user's packages, one of which may define the loss.

    Raises:
        UserError: its files don't fit each other or the model.
    """
    if folder is None or not (folder / "loss.safetensors").is_file():
        return None
    import torch

    from sentence_forge.losses.loss_set import read_losses

    heads = [loss for loss in read_losses(folder, dim, plugins) if loss.classes]
    if not heads:
        return None
    loss = min(heads, key=lambda each: set(each.classes) != set(NLI_LABELS))

    def head(u: np.ndarray, v: np.ndarray) -> list[str]:
        with torch.inference_mode():
            return loss.predict(torch.from_numpy(u), torch.from_numpy(v))

    return head
