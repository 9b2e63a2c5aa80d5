"""Read, encode and index the corpus of an export, in one precision, by the export's own encoder."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_forge.configs.choices import ClusterKind, TargetKind
from sentence_forge.configs.schema import Export
from sentence_forge.data_readers.csv_writer import write_rejected
from sentence_forge.data_readers.formats.reading import Reading
from sentence_forge.data_readers.titles import Corpus, read_corpus
from sentence_forge.encoders.backends import ONNXRUNTIME, OPENVINO
from sentence_forge.encoders.protocol import TextEncoder
from sentence_forge.runtime.errors import UserError
from sentence_forge.runtime.files import sha256_file
from sentence_forge.runtime.progress import progress
from sentence_forge.search.indexing import IndexReport, index_corpus

if TYPE_CHECKING:
    from sentence_forge.encoders.encoder import Encoder

log = logging.getLogger(__name__)


def check_corpus(settings: Export) -> None:
    """Refuse values of ``corpus.`` that mean nothing, and a cluster that can't be had.

    Raises:
        UserError: says which, and what to give.
    """
    given = settings.corpus
    if not 0 <= given.most_lost <= 1:
        raise UserError(f"corpus.most_lost={given.most_lost:g}: is a share of the index's rows, from 0 to 1")
    if given.shard_rows is not None and given.shard_rows < 1:
        raise UserError(f"corpus.shard_rows={given.shard_rows}: give a number of rows from 1, or null")
    for key in ("half", "shard_rows") if settings.to.kind is TargetKind.postgres else ():
        if getattr(given, key) is not None:
            raise UserError(f"corpus.{key}: is of an index in a folder; to.column=halfvec stores float16 in a database")
    if settings.cluster.kind is ClusterKind.ray:
        from sentence_forge.export.ray_cluster import check_ray

        check_ray(settings.cluster.workers, settings.cluster.cpus, settings.cluster.address)


def read_rows(settings: Export, corpus: Path, before: Mapping[str, Any] | None = None) -> Corpus:
    """Return the corpus's rows.

    Args:
        settings: the command's keys.
        corpus: the file.
        before: what the manifest says of the corpus that was indexed here before.

    Raises:
        UserError: it can't be read, or none of its rows can be indexed.
    """
    given, out = settings.corpus, Path(settings.out).expanduser().absolute()
    rows = read_corpus(corpus, column=given.column, id_column=given.id_column, limit=given.limit, clean=given.clean,
                       folder=next(each for each in [out, *out.parents] if each.is_dir()),
                       keep=(before or {}).get("keep", []) if given.keep is None else given.keep,
                       reading=Reading(given.encoding, given.separator, given.sheet, given.header, key="corpus"))
    if not rows.ids:
        first = rows.rejected[0]
        raise UserError(f"{corpus}: none of its {rows.rows} rows can be indexed; line {first.line}: {first.reason}")
    log.info("corpus: %d rows, %d rejected", rows.rows, len(rows.rejected))
    return rows


def about_corpus(settings: Export, corpus: Path | None, rows: Corpus | None) -> dict[str, Any] | None:
    """Return the manifest's entry on the corpus."""
    if corpus is None or rows is None:
        return None
    about = {"name": corpus.name, "sha256": sha256_file(corpus), "column": rows.column,
             "id_column": settings.corpus.id_column, "limit": settings.corpus.limit}
    more = {"clean": list(settings.corpus.clean), "found": rows.detected, "keep": list(rows.kept)}
    return about | {key: value for key, value in more.items() if value}


