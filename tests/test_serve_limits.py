"""What one who asks much, slowly or for long can't do to a server."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpora import WordEncoder
from serving import served

from sentence_forge.search.indexing import index_corpus

TITLES = ["storm hits coast", "storm hits the coast", "opera opens", "markets fall"]


@pytest.mark.parametrize(("path", "name"), [("/", "filter"), ("/", "is.source"), ("/api/search", "filter")])
def test_conditions_are_bounded(tmp_path: Path, path: str, name: str) -> None:
    index_corpus(tmp_path, list("1234"), TITLES, WordEncoder(), kept={"source": list("abcd")})
    start = "source=" if name == "filter" else ""
    with served(tmp_path) as client:
        for values, status in ((["a"] * 20, 200), (["a"] * 21, 422), (["a" * 493], 200), (["a" * 494], 422)):
            assert client.get(path, **{"q": "storm", name: [start + value for value in values]}).status == status
