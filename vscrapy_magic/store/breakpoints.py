"""Owns what a child in the debugger and its user say to each other.

A child that stands in the debugger (a *halt*) is listed in its crawl's keys as long as it is a
member. What its debugger shows is a stream, what its user types a list; both are bounded, and gone
soon after the halt. Text only: nothing that comes from a worker is ever evaluated at the sender.
Used by children (`begin` to `end`) and senders (`standing` to `type`).
"""

import enum
from collections.abc import Sequence
from typing import Any, Final, Self

import msgspec
import redis

from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.frontier import READY_PER_CHILD
from vscrapy_magic.store.keys import CrawlId, MemberToken, WorkerName, crawl_key, crawl_prefix
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.scripts import load_script
from vscrapy_magic.store.views import FINAL_STATES

TEXT_CHARS_MAX: Final = 1_000_000  # shown at once; of more the end is kept
ENTRY_CHARS: Final = 16_000  # of one entry; 64 of them are about 1 MB
ENTRIES_KEPT: Final = 64  # shown and not read by anybody; older ones are cut
TYPED_KEPT: Final = 100  # lines that the debugger has not read yet
LINE_CHARS_MAX: Final = 100_000  # of one typed line
KEPT_MS: Final = 60_000  # what was shown last, for a sender that reads late
_ENDING: Final = frozenset({CrawlState.STOPPING, CrawlState.CLOSING}) | FINAL_STATES
_LINE: Final = b"l"
_END_OF_FILE: Final = b"e"
_GO_ON: Final = b"x"  # of `lua/halt_end.lua`


class HaltKind(enum.StrEnum):
    """Why a child stands in the debugger."""

    BREAKPOINT = "breakpoint"
    FAILURE = "failure"


class Halt(msgspec.Struct, frozen=True):
    """One child that stands in the debugger.

    Attributes:
        number: higher than those of earlier ones of its crawl.
        url: of the request that it works on, or words for what is none; may be empty.
        place: in the user's code: `Cell In[3], line 12, in Quotes.parse`.
    """

    worker: WorkerName
    url: str
    place: str
    kind: HaltKind = HaltKind.BREAKPOINT
    number: int = 0

    @property
    def words(self) -> str:
        """Where it stands, for users: `breakpoint on w-2: Cell In[3], line 12, in Quotes.parse`."""
        return f"{self.kind} on {self.worker}: {self.place}"


class Refusal(enum.StrEnum):
    """Why a child is not to stop."""

    UNKNOWN = "unknown"
    OVER = "over"  # the crawl is over, or about to end
    GONE = "gone"  # this child is no member (yet)
    OFF = "off"  # the user has left the debugger for good
    LATE = "late"  # it was not the first failure of the crawl


class SaidKind(enum.StrEnum):
    """What an entry of a debugger is."""

    TEXT = "text"
    PROMPT = "prompt"  # the debugger waits for a line
    END = "end"  # the child goes on


class Said(msgspec.Struct, frozen=True):
    """One thing that a debugger shows; numbers without a gap, from 1."""

    number: int
    kind: SaidKind
    text: str


class Heard(msgspec.Struct, frozen=True):
    """What a child in the debugger hears.

    Attributes:
        line: with its line break; empty for the end of input; None: nothing was typed.
        goes_on: whether it is to leave the debugger.
        typed: moves whenever somebody types at any halt of the crawl.
    """

    line: str | None
    goes_on: bool
    typed: int


