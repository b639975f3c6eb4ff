"""Owns the files that an ended child has left, on their way to the store; then its folder goes.

Used by the thread of the desk, which sends one piece at a time and does other things in between.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.files import (
    FILE_BYTES_MAX,
    FILES_BYTES_MAX,
    FILES_MAX,
    PIECE_BYTES,
    Files,
    Written,
    open_written,
    written_in,
)
from vscrapy_magic.worker.plan import Burial

_NAMED: Final = 3  # of the files that are not sent


Piece = tuple[str, int, int, bytes]  # path, number, bytes of the whole file, data


class Parcel:
    """The files of one child.

    Attributes:
        burial: of the child that wrote them.
    """

    def __init__(self, store: Store, burial: Burial, folder: Path) -> None:
        self.burial: Final = burial
        self._files = Files(store, burial.tenant.crawl_id)
        self._token = burial.tenant.token
        self._folder = folder
        self._refused: list[str] = []
        self._waiting = list(written_in(folder))
        self._pieces = self._read()
        self._piece: Piece | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the child has written nothing."""
        return not self._waiting

    def announce(self) -> None:
        """Say that files are coming, before the crawl can end."""
        self._files.begin(self._token)

    def step(self) -> bool:
        """Send one piece, or say that all has come; True when that is done.

        Raises:
            StoreError: the store did not take it; the next call sends the same once more.
        """
        self._piece = self._piece or next(self._pieces, None)
        if self._piece is None:
            self._files.done(self._token)
            return True
        if not self._files.put(self._token, *self._piece):
            self._refused.append(self._piece[0])
        self._piece = None
        return False

    def _read(self) -> Iterator[Piece]:
        for each in self._waiting:
            if each.size_bytes > FILE_BYTES_MAX:
                self._refused.append(each.path)
            else:
                yield from self._pieces_of(each)
        if self._refused:
            self._tell()

    def _pieces_of(self, written: Written) -> Iterator[Piece]:
        try:
            fd = open_written(self._folder, written.path)
        except OSError as exc:
            self._say(f"{written.path} was not sent: {exc.strerror}")
            return
        with os.fdopen(fd, "rb") as file:
            number, left = 0, written.size_bytes
            while (left or not number) and written.path not in self._refused[-1:]:
                data = file.read(min(PIECE_BYTES, left))
                if number and not data:
                    return  # it was cut meanwhile
                yield written.path, number, written.size_bytes, data
                number, left = number + 1, left - len(data)

    def _tell(self) -> None:
        named = ", ".join(self._refused[:_NAMED])
        more = ", ..." if len(self._refused) > _NAMED else ""
        self._say(
            f"{len(self._refused)} files of the spider were not sent (at most {FILES_MAX} files, "
            f"{FILE_BYTES_MAX >> 20} MB each, {FILES_BYTES_MAX >> 20} MB of a crawl): {named}{more}"
        )

    def _say(self, text: str) -> None:
        self.burial.output.own(logging.WARNING, text)

    def drop(self) -> None:
        """Remove the folder, sent or not."""
        shutil.rmtree(self._folder, ignore_errors=True)
