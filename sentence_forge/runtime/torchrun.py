"""Processes that ``torchrun`` has started: the folder that it makes for them, where they note what they have said."""

from __future__ import annotations

import hashlib
import os
import shlex
from pathlib import Path

from sentence_forge.runtime.errors import UserError


def own_folder() -> Path | None:
    """Return the folder that ``torchrun`` has made for this process, for files that nobody needs later.

    It makes one for each start of each process, for errors (``TORCHELASTIC_ERROR_FILE``), in the temporary folder or
    below its ``--log-dir``. None where another program started this process.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    return Path(file).parent if file and Path(file).parent.is_dir() else None


def again(run: Path) -> str:
    """Return what a person types to go on with a run by as many processes as this one is of."""
    words = f"-m train resume={shlex.quote(str(run))}"
    if own_folder() is None:
        return f"python {words}"
    if _machines() > 1:
        return f"the same torchrun on each machine, with {words}"
    return f"torchrun --nproc-per-node {os.environ['LOCAL_WORLD_SIZE']} {words}"


def starts_again() -> bool:
    """Whether ``torchrun`` will start all processes again when one fails (``--max-restarts``)."""
    return _restarts() > int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def check_restarts() -> None:
    """Refuse restarts on several machines: each counts its own, so that the processes wouldn't meet again.

    Raises:
        UserError: ``torchrun`` was given them.
    """
    if _restarts() and _machines() > 1:
        raise UserError(f"torchrun --max-restarts={_restarts()}: is for one machine, as each counts its own "
                        "restarts; leave it out, and go on by resume=<run>")


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0))


def _machines() -> int:
    return int(os.environ.get("GROUP_WORLD_SIZE", 1))


def first_to_say(line: str) -> bool:
    """Return whether no other process here has said this line since they were started; from now on one has.

    On several machines it is said once on each, since their terminals or logs are several, too.

    Args:
        line: what is to be said; a process that says it again, such as a second command of a script, may.
    """
    folder = own_folder()
    if folder is None:
        return True
    note, mine = folder.parent / f"said-{hashlib.sha256(line.encode()).hexdigest()[:16]}", os.environ.get("RANK", "")
    try:
        with note.open("x") as file:
            file.write(mine)
    except FileExistsError:
        return note.read_text() == mine
    except OSError:  # a full disk; twice is better than never
        return True
    return True


def said_why() -> bool:
    """Return whether a process here has said why all of them end."""
    folder = own_folder()
    return folder is not None and any(folder.parent.glob("said-*"))
