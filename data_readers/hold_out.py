"""Hold out rows for dev: drawn by a seed, rows with the same first text together, evenly over the labels."""

from __future__ import annotations

import random
from collections.abc import Sequence

from sentence_forge.runtime.errors import UserError


def hold_out(
    keys: Sequence[str], fraction: float, seed: int, strata: Sequence[str] | None = None
) -> tuple[list[int], list[int]]:
    """Split rows into train and dev so that no key is on both sides.

    Args:
        keys: a row's group, such as its premise; rows of one group stay together.
        fraction: share of the rows for dev, between 0 and 1; at least one group goes there, and never all.
        seed: of the shuffle; the same seed gives the same split on every machine.
        strata: a row's label; the share is then taken from each label (a group counts for the label of its first row).

    Returns:
        The positions of the train rows and of the dev rows, each in file order.

    Raises:
        UserError: all rows have the same key, so there is nothing to hold out.
    """
    sizes: dict[str, int] = {}
    groups: dict[str, list[str]] = {}
    for position, key in enumerate(keys):
        if key not in sizes:
            groups.setdefault("" if strata is None else strata[position], []).append(key)
        sizes[key] = sizes.get(key, 0) + 1
    if len(sizes) < 2:
        raise UserError("all rows have the same first text, so no dev rows can be held out; give a dev file as "
                        "data.dev_path=")
    shuffle = random.Random(seed).shuffle
    dev: set[str] = set()
    for members in groups.values():
        shuffle(members)
        wanted = round(fraction * sum(sizes[key] for key in members))
        for key in members:
            # a group goes to dev if that brings the count nearer to what is wanted
            if wanted <= 0:
                break
            if sizes[key] < 2 * wanted:
                dev.add(key)
                wanted -= sizes[key]
    if not dev:
        dev.add(min((key for members in groups.values() for key in members), key=lambda key: sizes[key]))
    if len(dev) == len(sizes):
        dev.remove(max(dev, key=lambda key: (sizes[key], key)))
    return ([position for position, key in enumerate(keys) if key not in dev],
            [position for position, key in enumerate(keys) if key in dev])
