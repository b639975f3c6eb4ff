"""Owns the files that a crawl's spider wrote on its workers, as they are kept in the spool.

Runs in the sender's process. The thread that follows a crawl collects them when the crawl is over;
any thread reads. What a worker sends is not trusted: paths stay below the crawl's own folder, and
the bounds are kept here too.
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import quote

from vscrapy_magic.store.files import (
    FILE_BYTES_MAX,
    FILES_BYTES_MAX,
    FILES_MAX,
    Arrival,
    Files,
)
from vscrapy_magic.store.keys import MemberToken

logger = logging.getLogger(__name__)

FOLDER: Final = "files"  # in the folder of the crawl's spool
_SHOWN: Final = 10  # names in a repr
_PART_BYTES: Final = 255  # of one name on disk
_COPIES: Final = 1000  # of files of one name


class CrawlFiles(Mapping[str, Path]):
    """Files that the spider wrote into its working folder: `worker/path` -> where it is here.

    They come when a worker's process of the crawl ends; all are here when the crawl is over. A
    second file of the same name with another content, from a process that was started again, is
    `name~2`.

    Attributes:
        root: the folder that holds them.
    """

    def __init__(self, folder: Path) -> None:
        self.root: Final = folder / FOLDER
        self._incoming = folder / "incoming"  # until it is whole
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Path:
        path = self.root / name
        if not _is_safe(name) or not path.is_file():
            raise KeyError(name)
        return path

    def __iter__(self) -> Iterator[str]:
        paths = sorted(path for path in self.root.rglob("*") if path.is_file())
        return (path.relative_to(self.root).as_posix() for path in paths)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        names = list(self)
        shown = [f"{name}: {self[name].stat().st_size} bytes" for name in names[:_SHOWN]]
        more = [f"... {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
        return "{" + ",\n ".join([*shown, *more]) + "}"

    def collect(self, files: Files) -> tuple[bool, frozenset[MemberToken]]:
        """Keep the files that have come, and remove them from the server.

        Returns:
            Whether there were any, and children whose files are still coming.
        """
        arrivals, coming = files.arrived()
        with self._lock:
            for arrival in arrivals:
                self._keep(arrival, files)
                files.remove(arrival)
        return bool(arrivals), coming

    def _keep(self, arrival: Arrival, files: Files) -> None:
        worker = quote(arrival.token.rpartition(".")[0], safe="") or "_"
        name = f"{worker}/{arrival.path}"
        if not _is_safe(name):
            logger.warning("A worker sent a file of the name %r, which is not kept", name)
            return
        content = b"".join(files.read(arrival))
        sizes = [path.stat().st_size for path in self.values()]
        total = sum(sizes) + len(content)
        if len(content) > FILE_BYTES_MAX or len(sizes) >= FILES_MAX or total > FILES_BYTES_MAX:
            logger.warning("%s is more than a crawl may bring and is not kept", name)
            return
        try:
            self._write(self.root / name, content)
        except OSError as exc:
            logger.warning("%s cannot be kept: %s", name, exc.strerror)

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(1, _COPIES):
            free = path.with_name(f"{path.name}~{number}") if number > 1 else path
            if not free.exists():
                self._incoming.write_bytes(content)
                self._incoming.replace(free)
                return
            if free.is_file() and free.read_bytes() == content:
                return


def _is_safe(name: str) -> bool:
    """Whether a name stays below the folder that it is looked for in."""
    parts = name.split("/")
    return (
        "\0" not in name
        and PurePosixPath(name).parts == tuple(parts)
        and not {"", ".", ".."} & set(parts)
        and all(len(part.encode()) <= _PART_BYTES for part in parts)
    )
