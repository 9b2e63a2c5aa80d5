"""Where an index is, as a person types it: an export's folder, or the address of a database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sentence_forge.runtime.errors import UserError

if TYPE_CHECKING:
    from sentence_forge.encoders.protocol import TextEncoder
    from sentence_forge.search.text_search import TextSearch

PLACE = "the export's output folder, its index folder, or a database's address, postgresql://user@host/name#table"


def is_address(place: str | Path) -> bool:
    """Return whether a text is meant to be the address of a database."""
    return "://" in str(place)


def open_index(place: str | Path, encoder: TextEncoder | None = None, *, model: str | None = None,
               generation: int | None = None) -> TextSearch:
    """Open an index for searching, wherever it is.

    Args:
        place: an export's folder, the ``index`` folder in it, or ``postgresql://user@host/name#table``.
        encoder: encodes the queries; by default the export's own, loaded when the first text is searched.
        model: of a database, the export's folder with the model; by default the one that the load has noted.
        generation: of a database, which model's vectors to search; by default the current ones.

    Raises:
        UserError: there is no index, or it isn't of this model.
    """
    if is_address(place):
        from sentence_forge.search.postgres.index import PostgresIndex

        return PostgresIndex.open(str(place), encoder, model=model, generation=generation)
    for name, value in (("model", model), ("generation", generation)):
        if value is not None:
            raise UserError(f"--{name}: is for an index in a database; {place} has its own model in its folder")
    from sentence_forge.search.index import Index

    return Index.open(place, encoder)
