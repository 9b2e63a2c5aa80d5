"""Linear layers by oneDNN against torch's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from bench.products import memory_kept
from sentence_forge.encoders.computing import matmul


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that MKL does not know, if this torch has oneDNN."""
    try:
        matmul._multiply(torch.ones(1, 1), torch.ones(1, 1), None)
    except (AttributeError, RuntimeError):
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(matmul, "_suits", lambda: True)
    monkeypatch.setattr(matmul, "ROWS", 4)


@pytest.mark.parametrize("shape", [(7, 5), (1, 9, 5), (3, 4, 5), (1, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_torchs(shape: tuple[int, ...], bias: bool, everywhere: None) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(5, 8, bias=bias), nn.GELU(), nn.Linear(8, 3, bias=bias))
    found = []
    for quick in (True, False):
        layers.zero_grad(set_to_none=True)
        given = torch.linspace(-2, 2, torch.Size(shape).numel()).reshape(shape).requires_grad_()
        if quick:
            with matmul.quick_products(torch.device("cpu")):
                made = layers(given)
            assert "_Linear" in type(made.grad_fn).__name__
        else:
            made = layers(given)
        (made * torch.arange(made.numel()).view_as(made)).sum().backward()
        found.append([made.detach(), given.grad, *(p.grad for p in layers.parameters())])
    for quick_one, own in zip(*found, strict=True):
        torch.testing.assert_close(quick_one, own, atol=1e-5, rtol=1e-5)


def test_a_layer_that_is_not_trained_gets_no_gradient(everywhere: None) -> None:
    layer = nn.Linear(4, 2).requires_grad_(False)
    given = torch.ones(3, 4, requires_grad=True)
    with matmul.quick_products(torch.device("cpu")):
        layer(given).sum().backward()
    assert layer.weight.grad is None and given.grad is not None
    torch.testing.assert_close(given.grad, layer.weight.sum(0).expand(3, 4))


def test_half_precision_and_autocast_are_left_alone(everywhere: None) -> None:
    layer, given = nn.Linear(4, 2), torch.ones(3, 4)
    with matmul.quick_products(torch.device("cpu")):
        assert "_Linear" not in type(layer.bfloat16()(given.bfloat16()).grad_fn).__name__
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer.float()(given).dtype == torch.bfloat16


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_stays_whatever_the_numbers_of_tokens() -> None:
    """One shape after another, as batches of texts have them: what is made for a shape must not pile up."""
    assert memory_kept() < 200, "MiB; where any number of rows goes it is 1,600"


@pytest.mark.parametrize(("capability", "taken"), [("AVX512", True), ("AVX2", False), ("DEFAULT", False)])
def test_onednn_is_taken_by_what_the_processor_can_do(capability: str, taken: bool,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """On an AMD processor without AVX-512 MKL is the faster one."""
    monkeypatch.setattr(matmul, "_maker", lambda: "vendor_id : AuthenticAMD")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    matmul._suits.cache_clear()
    try:
        assert (matmul.rows_at_once(torch.device("cpu")) > 1) == (taken and torch.backends.mkl.is_available())
    finally:
        matmul._suits.cache_clear()
