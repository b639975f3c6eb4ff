"""Owns how a sender asks a warm process to read a spider's source, and where it finds one.

Used by senders and by zygotes of the local cluster. A zygote listens in the cluster's folder, which
only its user may enter, under a name that begins with its environment: whoever finds it there has
the same interpreter and packages, so that it finds the same. For each connection it forks a process
that already has Scrapy. First goes a byte with the descriptor that user code may print to, then the
inquiry; what comes back is one line with the inspection, and one with the exit code.
"""

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final

import msgspec

from vscrapy_magic.store.inspection import Source

HEAD: Final = Struct(">I")  # bytes of the inquiry that follows
BYTES_MAX: Final = 16 * 1024 * 1024  # environment variables and arguments are smaller by far
DECLINED: Final = b"-"  # instead of an inspection: a fresh process would find something else
END: Final = b"\n"
_GREETING: Final = b"?"
_ADDRESS: Final = re.compile(r"[^.]+\.[0-9]+")
# What an interpreter reads only when it starts; the path is part of the environment's name.
_AT_START: Final = frozenset({"LANG", "LC_ALL", "LC_CTYPE"})
_PYTHON: Final = "PYTHON"
_IN_THE_NAME: Final = frozenset({"PYTHONPATH"})


class Inquiry(msgspec.Struct, frozen=True, kw_only=True):
    """What a process that was started for it would have of its starter.

    Attributes:
        folder: the working folder.
        variables: all environment variables.
        umask: of files that user code makes.
    """

    source: Source
    folder: str
    variables: dict[str, str]
    umask: int


def needs_start(variables: dict[str, str]) -> dict[str, str]:
    """Variables of which a process has to know when it starts."""
    return {
        name: value
        for name, value in variables.items()
        if name in _AT_START or (name.startswith(_PYTHON) and name not in _IN_THE_NAME)
    }


def address(folder: Path, environment: str) -> Path:
    """Where the zygote that this process is listens."""
    return folder / f"{environment}.{os.getpid()}"


def addresses(folder: Path, environment: str) -> Iterator[Path]:
    """Where zygotes of an environment may listen; some may be gone."""
    yield from folder.glob(f"{environment}.*")


def forget_all(folder: Path) -> None:
    """Remove what zygotes have left; for who is certain that none of them lives."""
    for path in folder.glob("*.*"):
        if _ADDRESS.fullmatch(path.name) and path.is_socket():
            path.unlink(missing_ok=True)


def greet(connection: socket.socket, inquiry: Inquiry, printing_fd: int) -> None:
    """Ask.

    Raises:
        OSError: nobody is there any more.
    """
    body = msgspec.msgpack.encode(inquiry)
    socket.send_fds(connection, [_GREETING], [printing_fd])
    connection.sendall(HEAD.pack(len(body)) + body)


def hear(connection: socket.socket) -> tuple[Inquiry, int]:
    """What is asked, and the descriptor that user code may print to.

    Raises:
        OSError, ValueError, EOFError: it is no inquiry, or whoever asks is gone.
    """
    _, fds, _, _ = socket.recv_fds(connection, len(_GREETING), 1)
    (size,) = HEAD.unpack(_exactly(connection, HEAD.size))
    if size > BYTES_MAX or len(fds) != 1:
        raise ValueError(f"an inquiry of {size} bytes with {len(fds)} descriptors")
    return msgspec.msgpack.decode(_exactly(connection, size), type=Inquiry), fds[0]


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError("whoever asked is gone")
        data += more
    return bytes(data)
