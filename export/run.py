"""Export in two stages, the model's files and the index; a killed export goes on after the last finished stage."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_forge.configs.choices import Only, TargetKind
from sentence_forge.configs.schema import Export
from sentence_forge.data_readers.formats.files import file_of
from sentence_forge.encoders.onnx import read_export
from sentence_forge.export.backend import weigh_openvino
from sentence_forge.export.indexed import (
    about_corpus,
    check_corpus,
    check_precision,
    corpus_encoder,
    differing,
    index_rows,
    place_of,
    read_rows,
)
from sentence_forge.export.reindex import reindex
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import clear_leftovers, write_json
from sentence_forge.runtime.locks import writer_lock
from sentence_forge.runtime.manifests import MANIFEST

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sentence_forge.encoders.encoder import Encoder

log = logging.getLogger(__name__)
_OF_THE_MODEL = ("onnx", "onnx_left_out", "marks")  # keys of the manifest that the model's stage fills


def settings_of(config: DictConfig) -> Export:
    """Return the settings of a composed config.

    Raises:
        UserError: ``out`` is missing, a value is out of range, or ``only=`` is joined with a model.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    if OmegaConf.is_missing(config, "out"):
        raise UserError("out: is needed; give out=<folder>")
    settings: Export = OmegaConf.to_object(config)  # type: ignore[assignment]
    of_a_model = HydraConfig.get().runtime.choices.get("model") or None, settings.dim, settings.blend
    if settings.only is not None and of_a_model != (None, None, None):
        raise UserError(f"only={settings.only.value} takes the model in {settings.out} as it is; leave model=, dim= "
                        "and blend= out, or export to another folder")
    return settings


def run(settings: Export, given: Encoder | None = None) -> Path:
    """Export, re-index or push, as the settings say; return the export's folder.

    Args:
        settings: the command's keys.
        given: the model where it is in memory already; else ``settings.model`` says which.

    Raises:
        UserError: bad settings, a bad corpus, or an ``out`` that holds something else.
    """
    out = Path(settings.out).expanduser()
    corpus = None if settings.corpus.path is None else file_of(settings.corpus.path)
    _check(settings, corpus)
    if settings.only is Only.index:
        reindex(settings, out, corpus)
    elif settings.only is Only.push:
        _check_pushable(settings, out)
    else:
        _export(settings, out, corpus, given)
    if settings.push is not None:
        from sentence_forge.export.push import push

        push(out, settings.push, private=settings.push_private, dry_run=settings.push_dry_run)
    return out


def _check(settings: Export, corpus: Path | None) -> None:
    """Refuse what would fail later, before anything slow."""
    if corpus is not None and not corpus.is_file():
        raise UserError(f"{corpus}: no such file; corpus= takes a csv, tsv, txt, json, jsonl, parquet or xlsx file")
    check_corpus(settings)
    if settings.push is not None:
        from sentence_forge.export.push import check_push

        check_push(settings.push, dry_run=settings.push_dry_run)
    if settings.to.kind is TargetKind.postgres:
        from sentence_forge.search.postgres.load import check_loadable

        if corpus is None:
            raise UserError("to=postgres: loads a corpus; give corpus=<file>")
        check_loadable(settings.to.url or "")
    elif settings.to.url is not None:
        raise UserError("to.url: is that of to=postgres; type to=postgres, too")


def _check_pushable(settings: Export, out: Path) -> None:
    if settings.push is None:
        raise UserError("push: is needed; give push=<owner>/<name>")
    if read_export(out).get("state") != "finished" or not (out / "model").is_dir():
        raise UserError(f"{out}: holds no finished export to push; export there first")


def _export(settings: Export, out: Path, corpus: Path | None, given: Encoder | None) -> None:
    cut_short = unfinished(out)  # refused before anything slow
    if given is not None and settings.blend is not None:
        raise UserError("blend: is of a run, whose folder keeps what it began from; give the run as the model")
    source = None if given is not None else _source(settings)
    rows = None if corpus is None else read_rows(settings, corpus)
    from sentence_forge.eval.geometry import language_of

    encoder, blend = _encoder(settings, source, given, (cut_short or {}).get("blend"))
    precision = "fp32" if settings.precision is None else settings.precision.value
    if precision == "int8":
        _check_int8(encoder, out)
    about: dict[str, Any] = {"fingerprint": encoder.fingerprint, "corpus": about_corpus(settings, corpus, rows)}
    data_dir = None if settings.data_dir is None else Path(settings.data_dir).expanduser()
    language = language_of([] if rows is None else rows.titles)
    with writer_lock(out):
        begun = unfinished(out)  # once more: another export may have ended here meanwhile
        if begun is not None and any(begun.get(key) != value for key, value in about.items()):
            raise UserError(f"{out}: holds an unfinished export of another model or corpus"
                            f"{differing(begun.get('corpus'), about['corpus'])}; give another out=")
        clear_leftovers(out)
        about |= {"precision": precision, **({"blend": blend} if blend else {})}
        if begun is None:
            write_json(out / MANIFEST, {"state": "unfinished", **about})
        else:
            log.info("going on with the unfinished export in %s", out)
        if begun is None or "onnx" not in begun:
            about |= _write_model(encoder, source, out, data_dir, language, blend)
        else:
            about |= {key: begun[key] for key in _OF_THE_MODEL}
            if "openvino" in begun and begun["precision"] == precision:  # titles may be encoded by it already
                about["openvino"] = begun["openvino"]
        write_json(out / MANIFEST, {"state": "unfinished", **about})
        device = encoder.model.device.type
        if rows is not None:
            about["openvino"] = weigh_openvino(settings, out, device, about, rows.titles)
        if precision == "bf16":
            from sentence_forge.export.model import measured_in_bf16

            lower = corpus_encoder(out, precision, device, about, lambda: encoder)
            about["bf16"] = measured_in_bf16(encoder, lower, data_dir, language)
        write_json(out / MANIFEST, {"state": "unfinished", **about})
        check_precision(out, precision, about)
        about |= {"model": None if settings.model is None else settings.model.get("path"), "dim": encoder.dim,
                  "max_length": encoder.max_length}
        if rows is not None:
            using = corpus_encoder(out, precision, device, about, lambda: encoder)
            about["index"] = index_rows(out, rows, using, settings)
        write_json(out / MANIFEST, {"state": "finished", **about})
    log.info("exported to %s", out)
    if rows is not None:
        log.info('search it: python -m search %s "..."', place_of(out, about["index"], settings))


