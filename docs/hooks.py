"""Hooks of the documentation site: Markdown files of the project become pages, examples in docstrings code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from griffe import Extension, Object
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

OF_THE_PROJECT = ("RESULTS.md", "CHANGELOG.md", "CONTRIBUTING.md", "bench/results/**/*.svg")
FETCHED = re.compile(r"""<(?:script|img|iframe|link rel="?(?:stylesheet|preload|icon))[^>]*(?:src|href)=["']?"""
                     r"(?:https?:)?//")
EXAMPLE = re.compile(r"^(?P<indent> *)>>> .*(?:\n(?P=indent)\S.*)*", re.MULTILINE)


class Examples(Extension):
    """Puts the ``>>>`` examples of docstrings in code blocks, without the marks that are for the test alone."""

    def on_object(self, *, obj: Object, **_: Any) -> None:  # noqa: ANN401 - what griffe passes besides
        """Rewrite the docstring of a module, class or function."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(_fenced, obj.docstring.value)


def _fenced(example: re.Match[str]) -> str:
    indent, code = example["indent"], re.sub(r" +# doctest: .*", "", example[0])
    return f"{indent}```pycon\n{code}\n{indent}```"


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the Markdown files at the project's top as pages."""
    root = Path(config.config_file_path).parent
    for pattern in OF_THE_PROJECT:
        for file in sorted(root.glob(pattern)):
            files.append(File.generated(config, file.relative_to(root).as_posix(), abs_src_path=str(file)))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:  # noqa: ANN401 - what MkDocs passes besides
    """Let links between docs/ and the project's top lead to the pages, and links to folders be plain text."""
    markdown = re.sub(r"\[([^\]]+)\]\((?:bench|docs|examples|tests)(?:/\w+)?/?\)", r"`\1`", markdown)
    return re.sub(r"\]\((?:\.\./(?=[A-Z]+\.md)|docs/(?=[\w/]+\.md))", "](", markdown)


def on_post_page(output: str, page: Page, **_: Any) -> None:  # noqa: ANN401 - what MkDocs passes besides
    """Refuse a page that loads a script, a style or a picture from elsewhere."""
    if found := FETCHED.search(output):
        raise PluginError(f"{page.file.src_path}: loads {found[0]} from elsewhere; keep a copy in docs/")
