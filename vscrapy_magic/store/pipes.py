"""Owns the pipe protocol between a worker's processes: supervisor, zygote and children.

Frames are a 4-byte big-endian length and a msgpack struct. A child's plain stdout and stderr go
through pipes of their own, unframed, so that nothing that user code prints can break this one.
"""

import enum
import struct
from typing import Final

import msgspec

_HEAD: Final = struct.Struct(">I")
MAX_FRAME_BYTES: Final = 16 * 1024 * 1024  # a longer frame means a broken pipe protocol


class Command(enum.StrEnum):
    """What a supervisor says to a child."""

    PING = "ping"  # answered by PONG from the child's event loop
    STOP = "stop"  # send no further request, finish leases, close the spider, exit
    SETTINGS = "settings"  # the crawl's settings changed: ask the store


class ToChild(msgspec.Struct, frozen=True):
    """One frame on the control pipe."""

    command: Command
    number: int = 0


class Report(enum.StrEnum):
    """What a child says to its supervisor."""

    PONG = "pong"
    LOG = "log"
    PHASE = "phase"  # text: loading, running, closing, closed
    FATAL = "fatal"  # text: why the crawl cannot run here at all; the child exits


class ExitCode(enum.IntEnum):
    """How a child ended; other codes are the child's own doing, negative ones a signal."""

    DONE = 0
    FATAL = 64  # the spider cannot be loaded; told by `Report.FATAL`
    MEMBER_GONE = 65  # its leases went to others; may be started again
    STORE_LOST = 66  # Redis unreachable for too long; may be started again
    PARENT_GONE = 67


class FromChild(msgspec.Struct, frozen=True):
    """One frame on the report pipe.

    Attributes:
        level: logging level of a LOG frame.
        time_ms: milliseconds since the epoch.
    """

    report: Report
    text: str = ""
    number: int = 0
    level: int = 0
    logger: str = ""
    time_ms: int = 0


def frame(message: ToChild | FromChild) -> bytes:
    """The message as one frame, to be written in one `write`."""
    body = msgspec.msgpack.encode(message)
    return _HEAD.pack(len(body)) + body


class FrameReader:
    """Cuts a byte stream into frames; not thread-safe."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Bodies of the frames that `data` completes, in order.

        Raises:
            ValueError: a frame is longer than `MAX_FRAME_BYTES`; the stream cannot be read on.
        """
        self._pending += data
        bodies = []
        while len(self._pending) >= _HEAD.size:
            (size,) = _HEAD.unpack_from(self._pending)
            if size > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {size} bytes, at most {MAX_FRAME_BYTES} are allowed")
            if len(self._pending) < _HEAD.size + size:
                break
            bodies.append(bytes(self._pending[_HEAD.size : _HEAD.size + size]))
            del self._pending[: _HEAD.size + size]
        return bodies


def read_command(body: bytes) -> ToChild:
    """The command in a frame's body."""
    return msgspec.msgpack.decode(body, type=ToChild)


def read_report(body: bytes) -> FromChild:
    """The report in a frame's body."""
    return msgspec.msgpack.decode(body, type=FromChild)
