"""Show the progress of long work: a bar on a terminal, now and then a log line elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

EVERY = 30.0  # seconds between two lines


@contextlib.contextmanager
def progress(what: str, unit: str, every: float = EVERY) -> Iterator[Callable[[int, int], None]]:
    """Yield what is to be called with (done, of all): it shows ``what`` on stderr.

    Args:
        what: what is being done, such as ``encoding``.
        unit: what is counted, in the singular.
        every: seconds between two lines where stderr is no terminal.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=0, unit=unit, dynamic_ncols=True, desc=what) as bar:
            def draw(done: int, of: int) -> None:
                bar.total = of
                bar.update(done - bar.n)

            yield draw
        return
    begun = said = time.monotonic()

    def say(done: int, of: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said < every or not done:
            return
        said = now
        speed = done / (now - begun)
        log.info("%s: %s of %s %ss, %.0f a second, %.0f s left", what, f"{done:,}", f"{of:,}", unit, speed,
                 (of - done) / speed)

    yield say
