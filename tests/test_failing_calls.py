"""A crash or a broken disk at any call that decides what is on the disk: the same again ends as if undisturbed."""

from __future__ import annotations

from pathlib import Path

import pytest
from failing_calls import compiled, tried

# a sample, in shares of all calls; make soak tries every one
POINTS = {("train", "kill"): [0.0, 0.4, 0.75], ("train", "fail"): [0.5], ("export", "kill"): [0.0, 0.5, 0.9],
          ("export", "fail"): [0.6]}


@pytest.mark.parametrize("what", ["train", "export"])
def test_the_same_again_after_a_crash_at_a_call(tmp_path: Path, what: str) -> None:
    if compiled(tmp_path) is None:
        pytest.skip("needs Linux and a C compiler (cc)")
    faults = [(how, share) for how in ("kill", "fail") for share in POINTS[what, how]]
    found = list(tried(what, faults))
    assert len(found) == len(faults)
    assert not [each for each in found if each.wrong]
