"""The sample data that comes with the project: small, written for it, in English and Chinese."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sentence_forge.data_readers.file import FileSource
from sentence_forge.data_readers.formats.rows import BadRow
from sentence_forge.data_readers.source import check_request
from sentence_forge.runtime.errors import UserError, one_of

if TYPE_CHECKING:
    from datasets import Dataset

_ROOT = Path(__file__).parent / "sample"
_NAMES = ("titles", "nli_train", "nli_dev", "sts_train", "sts_dev")


def sample_path(language: str, name: str) -> Path:
    """Return the path of a sample file.

    Args:
        language: ``en`` or ``zh``.
        name: titles, nli_train, nli_dev, sts_train or sts_dev; in Chinese also queries.

    Raises:
        UserError: there is no such language or file.
    """
    languages = sorted(folder.name for folder in _ROOT.iterdir() if (folder / "titles.csv").is_file())
    if language not in languages:
        raise UserError(f"data.language={language}: no such sample; {one_of(languages, language)}")
    names = sorted(file.stem for file in (_ROOT / language).glob("*.csv"))
    if name not in names:
        raise UserError(f"no sample file {name!r}; {one_of(names, name)}")
    return _ROOT / language / f"{name}.csv"


class SampleSource:
    """The sample in a language: NLI rows, scored pairs (0 to 5) and labelled news titles.

    Of the titles a fifth of each label is held out for dev; NLI and STS have dev files of their own.

    Args:
        language: ``en`` or ``zh``.

    Raises:
        UserError: there is no such language.
    """

    def __init__(self, language: str = "en") -> None:
        paths = {name: sample_path(language, name) for name in _NAMES}
        nli = FileSource(paths["nli_train"], paths["nli_dev"])
        titles = FileSource(paths["titles"], dev_fraction=0.2)
        self._name = f"data=sample data.language={language}"
        self._paths = list(paths.values())
        self._by_shape = {
            "pair_class": nli,
            "triplet": nli,
            "pair": nli,
            "pair_score": FileSource(paths["sts_train"], paths["sts_dev"], score_range=(0, 5)),
            "labelled_text": titles,
            "titles": titles,
        }

    def shapes(self) -> list[str]:
        """Return all six shapes, NLI's first."""
        return list(self._by_shape)

    def rejected(self) -> dict[Path, list[BadRow]]:
        """Return nothing: the sample has no bad rows."""
        return {}

    def paths(self) -> list[Path]:
        """Return the five files."""
        return list(self._paths)

    def read(self, shape: str, split: str) -> Dataset:
        """Return the rows of a split in a shape; see ``data_readers.source.Source``."""
        check_request(self._name, self.shapes(), shape, split)
        return self._by_shape[shape].read(shape, split)