class Halts:
    """The halts of one crawl; thread-safe, each call blocks for one round trip."""

    def __init__(self, store: Store, crawl_id: CrawlId) -> None:
        self._store = store
        self._crawl_id = crawl_id
        self._keys = (crawl_prefix(crawl_id),)

    # The child's side.

    def begin(self, token: MemberToken, halt: Halt, *, once: bool = False) -> int | Refusal:
        """Let users know that this child stands in the debugger from now on.

        Args:
            once: only as the first of its crawl that asks so.

        Returns:
            The number of the halt, or why there is none.
        """
        record = msgspec.json.encode(halt)
        args: list[bytes | str | int] = [token, int(once), halt.words, record, READY_PER_CHILD]
        reply = self._store.call(load_script("halt"), self._keys, args)
        return int(reply[1]) if reply[0] == b"ok" else Refusal(reply[0].decode())

    def say(self, number: int, entries: Sequence[Said]) -> bool:
        """Show something; False when this child does not count as standing there any more."""
        args: list[bytes | str | int] = [number, ENTRIES_KEPT, "out"]
        for entry in entries:
            args += [entry.number, entry.kind, entry.text]
        return bool(self._store.call(load_script("halt_say"), self._keys, args))

    def end(self, number: int, last: Said, *, off: bool = False) -> None:
        """Let users know that it goes on. Idempotent.

        Args:
            last: why, for the user.
            off: no breakpoint of this crawl is to stop anybody again.
        """
        args: list[bytes | str | int] = [number, last.number, last.text, int(off), KEPT_MS]
        self._store.call(load_script("halt_end"), self._keys, args)

    def hear(self, client: redis.Redis, number: int, timeout_s: float) -> Heard:
        """Wait for a typed line, and see how the crawl stands.

        Args:
            client: of `Store.blocking_client`.
        """
        with self._store.errors_wrapped():
            pipe = client.pipeline(transaction=False)
            pipe.blpop([self._key(f"halt-in:{number}")], timeout=timeout_s)
            pipe.hmget(self._key("meta"), "state", "typed")
            popped, (state, typed) = pipe.execute()
        entry = popped[1] if popped else b""
        is_over = state is None or CrawlState(state.decode()) in _ENDING
        line = None
        if entry[:1] in {_LINE, _END_OF_FILE}:
            line = entry[1:].decode(errors="replace")
        return Heard(line, is_over or entry[:1] == _GO_ON, int(typed or 0))

    # The sender's side.

    def standing(self) -> list[Halt]:
        """Children that stand in the debugger, in the order in which they came to it."""
        with self._store.errors_wrapped():
            raw: dict[bytes, bytes] = self._store.client.hgetall(self._key("halts"))
        halts = []
        for number, data in raw.items():
            _, _, record = msgspec.msgpack.decode(data, type=tuple[str, str, str])
            halt = msgspec.json.decode(record, type=Halt)
            halts.append(msgspec.structs.replace(halt, number=int(number)))
        return sorted(halts, key=lambda halt: halt.number)

    def type(self, number: int, line: str | None) -> bool:
        """Type a line, or (None) the end of input; False when nobody stands there any more."""
        entry = _END_OF_FILE if line is None else _LINE + f"{line[:LINE_CHARS_MAX]}\n".encode()
        args: list[bytes | str | int] = [number, TYPED_KEPT, "in", entry]
        return bool(self._store.call(load_script("halt_say"), self._keys, args))

    def _key(self, name: str) -> str:
        return crawl_key(self._crawl_id, name)


class Screen:
    """What one halt shows, read entry by entry; for one thread at a time."""

    def __init__(self, store: Store, crawl_id: CrawlId, number: int) -> None:
        self._store = store
        self._key = crawl_key(crawl_id, f"halt:{number}")
        self._halts = crawl_key(crawl_id, "halts")
        self._number = number
        self._after = 0
        self._opened = store.blocking_client()

    def __enter__(self) -> Self:
        self._client = self._opened.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._opened.__exit__(*exc)

    def read(self, timeout_s: float) -> list[Said] | None:
        """What was shown since, once there is something; empty when there is nothing yet.

        Where entries were cut because nobody read them in time, a line says so.

        Returns:
            None when its child is gone, without an entry for the end.
        """
        if not self.waits_for_more(timeout_s) and self.is_there():
            return []
        with self._store.errors_wrapped():
            entries: Any = self._client.xrange(self._key, min=f"{self._after + 1}-0")
        if not entries:
            return None
        found: list[Said] = []
        for entry_id, fields in entries:
            number = int(entry_id.partition(b"-")[0])
            if number > self._after + 1:
                found.append(Said(number, SaidKind.TEXT, "... what was shown before is cut ...\n"))
            text = fields[b"text"].decode(errors="replace")
            found.append(Said(number, SaidKind(fields[b"kind"].decode()), text))
            self._after = number
        return found

    def is_there(self) -> bool:
        """Whether its child still stands in the debugger."""
        with self._store.errors_wrapped():
            return bool(self._client.hexists(self._halts, str(self._number)))

    def waits_for_more(self, timeout_s: float) -> bool:
        """Whether there is something to read, once there is; False when the time has passed."""
        with self._store.errors_wrapped():
            streams: dict[Any, Any] = {self._key: f"{self._after}-0"}
            block_ms = max(1, int(1000 * timeout_s))
            return bool(self._client.xread(streams, count=1, block=block_ms))


def entries_of(text: str, kind: SaidKind, after: int) -> list[Said]:
    """A text as entries with the numbers after `after`; of a very long one the end."""
    text = text.encode(errors="backslashreplace").decode()  # halves of characters, from a repr
    if len(text) > TEXT_CHARS_MAX:
        cut = len(text) - TEXT_CHARS_MAX
        text = f"... {cut:,} characters before this are cut ...\n{text[cut:]}"
    pieces = [text[at : at + ENTRY_CHARS] for at in range(0, len(text), ENTRY_CHARS)] or [""]
    kinds = [SaidKind.TEXT] * (len(pieces) - 1) + [kind]
    return [
        Said(number, each, piece)
        for number, (each, piece) in enumerate(zip(kinds, pieces, strict=True), after + 1)
    ]
