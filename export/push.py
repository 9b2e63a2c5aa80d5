"""``push=owner/name``: an exported model and its card go to the Hugging Face hub, in one commit."""

from __future__ import annotations

import logging
from pathlib import Path

from sentence_forge.data_readers.training_hashes import FILE as TRAINING_TEXTS
from sentence_forge.runtime.disk import size
from sentence_forge.runtime.errors import UserError

log = logging.getLogger(__name__)
_LEFT_OUT = (TRAINING_TEXTS,)  # hashes of the training texts, by which anyone could tell whether a text was among them


def check_push(repo: str, *, dry_run: bool) -> None:
    """Refuse what would fail at the end, before anything slow; without a word to the network.

    Raises:
        UserError: no name of a repository, no token, or the hub is out of bounds.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"push={repo}: {_first_line(error)}; give push=<owner>/<name>") from None
    if dry_run:
        return
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"push={repo}: HF_HUB_OFFLINE forbids it; unset that; push_dry_run=true looks without the hub")
    if get_token() is None:
        raise UserError(f"push={repo}: the hub wants a token that may write; run hf auth login, or set HF_TOKEN; "
                        "push_dry_run=true looks without one")


def push(out: Path, repo: str, *, private: bool, dry_run: bool) -> None:
    """Say what goes to the hub, and unless it is a ``dry_run`` push it.

    Args:
        out: an export; its folder ``model`` becomes the repository's content.
        repo: ``owner/name``; is made where there is none.
        private: whether only its owner sees a new repository; one that is there stays as it is.
        dry_run: only say it.

    Raises:
        UserError: the hub can't be reached or refuses; the export stays as it is.
    """
    folder = out / "model"
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name not in _LEFT_OUT]
    for file in files:
        log.info("  %-42s %s", file.relative_to(folder).as_posix(), size(file.stat().st_size))
    left = [name for name in _LEFT_OUT if (folder / name).is_file()]
    log.info("%s to %s/%s, %s if it is new: %d files, %s%s", "would go" if dry_run else "going", _endpoint(), repo,
             "private" if private else "PUBLIC", len(files), size(sum(file.stat().st_size for file in files)),
             f"; without {', '.join(left)}, hashes of the training texts" if left else "")
    log.info("these are the model and its card, in float32; ONNX files and index stay here")
    if not dry_run:
        log.info("pushed: %s", _push(out, files, repo, private))


def _push(out: Path, files: list[Path], repo: str, private: bool) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    try:
        made = api.create_repo(repo, private=private, exist_ok=True)
        card = (out / "model" / "README.md").read_text(encoding="utf-8").replace('"this folder"', f'"{made.repo_id}"')
        operations = [CommitOperationAdd(file.relative_to(out / "model").as_posix(),
                                         card.encode() if file == out / "model" / "README.md" else file)
                      for file in files]
        api.create_commit(made.repo_id, operations, commit_message="Model exported by sentence-forge")
    except Exception as error:  # of many kinds, by the version of the hub's client; none is a bug of ours
        raise UserError(f"push={repo}: {_endpoint()}: {_first_line(error)}; the export in {out} is complete, try "
                        f"again by python -m export only=push out={out} push={repo}") from None
    return str(made)


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
