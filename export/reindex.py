"""``only=index``: a corpus that has changed is indexed again with the model that was exported before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_forge.configs.choices import Backend
from sentence_forge.configs.schema import Export
from sentence_forge.encoders.onnx import read_export
from sentence_forge.export.backend import weigh_openvino
from sentence_forge.export.indexed import about_corpus, check_precision, corpus_encoder, index_rows, read_rows
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import write_json
from sentence_forge.runtime.locks import writer_lock
from sentence_forge.runtime.manifests import MANIFEST

if TYPE_CHECKING:
    from sentence_forge.encoders.encoder import Encoder


def reindex(settings: Export, out: Path, corpus: Path | None) -> None:
    """Index a corpus anew with the model of a finished export.

    Raises:
        UserError: the folder holds no finished export, or ``corpus`` is missing or bad.
    """
    about = _indexable(settings, out)  # refused before anything slow
    if corpus is None:
        raise UserError("corpus: is needed; give corpus=<file>")
    rows = read_rows(settings, corpus, about.get("corpus"))
    from sentence_forge.encoders.computing.device import pick_device

    device = pick_device(settings.device.value)
    with writer_lock(out):
        about = _indexable(settings, out)  # once more: another process may have exported here meanwhile
        about["openvino"] = weigh_openvino(settings, out, device, about, rows.titles)
        write_json(out / MANIFEST, read_export(out) | {"openvino": about["openvino"]})  # so that a kill keeps it
        using = corpus_encoder(out, about["precision"], device, about,
                               lambda: _exported(out, about["fingerprint"], device))
        about |= {"index": index_rows(out, rows, using, settings), "corpus": about_corpus(settings, corpus, rows),
                  "state": "finished"}
        write_json(out / MANIFEST, about)


def _indexable(settings: Export, out: Path) -> dict[str, Any]:
    """Return the manifest of a finished export, with the precision to index in.

    Raises:
        UserError: the folder holds none, or it can't be indexed in that precision.
    """
    about = read_export(out)
    if not (out / "model").is_dir():
        raise UserError(f"{out}: holds no model to index with; export one first")
    if about["state"] == "unfinished":
        raise UserError(f"{out}: its export was not finished; type the command that began it again, with model= and "
                        "the same precision=, and it goes on")
    precision = about["precision"] if settings.precision is None else settings.precision.value
    in_database = "database" in (about.get("index") or {})
    indexed = (out / "index").is_dir() or in_database
    if indexed and precision != about["precision"]:
        raise UserError(f"precision={precision}: the index {'of' if in_database else 'in'} {out} is "
                        f"{about['precision']}; leave precision= out, or export to another folder")
    check_precision(out, precision, about)
    if indexed and about.get("corpus"):
        _check_ids(settings, out, about["corpus"]["id_column"])
    if indexed or "index" in about:
        about.setdefault("openvino", {"used": False})  # older exports don't say so
    asked = settings.backend
    if indexed and asked is not Backend.auto and about["openvino"]["used"] != (asked is Backend.openvino):
        raise UserError(f"backend={asked.value}: the index in {out} is {'' if about['openvino']['used'] else 'not '}by "
                        "OpenVINO; leave backend= out, or export to another folder")
    if precision != about["precision"]:
        about.pop("openvino", None)
    return about | {"precision": precision}


def _check_ids(settings: Export, out: Path, before: str | None) -> None:
    """Refuse another column of ids than the index's, most often forgotten: all rows would be new ones.

    Raises:
        UserError: it is another, and ``corpus.most_lost=`` doesn't say that all rows may go.
    """
    now = settings.corpus.id_column
    if now != before and settings.corpus.most_lost < 1:
        raise UserError(f"corpus.id_column={now or 'null'}: the index of {out} was made with corpus.id_column="
                        f"{before or 'null'}; give that, or, if its rows are to get other ids, corpus.most_lost=1")


def _exported(out: Path, fingerprint: str, device: str) -> Encoder:
    from sentence_forge.encoders.encoder import load_encoder

    encoder = load_encoder(out / "model", device=device)
    if encoder.fingerprint != fingerprint:
        raise UserError(f"{out / 'model'}: is not the model that was exported here; export it again")
    return encoder
