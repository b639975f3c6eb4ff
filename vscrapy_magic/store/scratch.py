"""Owns folders for working files that live no longer than the processes that use them.

Used by supervisors (working folders of children), children, and senders. Whoever uses such a folder
holds a shared lock on it (`flock` on the folder itself), which the system takes back however a
process ends. So whoever can lock it for itself alone knows that nobody uses it any more; process
ids would not do: they are used again, and other containers that share the folder have others.

`sweep` removes only what is certainly ours and certainly left: a folder (no link) of this user that
nobody else may enter, with a name of our kind, on which nobody holds a lock. Where the file system
has no such locks nothing is swept.

Races: between making a folder and locking it somebody may sweep it. The sweeper removes it while it
holds the lock, so the maker either finds it locked, or locks what has no name any more; it looks,
and makes another one.
"""

import contextlib
import fcntl
import logging
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

logger = logging.getLogger(__name__)

Kind = Literal["work", "feeds"]

_NAME: Final = re.compile(r"vscrapy-(?:work|feeds)-[a-z0-9_]{8}")  # as `mkdtemp` makes them
_ATTEMPTS: Final = 100  # each is lost only to somebody who sweeps at this very moment
_PRIVATE: Final = 0o700
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Scratch:
    """A folder of this process; a context manager, which removes it. Used from one thread.

    Attributes:
        path: the folder, 0700, in the folder for temporary files.
    """

    def __init__(self, kind: Kind) -> None:
        """Make it.

        Args:
            kind: what it is for, in its name.

        Raises:
            OSError: it cannot be made.
        """
        path, fd = _made(kind)
        self.path: Final = path
        self._fd: int | None = fd

    def close(self) -> None:
        """Remove the folder with all that is in it. Idempotent."""
        fd, self._fd = self._fd, None
        if fd is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _made(kind: Kind) -> tuple[Path, int]:
    """A new folder, and the descriptor that holds it."""
    for _ in range(_ATTEMPTS):
        path = Path(tempfile.mkdtemp(prefix=f"vscrapy-{kind}-"))
        if (fd := _held(path)) is not None:
            return path, fd
    raise OSError(f"folders in {tempfile.gettempdir()} are removed as soon as they are made")


def hold(path: Path) -> bool:
    """Use another process's folder too, until this process ends; False when it is not one of ours.

    A child may outlive its supervisor for a moment, or for long when it hangs.
    """
    return _NAME.fullmatch(path.name) is not None and _held(path) is not None


def sweep() -> list[Path]:
    """Remove folders whose users are all gone, however they went; those that were removed.

    Safe while others make folders, use them or sweep; never raises.
    """
    swept = []
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(tempfile.gettempdir())):
            if _NAME.fullmatch(entry.name) and _sweep_one(Path(entry.path)):
                logger.debug("Removed %s, which a process that is gone had left", entry.path)
                swept.append(Path(entry.path))
    return swept


def _held(path: Path) -> int | None:
    """A descriptor that holds a shared lock on the folder; None: somebody is removing it."""
    try:
        fd = os.open(path, _OPEN)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        pass  # no locks on this file system: nobody can sweep there either
    if not _is_at(fd, path):
        os.close(fd)
        return None
    return fd


def _sweep_one(path: Path) -> bool:
    """Remove one folder if it is ours and nobody uses it; whether it was removed."""
    try:
        fd = os.open(path, _OPEN)
    except OSError:
        return False
    try:
        facts = os.fstat(fd)
        if facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) != _PRIVATE:
            return False
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(fd, path):
            return False
        shutil.rmtree(path, ignore_errors=True)  # follows no links, wherever they are
        return not path.exists()
    except OSError:
        return False  # it is used, or cannot be locked
    finally:
        os.close(fd)


def _is_at(fd: int, path: Path) -> bool:
    """Whether the open folder is still the one at that path."""
    try:
        now, ours = path.lstat(), os.fstat(fd)
    except OSError:
        return False
    return (now.st_dev, now.st_ino) == (ours.st_dev, ours.st_ino)
