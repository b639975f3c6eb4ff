"""Owns whether a sender collects its crawl, from where on, and what its user is told of that.

Runs in the sender's process: made by the session, then used by the thread that follows the crawl.
Two things are needed. The folder of the spool, which one process of a user writes at a time, and
the claim in the store, which one session of all has (`store/collectors.py`). Who lacks one of them
watches, and tries again: a collector may go at any moment.
"""

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from vscrapy_magic.errors import StoreError, StoreReadOnlyError
from vscrapy_magic.sender.spool import Spool
from vscrapy_magic.store.collectors import Collectors, Kept, Standing
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import SessionRecord
from vscrapy_magic.store.outputs import Claim, Output, Witness

TRY_S: Final = 1.0  # between two tries of one who watches
NOTES_MAX: Final = 5
TRY_SOON_S: Final = 0.1  # of one who waits for another process of the same user to let go


class Collecting:
    """Whether one crawl is collected here; used by one thread at a time.

    Attributes:
        claim: to acknowledge by; None: it is not collected here.
        holder: the other session that collects, as far as one is known.
        is_here: whether what that one collects is readable here: it is this user, on this machine.
        elsewhere: what other machines, or other users, have collected.
        notes: what the user was told of it, with levels; the newest.
        tell: gets each of them.
        began: called when collecting begins here after others.
        cut: called when the end of the spool was let go of, because it is another's.
    """

    def __init__(
        self, store: Store, spool: Spool, record: SessionRecord, *, wanted: bool = True
    ) -> None:
        """Prepare, without asking the server.

        Args:
            wanted: False: the outputs are left to others in any case.
        """
        self._collectors = Collectors(store, spool.crawl_id, record, spool.place)
        self._spool = spool
        self._wanted = wanted
        self._taken = False  # from a process that still holds the folder
        self._from: Witness | None = None
        self._is_asked = False  # to take
        self._is_new = False  # what another one kept has not been looked at
        self._stopped = False
        self._tried = 0.0
        self._no = 0
        self._told = ""
        self._told_elsewhere: tuple[Kept, ...] = ()
        self.notes: deque[tuple[int, str]] = deque(maxlen=NOTES_MAX)
        self.claim: Claim | None = None
        self.holder: SessionRecord | None = None
        self.is_here = False
        self.elsewhere: tuple[Kept, ...] = ()
        self.tell: Callable[[int, str], None] = lambda _level, _text: None
        self.began: Callable[[], None] = lambda: None
        self.cut: Callable[[], None] = lambda: None

    def own(self) -> None:
        """Collect a crawl that this session has just placed."""
        if self._wanted:
            self.claim = self._collectors.first()
            self._no = self.claim.no

    def begin(self, *, take: bool = False) -> None:
        """Collect if nobody else does, or with `take` whoever does; a round trip, or two.

        Where the server takes no writes, this is tried again later.

        Raises:
            CrawlNotFoundError: the server does not know the crawl any more.
        """
        with contextlib.suppress(StoreReadOnlyError):
            self._try(take=take)

    def ask_to_take(self) -> None:
        """Let the thread that follows the crawl take it over with its next try; from any thread."""
        self._is_asked = True

    def try_again(self, *, is_over: bool) -> bool:
        """Collect if that has become possible; asks the server once a second at most.

        Args:
            is_over: the crawl is, and its end is near: ask now.

        Returns:
            Whether this process begins to collect.

        Raises:
            StoreError: the server cannot be asked.
        """
        if self.claim is not None or not self._wanted:
            return False
        pause_s = TRY_SOON_S if self._taken or is_over else TRY_S
        if time.monotonic() - self._tried >= pause_s:
            self._try(take=self._is_asked)
        return self.claim is not None

    def refused(self) -> None:
        """An acknowledgement was refused: see who collects now; raises as `try_again`."""
        self._try()

    def _try(self, *, take: bool = False) -> None:
        self._tried = time.monotonic()
        had = self.claim
        if take:
            standing = self._collectors.take()
            self._taken, self._is_asked = True, False
            if self._spool.acquire():
                self._stand(standing)
        elif self._spool.acquire():
            self._stand(self._collectors.wish())
        else:
            standing = self._collectors.look()
            self.holder = standing.holder
            self.is_here = standing.is_here or standing.holder is None
            self._taken = self._taken and standing.holder is None
        self._say(had)

    def _stand(self, standing: Standing) -> None:
        """The folder is ours: see what of it counts, and from where on to collect."""
        went_back = standing.no < self._no  # the server has: what it says of the past is not true
        acked_no = standing.acked.commit_no if standing.acked else 0
        is_others = standing.claim is None or acked_no > standing.own_no
        is_cut = is_others and not went_back and self._spool.cut(standing.own_no)
        self._no, self._from, self.elsewhere = standing.no, standing.acked, standing.elsewhere
        self.claim, self.holder = standing.claim, standing.holder
        self.is_here = standing.claim is None and standing.is_here
        self._taken, self._is_new = False, True
        if is_cut:
            self.cut()
        if self.is_here:
            self._spool.release()  # that one waits for it

    @property
    def after(self) -> Witness | None:
        """The output after which this process collects."""
        last, start = self._spool.last, self._from
        if last is None or (start is not None and start.commit_no > last.commit_no):
            return start
        return last

    def take_unacked(self) -> Output | None:
        """What a process before this one kept and did not acknowledge, up to this output; once."""
        last, done = self._spool.last, self._from
        is_new, self._is_new = self._is_new, False
        if not is_new or self.claim is None or last is None:
            return None
        if done is not None and done.commit_no >= last.commit_no:
            return None
        return self._spool.output(len(self._spool) - 1)

    def leave(self) -> None:
        """All is collected: others need not wait for this session to end."""
        claim, self.claim, self._wanted = self.claim, None, False
        if claim is not None:
            with contextlib.suppress(StoreError):
                self._collectors.leave(claim)

    def stop(self) -> None:
        """Collect no more: what the server gives out is of another history."""
        self.claim, self._wanted, self._stopped = None, False, True

    @property
    def is_last(self) -> bool:
        """Whether the crawl ends here: nobody collects after this process."""
        return self.claim is not None or self._stopped

    # What the user is told.

    def _say(self, had: Claim | None) -> None:
        crawl = f"crawl {self._spool.crawl_id}"
        if self.claim is not None:
            if self._told:
                self._note(logging.INFO, f"{crawl} is collected here now: {self._told} is gone")
                self._told = ""
            if self.elsewhere != self._told_elsewhere:
                self._told_elsewhere = self.elsewhere
                self._note(logging.INFO, f"{kept_words(self.elsewhere)} before")
            if had is None:
                self.began()
            return
        who = described(self.holder) if self.holder else "another process of this user"
        if not self._wanted or who == self._told:
            return
        self._told = who
        if self._taken:
            self._note(logging.INFO, f"{crawl} is taken over as soon as {who} lets go of it")
        elif had is not None:
            self._note(
                logging.WARNING,
                f"{crawl} was taken over by {who}: what came here until now is kept, and no more "
                f"comes; {self._how_to_take()} takes it back",
            )
        elif self.is_here:
            self._note(
                logging.INFO,
                f"{crawl} is being collected by {who}, for this user on this machine: what it "
                "brings is here too",
            )
        else:
            self._note(
                logging.WARNING,
                f"{crawl} is being collected by {who}; here it is watched, and collected when that "
                f"one ends. {self._how_to_take()} collects what is still to come here",
            )

    def _note(self, level: int, text: str) -> None:
        self.notes.append((level, text))
        self.tell(level, text)

    def _how_to_take(self) -> str:
        crawl_id = self._spool.crawl_id
        return f"`vscrapy attach {crawl_id} --take` or vs.attach({crawl_id!r}, take=True)"


def described(record: SessionRecord) -> str:
    """A session as users know it: `host1 (terminal, pid 77)`."""
    return f"{record.host} ({record.kind}, pid {record.pid})"


def kept_words(kept: Sequence[Kept]) -> str:
    """Who has collected what: `1,234 items were collected by host1 and 20 by host2`."""
    first, *more = kept
    noun = "item was" if first.items == 1 else "items were"
    parts = [f"{first.items:,} {noun} collected by {first.host}"]
    return " and ".join([*parts, *(f"{each.items:,} by {each.host}" for each in more)])


def kept_hint(kept: Sequence[Kept]) -> str:
    """The end of a line that says where items are: ` (host1)`; empty when it is not known."""
    hosts = ", ".join(dict.fromkeys(each.host for each in kept))
    return f" ({hosts})" if hosts else ""
