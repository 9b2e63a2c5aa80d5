"""Prompts: a few words that are put before a text, by its role in a search or for every text."""

from __future__ import annotations

from collections.abc import Mapping

from sentence_transformers import SentenceTransformer

from sentence_forge.encoders.protocol import Role
from sentence_forge.runtime.errors import UserError, one_of

# Where sentence-transformers' encode_query and encode_document look: the first that the model has.
_NAMES: dict[Role, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}


def prompt_of(model: SentenceTransformer, role: Role | None = None) -> str:
    """Return the prompt of a role, often an empty one.

    Without a role it is the default prompt, as in stock ``encode``; with one, what ``encode_query`` or
    ``encode_document`` takes. A model that has a prompt for neither role has its default one in both: a model for
    texts of one kind, such as titles.
    """
    default = model.prompts.get(model.default_prompt_name or "") or ""
    found = {each: next((model.prompts[name] or "" for name in names if name in model.prompts), "")
             for each, names in _NAMES.items()}
    return found[role] if role is not None and any(found.values()) else default


def set_prompts(model: SentenceTransformer, prompts: Mapping[str, str | None]) -> None:
    """Give ``model`` the prompts of a config; None leaves the model's own.

    ``query`` and ``document`` stand before texts of that role, ``default`` before those without one (two texts that are
    scored, a text with a label), in stock ``encode``, too.

    Raises:
        UserError: another name, or a prompt that is no text.
    """
    names = (*_NAMES, "default")
    for name, prompt in prompts.items():
        if name not in names:
            raise UserError(f"model.prompts: there is no {name!r}; {one_of(names, name)}")
        if prompt is not None and not isinstance(prompt, str):
            raise UserError(f"model.prompts.{name}: {prompt!r} is no text; put it in quotes")
        if prompt is not None:
            model.prompts[name] = prompt
            if name == "default":
                model.default_prompt_name = name
