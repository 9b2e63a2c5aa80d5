"""Families of models that were trained with prompts, and a warning where they are used without."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from sentence_forge.encoders.card import read_about
from sentence_forge.runtime.errors import warn_once

_PASSAGES = "Represent this sentence for searching relevant passages: "
_INSTRUCT = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
# Of the models' cards: a pattern of the name's last part, and the prompts of queries and documents. The first that fits
# counts; None is a family that needs none.
_FAMILIES: tuple[tuple[str, str, tuple[str, str] | None], ...] = (
    ("e5-instruct", r"e5.*instruct", (_INSTRUCT, "")),
    ("e5", r"(^|multilingual-)e5-(small|base|large)", ("query: ", "passage: ")),
    ("bge-m3", r"bge-m3|bge-multilingual|bge-.*-unsupervised", None),
    ("bge-zh", r"bge-(small|base|large)-zh", ("为这个句子生成表示以用于检索相关文章：", "")),
    ("bge", r"bge-(small|base|large)-en", (_PASSAGES, "")),
    ("gte-instruct", r"gte-qwen2?", (_INSTRUCT, "")),
    ("nomic-embed", r"nomic-embed-text", ("search_query: ", "search_document: ")),
    ("arctic-embed", r"arctic-embed-.*v2", ("query: ", "")),
    ("arctic-embed", r"arctic-embed", (_PASSAGES, "")),
    ("mxbai-embed", r"mxbai-embed-(large|xsmall)|uae-large", (_PASSAGES, "")),
    ("instructor", r"instructor-(base|large|xl)", ("Represent the question for retrieving supporting documents: ",
                                                    "Represent the document for retrieval: ")),
    ("qwen-embedding", r"qwen3-embedding", (_INSTRUCT.removesuffix(" "), "")),
    ("embeddinggemma", r"embeddinggemma", ("task: search result | query: ", "title: none | text: ")),
    ("stella", r"stella.*v5", (_INSTRUCT, "")),
)


def prompts_of_family(name: str) -> tuple[str, dict[str, str]] | None:
    """Return the family of a model's name and the prompts that it was trained with; None where it needs none.

    >>> prompts_of_family("intfloat/multilingual-e5-small")
    ('e5', {'query': 'query: ', 'document': 'passage: '})
    """
    last = name.rstrip("/").rpartition("/")[2].lower()
    for family, pattern, prompts in _FAMILIES:
        if re.search(pattern, last):
            return None if prompts is None else (family, dict(zip(("query", "document"), prompts, strict=True)))
    return None


def warn_of_missing_prompts(model: SentenceTransformer, name: str, folder: Path) -> None:
    """Warn of a model of a known family that has none of its prompts, and say how they are set.

    Args:
        model: as loaded.
        name: what the user called it; a folder's name may hide what it is, so the facts in the folder are read, too.
        folder: the model's.
    """
    if any(model.prompts.values()):
        return
    config: Any = getattr(model[0], "config", None)
    trained_from = (read_about(folder).get("training") or {}).get("base")
    names = [name, str(getattr(config, "_name_or_path", "")), str(trained_from), _base_of_card(folder)]
    found = next((found for each in names if each and (found := prompts_of_family(each))), None)
    if found is None:
        return
    family, prompts = found
    setting = ", ".join(f"{role}: {json.dumps(prompt, ensure_ascii=False)}" for role, prompt in prompts.items())
    if any(isinstance(module, Pooling) and not module.include_prompt for module in model.children()):
        remedy = "it leaves them out of its pooling, which is not done here, so another model is the better choice"
    else:
        remedy = f"type 'model.prompts={{{setting}}}', or 'model.prompts={{query: \"\"}}' to go without"
    warn_once(f"model: {name} looks like one of the family {family}, which was trained with prompts before its texts, "
              f"and has none here, so it finds less than it could; {remedy}")


def _base_of_card(folder: Path) -> str:
    """Return the base model that the head of a model card names."""
    card = folder / "README.md"
    head = card.read_text(encoding="utf-8", errors="replace")[:4000] if card.is_file() else ""
    found = re.search(r"^base_model:\s*(?:-\s*)?(\S+)", head, re.MULTILINE)
    return found.group(1) if found else ""
