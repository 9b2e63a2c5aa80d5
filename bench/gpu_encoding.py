"""The third part of the GPU set: titles to vectors, beside the stock ``encode``."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bench import generated
from bench.gpu_setting import Setting
from bench.lines import interleaved, line, median, seconds
from sentence_forge.encoders.encoder import Encoder, in_bf16

SECONDS = 15  # for all titles


def encode(setting: Setting) -> None:
    """Compare encoding titles from strings to vectors on disk, both with bf16 weights (``precision=bf16``)."""
    titles = generated.texts(setting.words, setting.scale.titles, *generated.TITLE, seed=2)
    dtype = torch.bfloat16 if setting.bf16 else torch.float32
    flash = setting.flash()
    encoder, stock = Encoder(setting.model()), setting.model(dtype=dtype, **flash)
    if setting.bf16:
        encoder = in_bf16(encoder)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "vectors.npy")

        def ours(texts: Sequence[str]) -> None:
            out = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(len(texts), encoder.dim))
            encoder.encode(texts, out=out)
            out.flush()

        def theirs(texts: Sequence[str]) -> None:
            # NumPy has no bf16: the stock encode gives float32
            np.save(file, stock.encode(list(texts), batch_size=512, show_progress_bar=False))

        ours(titles[:100])
        theirs(titles[:100])
        some = titles[: len(titles) // 10]
        mine, peer = interleaved([lambda: ours(some), lambda: theirs(some)], setting.scale.repeats)
        line("gpu encode, titles to vectors on disk", len(some) / median(mine), "titles/s",
             peer=f"stock encode, {str(dtype)[6:]}, batch 512{', flash attention' if flash else ''}",
             peer_value=len(some) / median(peer),
             titles=len(some),
             spread=[round(len(some) / end) for end in (max(mine), min(mine))],
             peer_spread=[round(len(some) / end) for end in (max(peer), min(peer))])
        line(f"gpu encode, {len(titles)} titles to vectors on disk", seconds(lambda: ours(titles)), "s", target=SECONDS)
