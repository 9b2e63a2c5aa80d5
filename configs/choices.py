"""The values that keys of the commands choose from, where these are fixed."""

from __future__ import annotations

from enum import Enum


class Schedule(Enum):
    """How the learning rate goes on after the warm-up."""

    linear = "linear"
    cosine = "cosine"
    constant = "constant"


class Precision(Enum):
    """What the forward multiplies in; auto is bf16 on a GPU that has it, else fp32. Weights are fp32."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class Device(Enum):
    """Where to compute; auto is the first of cuda, mps, cpu that is here."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class ExportPrecision(Enum):
    """What the corpus is encoded in, and its queries; int8 is for CPUs, bf16 for GPUs and its queries are fp32."""

    fp32 = "fp32"
    int8 = "int8"
    bf16 = "bf16"


class Backend(Enum):
    """What encodes a corpus on a CPU; auto is OpenVINO for fp32 where it is installed and faster when tried."""

    auto = "auto"
    onnxruntime = "onnxruntime"
    openvino = "openvino"


class ClusterKind(Enum):
    """What encodes a corpus: this process, or a cluster's workers."""

    none = "none"
    ray = "ray"


class Only(Enum):
    """Which part of an export to make anew; push makes none, and pushes what is there."""

    index = "index"
    push = "push"


class TargetKind(Enum):
    """Where an index goes: into a folder, or a database."""

    folder = "folder"
    postgres = "postgres"


class VectorColumn(Enum):
    """The type of a database's column: vector is float32, halfvec float16, half the bytes and cosines to 1e-3."""

    vector = "vector"
    halfvec = "halfvec"
