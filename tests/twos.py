"""Two of everything at once: trainings, exports, a reader and a writer; each must end as if it were alone."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from conftest import TINY
from corpora import WordEncoder, titles_like
from faults import end_at_last
from kills import write
from trials import Trial, in_fork


def both(first: Callable[[], None], second: Callable[[], None]) -> tuple[bool, bool]:
    """Run two pieces of work at once, the first in a fork; return whether each succeeded."""
    child = os.fork()
    if not child:
        try:
            end_at_last()
            first()
            os._exit(0)
        except BaseException:
            os._exit(1)
    try:
        second()
        good = True
    except AssertionError:
        good = False
    return os.waitpid(child, 0)[1] == 0, good


def train_twice(folder: Path, draw: random.Random) -> None:
    """Two runs of one second get a folder each, and both end."""
    def train(seed: int) -> Callable[[], None]:
        return lambda: in_fork("train", "loss=cosine", *TINY, "loop.max_steps=1", f"seed={seed}", cwd=folder)

    time.sleep(1.02 - time.time() % 1)
    assert both(train(1), train(2)) == (True, True)
    runs = list((folder / "outputs" / "train").iterdir())
    assert len(runs) == 2 and all((run / "report" / "report.json").is_file() for run in runs), runs


def export_twice(one: Path, other: Path) -> Trial:
    """Of two exports of different models into one folder one is made, whole; the other is refused."""
    def trial(folder: Path, draw: random.Random) -> None:
        from sentence_forge.search.index import Index
        from sentence_forge.search.verify import verify

        (folder / "titles.csv").write_text("id,title\n" + "".join(
            f"{number},{title}\n" for number, title in enumerate(titles_like(60, draw.randrange(1000)))))

        def export(model: Path, wait: float) -> Callable[[], None]:
            def work() -> None:
                time.sleep(wait)
                in_fork("export", f"model={model}", "corpus=titles.csv", "corpus.id_column=id", "out=both", cwd=folder)
            return work

        ended = both(export(one, draw.uniform(0, 1.5)), export(other, draw.uniform(0, 1.5)))
        assert sorted(ended) == [False, True], ended
        assert verify(folder / "both") == []
        with Index.open(folder / "both") as index:
            title = index.titles[3]
            assert index.search([title], 1)[0][0].score > 0.999

    return trial


def read_while_replaced(folder: Path, draw: random.Random) -> None:
    """An index that was opened before two re-indexings, and is searched only then, answers as of its opening."""
    from sentence_forge.search.index import Index

    corpora = [([str(row) for row in range(60)], titles_like(60, seed)) for seed in draw.sample(range(1000), 3)]
    write(folder, corpora[0])
    with Index.open(folder, WordEncoder()) as index:
        for rows in corpora[1:]:
            write(folder, rows)
        place = draw.randrange(60)
        hit = index.search([corpora[0][1][place]], 1)[0][0]
        assert hit.title == corpora[0][1][place] and list(index.titles) == corpora[0][1]
    with Index.open(folder, WordEncoder()) as index:
        assert list(index.titles) == corpora[2][1]
