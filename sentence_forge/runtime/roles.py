"""The part that a text plays in a search, which decides what its model puts before it."""

from __future__ import annotations

from typing import Literal

Role = Literal["query", "document"]
