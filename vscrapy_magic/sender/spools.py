"""Owns the folder of all spools of a user: where it is, and what stays in it for how long.

Runs in the sender's process. Several processes may prune at once, while others collect and read.
"""

import contextlib
import fcntl
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import platformdirs

from vscrapy_magic.config import private_dir
from vscrapy_magic.sender.pages import PAGES

SPOOL_VARIABLE: Final = "VSCRAPY_SPOOL"  # another folder than the user's cache
KEEP_S: Final = 3 * 24 * 3600.0  # spools of crawls that are over; Redis keeps outputs for a day
ROOT_BYTES_MAX: Final = 4 * 1024**3  # of all spools together; the oldest that are over go first
HELD: Final = "held"  # in a spool; shared by the processes that read what is complete
_CRAWL_ID: Final = re.compile(r"[0-9a-f]{8}")


def spool_root() -> Path:
    """This user's folder of spools, 0700."""
    given = os.environ.get(SPOOL_VARIABLE)
    cache = Path(platformdirs.user_cache_dir("vscrapy", appauthor=False))
    return private_dir(Path(given) if given else cache / "spool")


def prune(root: Path, *, now: float | None = None) -> None:
    """Remove spools that are past their time, and the oldest while all together are too large.

    Of those that are too large recorded pages go first: items and failures are what was asked for.
    What is no spool of this user is left alone: the folder may be one that its user has chosen.
    """
    now = time.time() if now is None else now
    found = {path: facts.st_mtime for path in root.iterdir() if (facts := _spool_facts(path))}
    sizes = {path: _bytes_in(path) for path in found}
    total = sum(sizes.values())
    oldest = sorted(found, key=found.__getitem__)
    for path in oldest:
        if total <= ROOT_BYTES_MAX:
            break
        if now - found[path] <= KEEP_S:
            gone = _remove_pages(path)
            sizes[path] -= gone
            total -= gone
    for path in oldest:
        is_old = now - found[path] > KEEP_S
        if (is_old or total > ROOT_BYTES_MAX) and _remove(path):
            total -= sizes[path]


def _spool_facts(path: Path) -> os.stat_result | None:
    """What the system says of a spool; None for whatever else, links too."""
    if _CRAWL_ID.fullmatch(path.name):
        with contextlib.suppress(OSError):  # another process has removed it
            facts = path.lstat()
            if stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid():
                names = set(os.listdir(path))  # noqa: PTH208 - names are all that is needed
                # A process that was killed at the beginning has left next to nothing.
                return facts if "crawl" in names or names <= {"crawl.new"} else None
    return None


def _bytes_in(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # replaced meanwhile
            size += path.lstat().st_size
    return size


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a spool; raises an `OSError` when a process collects into it, or reads it."""
    with (folder / "lock").open("ab") as file, (folder / HELD).open("ab") as held:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _remove(folder: Path) -> bool:
    """Remove a spool unless a process collects into it, or reads it; whether it was removed."""
    with contextlib.suppress(OSError), _alone(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return True
    return False


def _remove_pages(folder: Path) -> int:
    """Remove the recorded pages of a spool that nobody holds; bytes that this freed."""
    path = folder / PAGES
    with contextlib.suppress(OSError):
        size = path.stat().st_size
        with _alone(folder):
            path.unlink()
            return size
    return 0
