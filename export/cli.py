"""``python -m export``: write a model, then index a corpus with it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.cli import entry
from runtime.errors import UserError
from runtime.files import clear_leftovers, sha256_file, write_json, writer_lock

log = logging.getLogger(__name__)

ABOUT = """
Write a model as a folder and as ONNX, and index a corpus with it.

  python -m export model=outputs/train/<run> corpus=titles.csv out=news
  python -m export model=minilm out=my-model                        the model alone
  python -m export only=index corpus=titles.csv out=news            the corpus changed: encode what is new
  python -m search news "query"

corpus.column= names the texts' column (title), corpus.id_column= the ids' (else the data row), corpus.limit= rows.
"""


def main() -> None:
    """Export; see ``configs/export.yaml``."""
    entry("export", _job, ABOUT, ("model", "corpus"))


def _job(config: Any) -> None:  # noqa: ANN401 - a DictConfig
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from configs.schema import Export

    if OmegaConf.is_missing(config, "out"):
        raise UserError("out: is needed; give out=<folder>")
    settings: Export = OmegaConf.to_object(config)  # type: ignore[assignment]
    out = Path(settings.out).expanduser()
    corpus = None if settings.corpus.path is None else Path(settings.corpus.path).expanduser()
    if corpus is not None and not corpus.is_file():
        raise UserError(f"{corpus}: no such file; corpus= takes a csv, tsv, jsonl or parquet file")
    if settings.only is not None:
        if HydraConfig.get().runtime.choices.get("model"):
            raise UserError(f"only=index takes the model in {out}; leave model= out, or export to another folder")
        _reindex(settings, out, corpus)
    else:
        if settings.model is None:
            raise UserError("model: is needed; give model=<name, folder, run or hub id>")
        _export(settings, out, corpus)


def _export(settings: Any, out: Path, corpus: Path | None) -> None:  # noqa: ANN401 - configs.schema.Export
    from encoders.weights import source_folder

    unfinished = _unfinished(out)
    source = source_folder(settings.model)
    rows = _read(settings, corpus)
    from encoders.encoder import Encoder, pick_device
    from eval.geometry import language_of
    from export.model import write_model, write_onnx_files
    from runtime import targets

    model = targets.build(settings.model, "model", plugins=settings.plugins, texts=lambda: [])
    model.to(pick_device(settings.device.value))
    encoder = Encoder(model, name=settings.out)
    described: dict[str, Any] = {"fingerprint": encoder.fingerprint, "corpus": _about(settings, corpus)}
    if unfinished is not None and any(unfinished.get(key) != value for key, value in described.items()):
        raise UserError(f"{out}: holds an unfinished export of another model or corpus; give another out=")
    with writer_lock(out):
        clear_leftovers(out)
        if unfinished is None:
            write_json(out / "manifest.json", {"state": "unfinished", **described})
        else:
            log.info("going on with the unfinished export in %s", out)
        if unfinished is None or "onnx" not in unfinished:
            write_model(encoder, source, out)
            data_dir = None if settings.data_dir is None else Path(settings.data_dir).expanduser()
            language = language_of([] if rows is None else rows.titles)
            described["onnx"] = write_onnx_files(encoder, out, data_dir, language)
            described["marks"] = _calibrated(encoder, data_dir, language)
            write_json(out / "manifest.json", {"state": "unfinished", **described})
        else:
            described |= {key: unfinished[key] for key in ("onnx", "marks")}
        described |= {"model": settings.model.get("path"), "dim": encoder.dim, "max_length": encoder.max_length}
        if rows is not None:
            described["index"] = _index(out, rows, _fastest(out, encoder))
        write_json(out / "manifest.json", {"state": "finished", **described})
        log.info("exported to %s", out)
        if rows is not None:
            log.info('search it: python -m search %s "..."', out)


def _reindex(settings: Any, out: Path, corpus: Path | None) -> None:  # noqa: ANN401 - configs.schema.Export
    from encoders.onnx import read_export

    about = read_export(out)
    if not (out / "model").is_dir():
        raise UserError(f"{out}: holds no model to index with; export one first")
    if corpus is None:
        raise UserError("corpus: is needed; give corpus=<file>")
    rows = _read(settings, corpus)
    from encoders.encoder import load_encoder

    encoder = load_encoder(out / "model", device=settings.device.value)
    if encoder.fingerprint != about["fingerprint"]:
        raise UserError(f"{out / 'model'}: is not the model that was exported here; export it again")
    with writer_lock(out):
        about |= {"index": _index(out, rows, _fastest(out, encoder)), "corpus": _about(settings, corpus),
                  "state": "finished"}
        write_json(out / "manifest.json", about)


def _calibrated(encoder: Any, data_dir: Path | None, language: str) -> dict[str, Any]:  # noqa: ANN401
    """Return the thresholds that hits are marked by, and say how sure they are."""
    from eval.geometry import calibrate
    from search.marks import LEAST_PRECISION

    found = calibrate(encoder, data_dir, language)
    same = found["same"]
    log.info("same meaning from cosine %.3f: precision %.2f, recall %.2f, on %s", same["cosine"], same["precision"],
             same["recall"], found["measured_on"])
    if same["precision"] < LEAST_PRECISION:
        log.info("hits will not be marked: that precision is below %.1f", LEAST_PRECISION)
    return found


def _fastest(out: Path, encoder: Any) -> Any:  # noqa: ANN401 - an encoder, as is what comes back
    """Return what encodes the corpus soonest with the same vectors: on a CPU the ONNX file, if there is one."""
    from encoders.onnx import OnnxEncoder, read_export

    if encoder.model.device.type == "cpu" and "fp32" in read_export(out).get("onnx", {}):
        return OnnxEncoder(out)
    return encoder


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
    from encoders.onnx import read_export

    about = read_export(out)
    if about.get("state") != "unfinished":
        raise UserError(f"{out}: holds a finished export; only=index brings its index up to date, or give another out=")
    return about


def _read(settings: Any, corpus: Path | None) -> Any:  # noqa: ANN401 - data_readers.titles.Corpus
    if corpus is None:
        return None
    from data_readers.titles import read_corpus

    rows = read_corpus(corpus, column=settings.corpus.column, id_column=settings.corpus.id_column,
                       limit=settings.corpus.limit)
    if not rows.ids:
        first = rows.rejected[0]
        raise UserError(f"{corpus}: none of its {rows.rows} rows can be indexed; line {first.line}: {first.reason}")
    log.info("corpus: %d rows, %d rejected", rows.rows, len(rows.rejected))
    return rows


def _about(settings: Any, corpus: Path | None) -> dict[str, Any] | None:  # noqa: ANN401 - configs.schema.Export
    if corpus is None:
        return None
    return {"name": corpus.name, "sha256": sha256_file(corpus), "column": settings.corpus.column,
            "id_column": settings.corpus.id_column, "limit": settings.corpus.limit}


def _index(out: Path, rows: Any, encoder: Any) -> dict[str, Any]:  # noqa: ANN401
    from tqdm import tqdm

    from search.indexing import index_corpus

    with tqdm(total=0, unit="title", disable=None, dynamic_ncols=True, desc="encoding") as bar:
        report = index_corpus(out / "index", rows.ids, rows.titles, encoder, rejected=rows.rejected,
                              progress=_shown(bar))
    log.info("index: %d rows (%d titles encoded, %d reused; %d rows added, %d changed, %d removed, %d rejected) "
             "in %.1f s", report.rows, report.encoded, report.reused, report.added, report.changed, report.removed,
             report.rejected, report.seconds)
    if report.rejected:
        log.info("rejected rows, each with its line and reason: %s", out / "index" / "rejected.csv")
    return {"rows": report.rows, "rejected": report.rejected}


def _shown(bar: Any) -> Callable[[int, int], None]:  # noqa: ANN401 - a tqdm bar
    def show(done: int, of: int) -> None:
        bar.total, bar.n = of, done
        bar.refresh()

    return show
