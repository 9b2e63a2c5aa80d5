"""``python -m export``: write a model, then index a corpus with it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from sentence_forge.runtime.cli import entry
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import clear_leftovers, write_json
from sentence_forge.runtime.locks import writer_lock

log = logging.getLogger(__name__)

ABOUT = """
Write a model as a folder and as ONNX, and index a corpus with it.

  python -m export model=outputs/train/<run> corpus=titles.csv out=news
  python -m export model=minilm out=my-model                        the model alone
  python -m export only=index corpus=titles.csv out=news            the corpus changed: encode what is new
  python -m export model=<run> corpus=titles.csv out=small dim=96   vectors cut to 96 numbers (loss=matryoshka)
  python -m export model=minilm corpus=titles.csv out=quick precision=int8    encoded with int8 weights, on a CPU
  python -m export model=minilm corpus=titles.csv out=quick precision=bf16    encoded with bf16 weights, on a GPU
  python -m export model=minilm corpus=titles.csv out=news cluster=ray cluster.workers=8
  python -m export model=<run> out=my-model push=<owner>/<name>     and to the hub; push_dry_run=true only says what
  python -m search news "query"

corpus.column= names the texts' column (title), corpus.id_column= the ids' (else the data row), corpus.limit= rows.
"""


def main() -> None:
    """Export; see ``configs/export.yaml``."""
    entry("export", _job, ABOUT, ("model", "corpus", "cluster"))


def _job(config: Any) -> None:  # noqa: ANN401 - a DictConfig
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from sentence_forge.configs.schema import ClusterKind, Export, Only
    from sentence_forge.export.push import check_push, push

    if OmegaConf.is_missing(config, "out"):
        raise UserError("out: is needed; give out=<folder>")
    settings: Export = OmegaConf.to_object(config)  # type: ignore[assignment]
    out = Path(settings.out).expanduser()
    corpus = None if settings.corpus.path is None else Path(settings.corpus.path).expanduser()
    if corpus is not None and not corpus.is_file():
        raise UserError(f"{corpus}: no such file; corpus= takes a csv, tsv, jsonl or parquet file")
    if settings.push is not None:
        check_push(settings.push, dry_run=settings.push_dry_run)
    if settings.cluster.kind is ClusterKind.ray:
        from sentence_forge.export.ray_cluster import check_ray

        check_ray(settings.cluster.workers, settings.cluster.cpus)
    if settings.only is not None:
        if HydraConfig.get().runtime.choices.get("model") or settings.dim is not None:
            raise UserError(f"only={settings.only.value} takes the model in {out} as it is; leave model= and dim= out, "
                            "or export to another folder")
        if settings.only is Only.index:
            _reindex(settings, out, corpus)
        else:
            _pushable(settings, out)
    else:
        if settings.model is None:
            raise UserError("model: is needed; give model=<name, folder, run or hub id>")
        _export(settings, out, corpus)
    if settings.push is not None:
        push(out, settings.push, private=settings.push_private, dry_run=settings.push_dry_run)


def _pushable(settings: Any, out: Path) -> None:  # noqa: ANN401 - configs.schema.Export
    from sentence_forge.encoders.onnx import read_export

    if settings.push is None:
        raise UserError("push: is needed; give push=<owner>/<name>")
    if read_export(out).get("state") != "finished" or not (out / "model").is_dir():
        raise UserError(f"{out}: holds no finished export to push; export there first")


def _export(settings: Any, out: Path, corpus: Path | None) -> None:  # noqa: ANN401 - configs.schema.Export
    from sentence_forge.encoders.making.weights import source_folder
    from sentence_forge.export.indexed import about_corpus, check_precision, encoder_of, index_rows, read_rows

    unfinished = _unfinished(out)
    if settings.model.get("dtype", "float32") != "float32":
        raise UserError(f"model.dtype={settings.model['dtype']}: an export holds float32 weights; leave it out")
    source = source_folder(settings.model)
    rows = None if corpus is None else read_rows(settings, corpus)
    from sentence_forge.encoders.computing.device import pick_device
    from sentence_forge.encoders.encoder import Encoder
    from sentence_forge.encoders.making.lora import merged
    from sentence_forge.eval.geometry import language_of
    from sentence_forge.export.model import measured_in_bf16, write_model, write_onnx_files
    from sentence_forge.runtime import targets

    model = merged(targets.build(settings.model, "model", plugins=settings.plugins, texts=lambda: []))
    if settings.dim is not None:
        _truncate(model, settings.dim, source)
    device = pick_device(settings.device.value)
    model.to(device)
    encoder = Encoder(model, name=settings.out)
    described: dict[str, Any] = {"fingerprint": encoder.fingerprint, "corpus": about_corpus(settings, corpus)}
    if unfinished is not None and any(unfinished.get(key) != value for key, value in described.items()):
        raise UserError(f"{out}: holds an unfinished export of another model or corpus; give another out=")
    data_dir = None if settings.data_dir is None else Path(settings.data_dir).expanduser()
    language = language_of([] if rows is None else rows.titles)
    precision = described["precision"] = "fp32" if settings.precision is None else settings.precision.value
    with writer_lock(out):
        clear_leftovers(out)
        if unfinished is None:
            write_json(out / "manifest.json", {"state": "unfinished", **described})
        else:
            log.info("going on with the unfinished export in %s", out)
        if unfinished is None or "onnx" not in unfinished:
            write_model(encoder, source, out)
            described["onnx"], described["onnx_left_out"] = write_onnx_files(encoder, out, data_dir, language)
            described["marks"] = _calibrated(encoder, data_dir, language)
        else:
            described |= {key: unfinished[key] for key in ("onnx", "onnx_left_out", "marks")}
        if precision == "bf16":
            described["bf16"] = measured_in_bf16(encoder, data_dir, language)
        write_json(out / "manifest.json", {"state": "unfinished", **described})
        check_precision(out, precision, described)
        described |= {"model": settings.model.get("path"), "dim": encoder.dim, "max_length": encoder.max_length}
        if rows is not None:
            using = encoder_of(out, precision, device, described, lambda: encoder)
            described["index"] = index_rows(out, rows, using, settings.cluster)
        write_json(out / "manifest.json", {"state": "finished", **described})
        log.info("exported to %s", out)
        if rows is not None:
            log.info('search it: python -m search %s "..."', out)


def _truncate(model: Any, dim: int, source: Path | None) -> None:  # noqa: ANN401 - SentenceTransformer
    from sentence_forge.encoders.card import read_about
    from sentence_forge.encoders.making.build import truncate

    truncate(model, dim)
    trained = read_about(source).get("dims", []) if source is not None else []
    if dim not in trained:
        log.warning("dim=%d: the model was not trained to be cut there%s; python -m eval model=... 'dims=[%d]' says "
                    "what that loses", dim, f", but to {', '.join(map(str, trained))}" if trained else
                    " (loss=matryoshka does that)", dim)


def _reindex(settings: Any, out: Path, corpus: Path | None) -> None:  # noqa: ANN401 - configs.schema.Export
    from sentence_forge.encoders.onnx import read_export
    from sentence_forge.export.indexed import about_corpus, check_precision, encoder_of, index_rows, read_rows

    about = read_export(out)
    if not (out / "model").is_dir():
        raise UserError(f"{out}: holds no model to index with; export one first")
    if about.get("state") == "unfinished":
        raise UserError(f"{out}: its export was not finished; type the command that began it again, with model= and "
                        "the same precision=, and it goes on")
    if corpus is None:
        raise UserError("corpus: is needed; give corpus=<file>")
    rows = read_rows(settings, corpus)
    precision = about["precision"] if settings.precision is None else settings.precision.value
    if precision != about["precision"] and (out / "index").is_dir():
        raise UserError(f"precision={precision}: the index in {out} is {about['precision']}; leave precision= out, or "
                        "export to another folder")
    check_precision(out, precision, about)
    from sentence_forge.encoders.computing.device import pick_device

    device = pick_device(settings.device.value)
    with writer_lock(out):
        using = encoder_of(out, precision, device, about, lambda: _exported(out, about["fingerprint"], device))
        about |= {"index": index_rows(out, rows, using, settings.cluster), "corpus": about_corpus(settings, corpus),
                  "precision": precision, "state": "finished"}
        write_json(out / "manifest.json", about)


def _exported(out: Path, fingerprint: str, device: str) -> Any:  # noqa: ANN401 - an Encoder
    from sentence_forge.encoders.encoder import load_encoder

    encoder = load_encoder(out / "model", device=device)
    if encoder.fingerprint != fingerprint:
        raise UserError(f"{out / 'model'}: is not the model that was exported here; export it again")
    return encoder


def _calibrated(encoder: Any, data_dir: Path | None, language: str) -> dict[str, Any]:  # noqa: ANN401
    """Return the thresholds that hits are marked by, and say how sure they are."""
    from sentence_forge.eval.geometry import calibrate
    from sentence_forge.search.thresholds import LEAST_PRECISION

    found = calibrate(encoder, data_dir, language)
    same = found["same"]
    log.info("same meaning from cosine %.3f: precision %.2f, recall %.2f, on %s", same["cosine"], same["precision"],
             same["recall"], found["measured_on"])
    if same["precision"] < LEAST_PRECISION:
        log.info("hits will not be marked: that precision is below %.1f", LEAST_PRECISION)
    return found


def _unfinished(out: Path) -> dict[str, Any] | None:
    """Return the manifest of an unfinished export to go on with; None where nothing is.

    Raises:
        UserError: the folder holds something else.
    """
    if not out.exists() or (out.is_dir() and all(each.name == ".lock" for each in out.iterdir())):
        return None
    if not out.is_dir():
        raise UserError(f"{out}: is a file; out= takes a folder")
    if not (out / "manifest.json").is_file():
        raise UserError(f"{out}: exists and is no export; give another out=")
    from sentence_forge.encoders.onnx import read_export

    about = read_export(out)
    if about.get("state") != "unfinished":
        raise UserError(f"{out}: holds a finished export; only=index brings its index up to date, or give another out=")
    return about
