"""Processes that ``torchrun`` has started: the folder that it makes for them, where they note what they have said."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def own_folder() -> Path | None:
    """Return the folder that ``torchrun`` has made for this process, for files that nobody needs later.

    It makes one for each start of each process, for errors (``TORCHELASTIC_ERROR_FILE``), in the temporary folder or
    below its ``--log-dir``. None where another program started this process.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    return Path(file).parent if file and Path(file).parent.is_dir() else None


def first_to_say(line: str) -> bool:
    """Return whether no other process here has said this line since they were started; from now on one has.

    On several machines it is said once on each, since their terminals or logs are several, too.

    Args:
        line: what is to be said.
    """
    folder = own_folder()
    if folder is None:
        return True
    try:
        (folder.parent / f"said-{hashlib.sha256(line.encode()).hexdigest()[:16]}").touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # a full disk; twice is better than never
        return True
    return True


def said_why() -> bool:
    """Return whether a process here has said why all of them end."""
    folder = own_folder()
    return folder is not None and any(folder.parent.glob("said-*"))
