"""Recognise columns by their usual names in English and Chinese, whatever their case and spacing."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

KNOWN: dict[str, tuple[str, ...]] = {
    "title": ("title", "headline", "新闻标题", "标题", "题目", "文章标题", "titles", "headlines", "news title"),
    "text": ("text", "sentence", "content", "文本", "句子", "内容", "正文", "texts", "sentences"),
    "label": ("label", "标签", "类别", "分类", "labels", "gold label", "category", "class"),
    "sentence1": ("sentence1", "句子1", "文本1", "sentence a", "text1", "text a", "句子一", "文本一"),
    "sentence2": ("sentence2", "句子2", "文本2", "sentence b", "text2", "text b", "句子二", "文本二"),
    "score": ("score", "分数", "相似度", "得分", "similarity", "scores", "similarity score", "relatedness score"),
    "premise": ("premise", "前提"),
    "hypothesis": ("hypothesis", "假设"),
    "anchor": ("anchor", "query", "查询", "问题", "question"),
    "positive": ("positive", "pos", "正例", "positives", "positive passages", "answer", "答案"),
    "negative": ("negative", "neg", "负例", "negatives", "negative passages", "hard negatives", "hard negative"),
}
"""For a column of a shape, its well-known names, the commoner first."""


def plain(name: str) -> str:
    """Return a column's name in lower case, without blanks, underscores and hyphens, full-width forms made plain."""
    return re.sub(r"[\s_\-\ufeff]+", "", unicodedata.normalize("NFKC", name)).casefold()


_PLAIN = {plain(name): column for column, names in KNOWN.items() for name in names}


def is_known(name: str) -> bool:
    """Whether a column is called by a well-known name."""
    return plain(name) in _PLAIN or plain(name) in ("id", "编号", "序号", "url", "date")


def all_known(header: Sequence[str], column: str) -> list[str]:
    """Return the file's columns that have a well-known name of a shape's column."""
    return [name for name in header if _PLAIN.get(plain(name)) == column]


def well_known(header: Sequence[str], wanted: Iterable[str]) -> dict[str, str]:
    """Return for each wanted column of a shape the file's column with a well-known name of it, where there is one."""
    names = {plain(name): name for name in reversed(header)}
    found = {}
    for column in wanted:
        known = (names[plain(name)] for name in KNOWN.get(column, (column,)) if plain(name) in names)
        if name := column if column in header else next(known, None):
            found[column] = name
    return found


def say(path: Path, found: dict[str, str], key: str) -> None:
    """Log which of a file's columns were taken for which columns of a shape."""
    taken = ", ".join(f"{name!r} as {column}" for column, name in found.items() if name != column)
    if taken:
        logger.info("%s: its columns: %s (%s names others)", path, taken, key)
