"""Owns the pipe protocol between a worker's processes: supervisor, zygote and children.

Frames are a 4-byte big-endian length and a msgpack struct. A child's plain stdout and stderr go
through pipes of their own, unframed, so that nothing that user code prints can break this one.
Which lease runs user code is a number in memory that child and supervisor share: a child that
crashed cannot say it any more.
"""

import enum
import mmap
import os
import struct
import tempfile
from typing import Final

import msgspec

from vscrapy_magic.store.messages import ChildOrder

_HEAD: Final = struct.Struct(">I")
MAX_FRAME_BYTES: Final = 16 * 1024 * 1024  # a longer frame means a broken pipe protocol


class Command(enum.StrEnum):
    """What a supervisor says to a child."""

    PING = "ping"  # answered by PONG from the child's event loop
    STOP = "stop"  # send no further request, finish leases, close the spider, exit
    SETTINGS = "settings"  # the crawl's settings changed: ask the store
    STACK = "stack"  # say where the main thread is; answered by STACK from another thread


class ToChild(msgspec.Struct, frozen=True):
    """One frame on the control pipe."""

    command: Command
    number: int = 0


class Report(enum.StrEnum):
    """What a child says to its supervisor."""

    READY = "ready"  # of a spare: it has imported what it needs, and waits for its order
    PONG = "pong"
    LOG = "log"
    PHASE = "phase"  # text: a word of `Phase`; number: the process id
    FATAL = "fatal"  # text: why the crawl cannot run here at all; the child exits
    LIMITS = "limits"  # the spider's settings are known: level, hang_s, close_s
    MASK = "mask"  # text: a value that no line may show; one frame each
    STACK = "stack"  # text: where the main thread is, innermost call last


class Phase(enum.StrEnum):
    """What a child does; in this order, but for DEBUGGING."""

    STARTING = "starting"  # nothing was heard of it
    LOADING = "loading"
    TRYING = "trying"  # new code is loaded, and waits until all workers have it
    RUNNING = "running"
    DEBUGGING = "debugging"  # somebody looks at it: its silence means nothing
    CLOSING = "closing"
    CLOSED = "closed"  # what is left is to exit


class ExitCode(enum.IntEnum):
    """How a child ended; other codes are the child's own doing, negative ones a signal."""

    DONE = 0
    FATAL = 64  # the spider cannot be loaded; told by `Report.FATAL`
    MEMBER_GONE = 65  # its leases went to others; may be started again
    STORE_LOST = 66  # Redis unreachable for too long; may be started again
    PARENT_GONE = 67
    EXITED = 68  # spider code raised SystemExit
    UNFIT = (
        69  # this worker lacks what the spider needs, others may have it; `Report.FATAL` says it
    )
    NOT_TAKEN = 70  # of a child that tried code which was refused, here or elsewhere


class FromChild(msgspec.Struct, frozen=True, omit_defaults=True):
    """One frame on the report pipe.

    Attributes:
        level: logging level of a LOG frame, or the lowest that the spider wants to see.
        time_ms: milliseconds since the epoch.
        hang_s: a loop that is silent for so long is killed; 0 for never.
        close_s: what a child that answers gets to finish, and again to close its spider.
    """

    report: Report
    text: str = ""
    number: int = 0
    level: int = 0
    logger: str = ""
    time_ms: int = 0
    hang_s: float = 0.0
    close_s: float = 0.0


class Ask(enum.StrEnum):
    """What a supervisor says to its zygote."""

    FORK = "fork"  # with the order and, as ancillary data, the descriptors of `FORK_FDS`
    REAP = "reap"  # number: a process that has exited; its id is free from then on


class Answer(enum.StrEnum):
    """What a zygote says to its supervisor."""

    READY = "ready"  # everything is imported: a fork takes milliseconds from now on
    FAILED = "failed"  # text: the traceback of what could not be imported; it ends
    FORKED = "forked"  # number: of the request; pid
    REFUSED = "refused"  # number: of the request, 0 at the start; text: why forking is not safe
    EXITED = "exited"  # pid, and its exit code or minus the signal


FORK_FDS: Final = ("control", "report", "stdout", "stderr", "mark")
ZYGOTE_BYTES: Final = 65536  # of one message; both sides keep the boundaries (SOCK_SEQPACKET)


class ToZygote(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message to the zygote."""

    ask: Ask
    number: int = 0
    order: ChildOrder | None = None


class FromZygote(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of the zygote."""

    answer: Answer
    number: int = 0
    pid: int = 0
    code: int = 0
    text: str = ""


class Mark:
    """The lease for which a child runs user code, 0 for none; then those that it has begun.

    One side writes and the other reads, each through a mapping of its own.
    """

    IN_FLIGHT_MAX: Final = 511  # what is begun beyond that is nobody's suspect
    BYTES: Final = 8 * (1 + IN_FLIGHT_MAX)

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, self.BYTES)
        self.cells: Final = memoryview(self._map).cast("q")

    @classmethod
    def create(cls) -> int:
        """A descriptor of new shared memory, to be handed to the child."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("vscrapy-mark")
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, cls.BYTES)
        return fd

    def read(self) -> int:
        """The lease marked last."""
        return int(self.cells[0])

    def in_flight(self) -> tuple[int, ...]:
        """The leases that were begun and have not ended."""
        return tuple(lease for lease in self.cells[1:] if lease)

    def close(self) -> None:
        self.cells.release()
        self._map.close()


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
