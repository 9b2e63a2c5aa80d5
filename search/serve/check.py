"""``python -m search check URL DIR``: whether a server that claims to have an export's model gives its vectors."""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Sequence

import numpy as np

from sentence_forge.encoders.similarity import FloatArray, bad_row, normalise
from sentence_forge.runtime.errors import UserError, brief
from sentence_forge.runtime.process import Parser, run
from sentence_forge.search.display import print_lines

_CLOSE = 0.999  # cosine: of another precision (int8: 0.99) or another model it is lower
_TEXTS = 16
_LONGEST_ANSWER = 64 << 20


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parse = Parser(prog="python -m search check", description="Ask a server with OpenAI's API for embeddings, and "
                   "compare its vectors with those of an export: servers are known to leave out Dense layers, prompts "
                   "or pooling.")
    parse.add_argument("url", metavar="URL", help="such as http://127.0.0.1:8080 (or .../v1)")
    parse.add_argument("dir", metavar="DIR", nargs="?", default=".", help="the export with the model (default: this "
                       "folder)")
    parse.add_argument("--model", default="default", help="the name to ask for")
    parse.add_argument("--token", default=os.environ.get("SENTENCE_FORGE_TOKEN"), help="sent as Authorization: Bearer")
    return parse


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 if the vectors are the same, else 2."""
    return run(lambda: _check(parser().parse_args(argv)), logging.WARNING)


def _check(args: argparse.Namespace) -> None:
    from sentence_forge.search.index import Index

    with Index.open(args.dir) as index:
        rows = np.linspace(0, len(index.titles) - 1, min(_TEXTS, len(index.titles))).astype(int)
        texts = [*dict.fromkeys(index.titles[int(row)][:2000] for row in rows), "word " * 400]
        ours, prompted = (normalise(index.encoder.encode(texts, role=role)) for role in (None, "query"))
    theirs = _ask(args, texts)
    if theirs.shape[1] != ours.shape[1]:
        raise UserError(f"{args.url}: gives {theirs.shape[1]} numbers a text, the model in {args.dir} {ours.shape[1]}; "
                        "it leaves out a layer (Dense) or cuts the vectors, or has another model")
    cosines = np.einsum("nd,nd->n", normalise(theirs), ours)
    if cosines.min() < _CLOSE:
        why = "it puts the prompt of queries before each text" if np.einsum(
            "nd,nd->n", normalise(theirs), prompted).min() >= _CLOSE else \
            "only the long text differs, so it cuts texts elsewhere" if cosines[:-1].min() >= _CLOSE else \
            "it has another model or precision, or leaves out a layer, the pooling or a prompt"
        raise UserError(f"{args.url}: gives other vectors than the model in {args.dir}: cosine {cosines.min():.4f} at "
                        f"least, {cosines.mean():.4f} on average over {len(texts)} texts; {why}")
    print_lines([f"{args.url}: the vectors are those of {args.dir} (cosine {cosines.min():.6f} or more over "
                 f"{len(texts)} texts)"])


def _ask(args: argparse.Namespace, texts: list[str]) -> FloatArray:
    address = args.url.rstrip("/")
    address = address if address.endswith("/embeddings") else f"{address.removesuffix('/v1')}/v1/embeddings"
    if not address.startswith(("http://", "https://")):
        raise UserError(f"{args.url}: is no address; give such as http://127.0.0.1:8080")
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {args.token}"} if args.token else {})}
    request = urllib.request.Request(address, json.dumps({"input": texts, "model": args.model}).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            data = json.loads(answer.read(_LONGEST_ANSWER))["data"]
        vectors = np.array([each["embedding"] for each in sorted(data, key=lambda each: each["index"])], np.float32)
    except urllib.error.HTTPError as error:
        raise UserError(f"{args.url}: answers {error.code} {error.reason}; is it a server of embeddings, and is "
                        "--token right?") from None
    except (http.client.HTTPException, OSError) as error:  # no HTTP comes from there, or no server is
        raise UserError(f"{args.url}: can't be reached ({brief(str(getattr(error, 'reason', error)))})") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{args.url}: does not answer as OpenAI's API does") from None
    if vectors.ndim != 2 or len(vectors) != len(texts) or bad_row(vectors) is not None:
        raise UserError(f"{args.url}: gives {len(vectors)} vectors for {len(texts)} texts, or some without direction")
    return vectors
