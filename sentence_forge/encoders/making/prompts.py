"""What stands before a text: by the role it plays in a search, or by default."""

from __future__ import annotations

from collections.abc import Mapping

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from sentence_forge.encoders.protocol import Role
from sentence_forge.runtime.errors import UserError, one_of

# Where sentence-transformers' encode_query and encode_document look: the first that the model has.
_NAMES: dict[Role, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}


def prompt_of(model: SentenceTransformer, role: Role | None = None) -> str:
    """Return what stands before a text of this role; mostly nothing.

    Without a role it is the default prompt, as in stock ``encode``; with one, what ``encode_query`` or
    ``encode_document`` takes. A model that has a prompt for neither role has its default one in both: a model for
    texts of one kind, such as titles.
    """
    default = model.prompts.get(model.default_prompt_name or "") or ""
    found = {each: next((model.prompts[name] or "" for name in names if name in model.prompts), "")
             for each, names in _NAMES.items()}
    return found[role] if role is not None and any(found.values()) else default


def set_prompts(model: SentenceTransformer, prompts: Mapping[str, str | None]) -> None:
    """Give ``model`` the prompts of a config, ``query`` and ``document``; None leaves the model's own.

    Raises:
        UserError: another name, a prompt that is no text, or a model that leaves prompts out of its pooling.
    """
    for name, prompt in prompts.items():
        if name not in _NAMES:
            raise UserError(f"model.prompts: there is no {name!r}; {one_of(_NAMES, name)}")
        if prompt is not None and not isinstance(prompt, str):
            raise UserError(f"model.prompts.{name}: {prompt!r} is no text; put it in quotes")
        if prompt is not None:
            model.prompts[name] = prompt
    if any(model.prompts.values()) and any(isinstance(module, Pooling) and not module.include_prompt
                                           for module in model.children()):
        raise UserError("model: leaves its prompts out of the pooling (include_prompt: false, as INSTRUCTOR does), "
                        "which is not done here; give a model that pools them")