def _check_int8(encoder: Encoder, out: Path) -> None:
    """Refuse a model that can't become int8 as far as that is known before anything is written."""
    from sentence_forge.export.onnx_file import Unavailable, check_writable

    try:
        check_writable(encoder)
    except Unavailable as reason:
        check_precision(out, "int8", {"onnx_left_out": {"int8": {"reason": str(reason)}}})


def _source(settings: Export) -> Path | None:
    """Return the folder that the model comes from; None for one that is made from nothing."""
    from sentence_forge.encoders.making.weights import source_folder

    if settings.model is None:
        raise UserError("model: is needed; give model=<name, folder, run or hub id>")
    if settings.model.get("dtype", "float32") != "float32":
        raise UserError(f"model.dtype={settings.model['dtype']}: an export holds float32 weights; leave it out")
    return source_folder(settings.model)


def _encoder(settings: Export, source: Path | None, given: Encoder | None,
             before: Mapping[str, Any] | None) -> tuple[Encoder, dict[str, Any]]:
    """Return the encoder to export and how it was blended; one that was given is left as it is.

    Adapters are merged, weights blended where that is wanted, and vectors cut.
    """
    from sentence_forge.encoders.computing.device import pick_device
    from sentence_forge.encoders.encoder import Encoder
    from sentence_forge.encoders.making.lora import merged
    from sentence_forge.export.model import cut
    from sentence_forge.runtime import targets

    blend: dict[str, Any] = {}
    if given is None:
        model = merged(targets.build(settings.model, "model", plugins=settings.plugins, texts=lambda: []))
        if settings.blend is not None:
            from sentence_forge.export.blend import blended

            model, blend = blended(settings, model, pick_device(settings.device.value), before)
        model.to(pick_device(settings.device.value))
    elif any(weights.dtype.itemsize < 4 for weights in given.model.parameters()):
        raise UserError("model: an export holds float32 weights; give an encoder that was loaded in float32")
    else:
        model = merged(given.model)
        model = copy.deepcopy(model) if model is given.model and settings.dim is not None else model
    if settings.dim is not None:
        cut(model, settings.dim, source)
    return Encoder(model, name=settings.out), blend


def _write_model(encoder: Encoder, source: Path | None, out: Path, data_dir: Path | None, language: str,
                 blend: Mapping[str, Any]) -> dict[str, Any]:
    """Write the model's folder and ONNX files, and calibrate the thresholds; return the manifest's keys on them."""
    from sentence_forge.eval.geometry import calibrate
    from sentence_forge.export.model import write_model, write_onnx_files
    from sentence_forge.search.thresholds import in_words

    write_model(encoder, source, out, blend)
    onnx, left_out = write_onnx_files(encoder, out, data_dir, language)
    thresholds = calibrate(encoder, data_dir, language)
    log.info(in_words(thresholds))
    return dict(zip(_OF_THE_MODEL, (onnx, left_out, thresholds), strict=True))


def unfinished(out: Path) -> dict[str, Any] | None:
    """Return the manifest of an unfinished export to go on with; None where nothing is, or nothing but its beginning.

    Raises:
        UserError: the folder holds something else.
    """
    if not out.exists():
        return None
    if not out.is_dir():
        raise UserError(f"{out}: is a file; out= takes a folder")
    if all(each.name == ".lock" or each.name.startswith((f".tmp-{MANIFEST}-", ".nfs")) for each in out.iterdir()):
        return None  # an export that was killed while it wrote its first manifest; NFS keeps names of open files
    if not (out / MANIFEST).is_file():
        raise UserError(f"{out}: exists and is no export; give another out=")
    about = read_export(out)
    if about["state"] != "unfinished":
        raise UserError(f"{out}: holds a finished export; only=index brings its index up to date, or give another out=")
    return about
