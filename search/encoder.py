"""The encoder of queries: where it is loaded from, and a check that it fits the index."""

from __future__ import annotations

from pathlib import Path

from sentence_forge.encoders.backends import OPENVINO
from sentence_forge.encoders.fingerprint import backend_of, precision_of, query_fingerprint, same_model
from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.runtime.errors import UserError


def check_fingerprint(index: Path | str, of_index: str, of_encoder: str) -> None:
    """Refuse an encoder other than the one that made the index.

    Raises:
        UserError: the fingerprints differ.
    """
    if of_index == of_encoder:
        return
    if same_model(of_index, of_encoder):
        raise UserError(f"{index}: the index is {_how(of_index)} and the encoder {_how(of_encoder)}; "
                        "search it with its own, or index the corpus again in another folder (out=)")
    raise UserError(f"{index}: the index is of another model (its fingerprint is {of_index[:12]}, this model's "
                    f"{of_encoder[:12]}); search it with its own model, or index the corpus again in another "
                    "folder (out=)")


def _how(fingerprint: str) -> str:
    return precision_of(fingerprint) + " by OpenVINO" * (backend_of(fingerprint) == OPENVINO)


def load_query_encoder(export: Path, fingerprint: str) -> TextEncoder:
    """Load the encoder of ``fingerprint`` from an export folder: an ONNX file of it, else its model through torch.

    Raises:
        UserError: the folder is no export, or one of another model.
    """
    if not (export / "manifest.json").is_file():
        raise UserError(f"{export}: is no export, so there is no model to encode a query with; "
                        "search the export's folder, or give Index.open an encoder")
    from sentence_forge.encoders.onnx import OnnxEncoder, read_export

    about = read_export(export)
    files = {file["fingerprint"] for file in (about.get("onnx") or {}).values()}
    backend = backend_of(fingerprint)
    if (query_fingerprint(fingerprint) if backend == OPENVINO else fingerprint) in files:
        return OnnxEncoder(export, precision_of(fingerprint), backend)
    check_fingerprint(export, fingerprint, about["fingerprint"])
    from sentence_forge.encoders.encoder import load_encoder

    return load_encoder(export / "model")