def differing(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str:
    """Return the keys, in parentheses, by which two entries on a corpus were made otherwise; empty for none."""
    keys = [f"corpus.{key}" for key in ("column", "id_column", "limit", "keep", "clean")
            if before and now and before.get(key) != now.get(key)]
    return f" ({', '.join(keys)} differs)" if keys else ""


def check_precision(out: Path, precision: str, about: Mapping[str, Any]) -> None:
    """Refuse a precision that the export in ``out`` has no encoder for, before anything is encoded.

    Raises:
        UserError: it has none; says why.
    """
    if precision == "int8" and "int8" not in about.get("onnx", {}):
        why = about.get("onnx_left_out", {}).get("int8", {}).get("reason", "it was exported without ONNX")
        raise UserError(f"precision=int8: {out} has no int8 model, since {why}; give precision=fp32")
    if precision == "bf16" and (why := about.get("bf16", {"reason": "it was exported without it"}).get("reason")):
        raise UserError(f"precision=bf16: {out} can't be indexed in it, since {why}; give precision=fp32")


def corpus_encoder(out: Path, precision: str, device: str, about: Mapping[str, Any],
                   model: Callable[[], Encoder]) -> TextEncoder:
    """Return the fastest encoder of this precision: on a CPU the ONNX file, if there is one.

    Args:
        out: the export.
        precision: fp32, int8 or bf16.
        device: where to compute; int8 is for CPUs, bf16 for GPUs.
        about: the export's manifest; see ``export.backend`` for what it says of OpenVINO.
        model: gives the model through torch.

    Raises:
        UserError: the index is by OpenVINO, which is not installed here.
    """
    by_openvino = about.get("openvino", {"used": False})["used"]
    on_cpu = precision == "fp32" and device == "cpu" and "fp32" in about.get("onnx", {})
    if precision == "int8" or by_openvino or on_cpu:
        from sentence_forge.encoders.onnx import OnnxEncoder

        return OnnxEncoder(out, precision, OPENVINO if by_openvino else ONNXRUNTIME)
    if precision == "bf16":
        from sentence_forge.encoders.encoder import in_bf16

        return in_bf16(model())
    return model()


def index_rows(out: Path, rows: Corpus, encoder: TextEncoder, settings: Export) -> dict[str, Any]:
    """Index the corpus in ``out`` and return the manifest's entry on the index."""
    cluster, spread = settings.cluster, None

    if cluster.kind is ClusterKind.ray:
        from sentence_forge.export.ray_cluster import RayCluster

        spread = RayCluster(out, encoder.fingerprint, cluster.workers, cluster.cpus, cluster.address)
    to_database = settings.to.kind is TargetKind.postgres
    with progress("encoding", "title") as show:
        given: dict[str, Any] = {"rejected": rows.rejected, "kept": rows.kept, "progress": show, "spread": spread,
                                 "most_lost": settings.corpus.most_lost}
        more: dict[str, Any] = {}
        if to_database:
            report, more = _load(out, rows, encoder, settings, given)
        else:
            report = index_corpus(out / "index", rows.ids, rows.titles, encoder, **given,
                                  shard_rows=settings.corpus.shard_rows, half=settings.corpus.half,
                                  spread_shards=None if spread is None else spread.write_shards)
    log.info("index: %d rows (%d titles encoded, %d reused; %d rows added, %d changed, %d removed, %d rejected) "
             "in %.1f s", report.rows, report.encoded, report.reused, report.added, report.changed, report.removed,
             report.rejected, report.seconds)
    if report.rejected:
        where = out / "rejected.csv" if to_database else out / "index" / "rejected.csv"
        log.info("rejected rows, each with its line and reason: %s", where)
    return {"rows": report.rows, "rejected": report.rejected, "encoded": report.encoded,
            "seconds": round(report.seconds, 2), **more}


def place_of(out: Path, index: Mapping[str, Any], settings: Export) -> str:
    """Return what ``python -m search`` is given to search the index that was made, quoted for a shell."""
    place = shlex.quote(str(index.get("database", out)))
    if "generation" in index and not settings.to.switch:  # without it, the one that was searched before
        place += f" --generation {index['generation']}"
    return place


def _load(out: Path, rows: Corpus, encoder: TextEncoder, settings: Export,
          given: dict[str, Any]) -> tuple[IndexReport, dict[str, Any]]:
    """Load the corpus into the database; return the counts, and what the manifest says of the database."""
    from sentence_forge.search.postgres.address import parse
    from sentence_forge.search.postgres.load import load_corpus

    address = parse(settings.to.url or "")
    report, about = load_corpus(address, out / "loading", rows.ids, rows.titles, encoder, model=out,
                                kind=settings.to.column.value, switch_to=settings.to.switch, **given)
    write_rejected(out / "rejected.csv", rows.rejected)
    how = "every query scans all vectors, so it finds what an exact scan does" if about.ef_search is None else \
        f"HNSW with ef_search {about.ef_search}"
    measured = "" if about.recall is None else f"; recall@10 {about.recall:.4f} of HNSW against brute force"
    log.info("%s: generation %d%s; %s%s", address.shown, about.generation, "" if about.current else
             f", not searched until python -m search {shlex.quote(address.shown)} --generation {about.generation} "
             "--switch", how, measured)
    return report, {"database": address.shown, "generation": about.generation}
