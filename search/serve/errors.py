"""What a request may be refused for."""

from __future__ import annotations


class Refused(Exception):
    """A request that can't be answered: an HTTP status from 400 on, and one line without any path of this machine."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
