"""What computes an exported ONNX file on a CPU: ONNX Runtime, or OpenVINO where it is installed; both without torch."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from sentence_forge.runtime.errors import UserError

# Starts to compute a file's inputs by name, int64 [batch, length]; returns what hands over its vectors.
Compute = Callable[[Mapping[str, np.ndarray]], Callable[[], np.ndarray]]

ONNXRUNTIME, OPENVINO = "onnxruntime", "openvino"


def compute_by(backend: str, file: Path, *, bf16: bool = False) -> Compute:
    """Load an ONNX file into a backend.

    Args:
        backend: ``onnxruntime`` or ``openvino``.
        file: its first output is float32 ``[batch, dim]``.
        bf16: compute in bf16, which OpenVINO can; else in the file's own precision.

    Raises:
        UserError: OpenVINO is not installed, or this processor doesn't multiply in bf16.
    """
    return _openvino(file, bf16=bf16) if backend == OPENVINO else _onnxruntime(file)


def has_openvino() -> bool:
    """Whether OpenVINO is installed, found without importing it."""
    return find_spec(OPENVINO) is not None


def _onnxruntime(file: Path) -> Compute:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = _threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = {entry.name for entry in session.get_inputs()}

    def compute(given: Mapping[str, np.ndarray]) -> Callable[[], np.ndarray]:
        made = session.run(None, {name: value for name, value in given.items() if name in names})[0]
        return lambda: made

    return compute


def _openvino(file: Path, *, bf16: bool) -> Compute:
    """Load a file so that two batches are computed at a time, each by half of the threads.

    As it comes OpenVINO computes in bf16 on processors that have it, whatever the file says: so it is told which.
    """
    threads, core = _threads(), openvino().Core()
    if bf16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UserError("this processor does not multiply in bf16")
    how = {"INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32", "NUM_STREAMS": str(min(2, threads)),
           "INFERENCE_NUM_THREADS": str(threads)}
    compiled = core.compile_model(core.read_model(file), "CPU", how)
    names = {port.get_any_name() for port in compiled.inputs}
    idle: deque[Any] = deque()  # requests, of which each computes one batch at a time, for whichever thread

    def compute(given: Mapping[str, np.ndarray]) -> Callable[[], np.ndarray]:
        try:
            request = idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        request.start_async({name: value for name, value in given.items() if name in names}, share_inputs=True)

        def wait() -> np.ndarray:
            request.wait()
            made = request.get_output_tensor().data.copy()
            idle.append(request)
            return made

        return wait

    return compute


def openvino() -> Any:  # noqa: ANN401 - a module
    """Import OpenVINO without the package by which it reports each import to its makers.

    Raises:
        UserError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # OpenVINO does without it then
    try:
        import openvino
    except ImportError as error:
        raise UserError(f"OpenVINO can't be imported ({error}); pip install 'sentence-forge[openvino]'") from None
    return openvino


def _threads() -> int:
    """Return how many threads compute a batch: ``$OMP_NUM_THREADS``, as for torch, else as many as may run here."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
