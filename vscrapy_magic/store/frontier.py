"""Owns a crawl's frontier: queued, leased and seen requests, and the one call that changes them.

Used by children (step, wait, published, leave), supervisors (renew, reclaim) and senders (push).
Each change of state is one Lua script (`lua/step.lua` and its neighbours say what they read, write
and return).

What is promised, with `appendfsync always`: what a lease produced is kept exactly once, however
often its holder dies. The lease number is the fence: a commit by a holder that lost its lease
changes nothing. Deadlines are numbers judged with the server's clock, never expiring keys: after a
frozen server or a suspended machine all of those would go at one instant.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NoReturn

import msgspec

from vscrapy_magic.errors import (
    CrawlNotFoundError,
    LeaseLostError,
    MemberGoneError,
    StateError,
    StoreRolledBackError,
)
from vscrapy_magic.store.blobs import REQUESTS_PER_BLOB, pack_blob, unpack_blob
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import (
    CrawlId,
    MemberToken,
    SessionId,
    WorkerName,
    crawl_key,
    crawl_prefix,
)
from vscrapy_magic.store.messages import (
    CookieChange,
    CrawlState,
    Lease,
    LeaseKind,
    NewRequest,
    Share,
    Step,
    StepReply,
    Totals,
)
from vscrapy_magic.store.outputs import ORIGIN_NAMES
from vscrapy_magic.store.scripts import load_script

REQUESTS_PER_STEP: Final = 1000  # more in one script would hold up everybody else
BEAT_MS: Final = 1000  # how often supervisors renew their children
CLAIM_MAX_MS: Final = 10_000  # a child that was not up by then leaves its place to another
READY_PER_CHILD: Final = 4  # queued requests that make one more child worth its start
# Why a member is to leave, as `lua/control.lua` and `lua/code.lua` write it.
_TOO_MANY: Final = 1
_OLD_CODE: Final = 2
MEMBER_TTL_MS: Final = 4000  # not renewed for so long: the child's leases go to others
CLAIM_TTL_MS: Final = MEMBER_TTL_MS  # the same for the place of a child that is being started


class Renewal(msgspec.Struct, frozen=True):
    """What a supervisor learns when it renews its children of one crawl."""

    state: CrawlState
    close_reason: str
    control: int
    session: SessionId | None
    gone: tuple[MemberToken, ...]


class _Blob(msgspec.Struct):
    """Requests of one step that share slot, priority and lane, and their places in the step."""

    slot: str
    score: int
    start: bool
    places: list[int]


class Frontier:
    """One crawl's frontier; thread-safe, every call blocks for one round trip."""

    def __init__(self, store: Store, crawl_id: CrawlId) -> None:
        self.store = store
        self.crawl_id = crawl_id
        self._keys = (crawl_prefix(crawl_id),)

    def join(
        self,
        token: MemberToken,
        worker: WorkerName,
        *,
        ttl_ms: int = MEMBER_TTL_MS,
        code_version: int = 1,
    ) -> None:
        """Make a child a member of the crawl; it may step from now on.

        Raises:
            StateError: the crawl is over, has as many workers as it may have, or runs newer code.
        """
        reply = self._call("join", token, worker, ttl_ms, code_version)
        if reply[0] == b"old":
            raise StateError(f"crawl {self.crawl_id}: code version {code_version} is out of force")
        if reply[0] == b"full":
            raise StateError(f"crawl {self.crawl_id}: has as many workers as it may have")

    def reserve(
        self, token: MemberToken, worker: WorkerName, *, ttl_ms: int = CLAIM_TTL_MS
    ) -> bool:
        """Whether a supervisor should start one more child; a True is a claim for this token.

        One child at first; more, doubling, while there is more ready work than children can start.
        A worker that is told False is woken when the crawl has grown enough.
        """
        return bool(
            self.store.call(
                load_script("reserve"), self._keys, [token, ttl_ms, READY_PER_CHILD, worker]
            )
            == 1
        )

    def step(self, step: Step) -> StepReply:
        """Commit what is done and lease what is wanted, in one atomic call.

        Idempotent by `step.seq`: after `StoreUnreachableError` send the same step again.

        Raises:
            LeaseLostError: nothing was written; send it again without what those leases produced.
            MemberGoneError: this child was judged dead; all that it holds is void.
            StateError: the crawl is over.
            StoreRolledBackError: the server lost a step that it had acknowledged.
        """
        blobs = list(_group(step.requests))
        reply = self._call("step", *_step_args(step, blobs))
        return _read_reply(reply, blobs)

    def push(self, requests: Sequence[NewRequest]) -> int:
        """Add requests of a user to a crawl that is going on; children begin with them at once.

        Atomic for each 1,000. They are not filtered unless they have a fingerprint: only children
        know the spider's own fingerprinter. After `StoreUnreachableError` it is not known whether
        they are queued.

        Returns:
            How many were queued: all but those with a fingerprint that was seen before.

        Raises:
            StateError: the crawl is over, or about to end.
        """
        added = 0
        for at in range(0, len(requests), REQUESTS_PER_STEP):
            some = requests[at : at + REQUESTS_PER_STEP]
            args = [READY_PER_CHILD, *_blob_args(some, list(_group(some)))]
            reply = self.store.call(load_script("push"), self._keys, args)
            if reply[0] == b"over":
                raise StateError(
                    f"crawl {self.crawl_id} is {reply[1].decode()}; run it again with --keep-open "
                    "to add URLs"
                )
            if reply[0] != b"ok":
                self._refuse(reply)
            added += reply[1]
        return added

    def published(self, origin: str) -> bytes:
        """Content keys (8 bytes each, joined) that earlier runs of a lease have published."""
        key = crawl_key(self.crawl_id, f"p:{origin}")
        with self.store.errors_wrapped():
            return b"".join(self.store.client.lrange(key, 0, -1))

    def wait(self, token: MemberToken, timeout_s: float) -> bool:
        """Block until somebody wakes this child; False when `timeout_s` passed without."""
        key = crawl_key(self.crawl_id, f"wake:{token}")
        return self.store.pop_wake(key, timeout_s)

    def renew(
        self,
        tokens: Sequence[MemberToken] = (),
        *,
        claims: Sequence[MemberToken] = (),
        ttl_ms: int = MEMBER_TTL_MS,
        beat_ms: int = BEAT_MS,
    ) -> Renewal:
        """Keep children of one supervisor alive, and take the leases of dead ones back.

        Args:
            claims: children that are being started, whose places are kept for them.
        """
        tail = (*claims, *tokens)
        reply = self._call("renew", ttl_ms, beat_ms, len(claims), *tail)
        _, state, reason, control, session, gone = reply
        return Renewal(
            state=CrawlState(state.decode()),
            close_reason=reason.decode(),
            control=control,
            session=SessionId(session.decode()) if session else None,
            gone=tuple(MemberToken(token.decode()) for token in gone),
        )

    def members(self) -> list[MemberToken]:
        """The children that take part."""
        with self.store.errors_wrapped():
            found = self.store.client.zrange(crawl_key(self.crawl_id, "members"), 0, -1)
        return [MemberToken(raw.decode()) for raw in found]

    def leave(self, token: MemberToken) -> CrawlState:
        """End a membership after the spider is closed; the last one ends the crawl. Idempotent."""
        return CrawlState(self._call("leave", token, "left", b"")[1].decode())

    def held(self, token: MemberToken, lease_id: int) -> tuple[bytes, int]:
        """What a member works on: the packed request, and which run of it this is.

        Of `start()` and `spider_idle` a mapping with the name as `url`; empty when the lease is not
        held any more.
        """
        client = self.store.client
        with self.store.errors_wrapped():
            found: Any = client.hget(crawl_key(self.crawl_id, f"l:{token}"), str(lease_id))
            origin = found.decode().partition(":")[0] if found else ""
            runs: Any = client.hget(crawl_key(self.crawl_id, "a"), origin)
            blob_id, _, index = origin.partition(".")
            blob: Any = client.hget(crawl_key(self.crawl_id, "b"), blob_id)
        attempt = msgspec.msgpack.decode(runs)[0] if runs else 1
        if origin in ORIGIN_NAMES:
            return msgspec.msgpack.encode({"url": ORIGIN_NAMES[origin]}), attempt
        return (unpack_blob(blob)[int(index) - 1] if blob else b""), attempt

    def reclaim(
        self,
        token: MemberToken,
        *,
        suspects: Sequence[int] = (),
        clear: bool = True,
        failure: bytes = b"",
    ) -> list[str]:
        """Take back the leases of a child that is known to be dead.

        Args:
            suspects: leases that killed the child: a strike each.
            clear: False when it was one of the suspects, and nobody knows which: they run with
                nothing beside them next, and only one that was alone gets a strike.
            failure: packet with the failure that its death is; kept once.

        Returns:
            Origins that were buried: three strikes.
        """
        how = "dead" if clear else "unclear"
        reply = self._call("leave", token, how, failure, *suspects)
        return [origin.decode() for origin in reply[3]]

    def _call(self, script: str, *args: bytes | str | int) -> list[Any]:
        reply: list[Any] = self.store.call(load_script(script), self._keys, args)
        if reply[0] not in {b"ok", b"full", b"old"}:
            self._refuse(reply)
        return reply

    def _refuse(self, reply: list[Any]) -> NoReturn:
        word = reply[0].decode()
        crawl = f"crawl {self.crawl_id}"
        if word == "lost":
            lost = frozenset(int(lease) for lease in reply[1:])
            raise LeaseLostError(f"{crawl}: leases {sorted(lost)} went to another worker", lost)
        if word == "gone":
            raise MemberGoneError(
                f"{crawl}: this child was taken for dead and its leases given away"
            )
        if word == "over":
            reason = reply[2].decode()
            raise StateError(f"{crawl} is {reply[1].decode()}" + (f" ({reason})" if reason else ""))
        if word == "late":
            raise StateError(
                f"{crawl}: a step came after one that followed it; nothing was written"
            )
        if word == "rolled_back":
            raise StoreRolledBackError(
                f"{crawl}: the server came back without steps that it had acknowledged; "
                "run it again, on a server with appendfsync always"
            )
        raise CrawlNotFoundError(
            f"{crawl}: not on {self.store.address}; `vscrapy -l` lists those there"
        )


def _group(requests: Sequence[NewRequest]) -> Iterator[_Blob]:
    """Blobs of the requests, each kind in the order of the step."""
    kinds: dict[tuple[str, int, bool], list[int]] = {}
    for place, request in enumerate(requests):
        kinds.setdefault((request.slot, request.priority, request.start), []).append(place)
    for (slot, priority, start), places in kinds.items():
        for at in range(0, len(places), REQUESTS_PER_BLOB):
            # Lower scores go first; start requests after the others of their priority.
            yield _Blob(slot, -2 * priority + start, start, places[at : at + REQUESTS_PER_BLOB])


def _step_args(step: Step, blobs: Sequence[_Blob]) -> list[bytes | str | int]:
    """The flat ARGV of `lua/step.lua`."""
    args: list[bytes | str | int] = [
        step.token,
        step.seq,
        step.want,
        step.unstarted,
        step.last_lease,
        step.cookies_seen,
        "k" * step.keep_open + "s" * step.want_stats,
        step.close_reason,
        step.pages,
        step.errors,
        step.item_count,
        step.items,
        step.failure_count,
        step.failures,
        step.filtered_stat,
        step.code_version,
        READY_PER_CHILD,
        step.control,
        step.record_count,
        step.records,
        step.records_left,
    ]
    rule = step.default_limit
    args += ["", 0, ""] if rule is None else [rule.concurrency, int(rule.exclusive), rule.words]
    args += [len(step.ended), *step.ended]
    args.append(len(step.parts))
    for part in step.parts:
        args += [part.lease_id, part.keys]
    args += [len(step.released), *step.released]
    args.append(len(step.limits))
    for limit in step.limits:
        args += [limit.slot, limit.concurrency, int(limit.exclusive), limit.words]
    args += _blob_args(step.requests, blobs)
    args.append(len(step.stats))
    for stat in step.stats:
        args += [stat.kind, stat.key, stat.value]
    args.append(len(step.cookies))
    for cookie in step.cookies:
        args += [cookie.key, cookie.value]
    args.append(len(step.slots))
    for use in step.slots:
        args += [use.slot, use.in_force, use.room]
    return args


def _blob_args(requests: Sequence[NewRequest], blobs: Sequence[_Blob]) -> list[bytes | str | int]:
    """New requests as `lua/requests.lua` reads them."""
    args: list[bytes | str | int] = [len(blobs)]
    for blob in blobs:
        group = [requests[place] for place in blob.places]
        args += [blob.slot, blob.score, int(blob.start), len(group)]
        args += ["" if r.fingerprint is None else r.fingerprint for r in group]
        args.append(pack_blob([r.payload for r in group]))
    return args


def _read_reply(reply: list[Any], blobs: Sequence[_Blob]) -> StepReply:
    _, numbers, dropped, shares, leases, packed, cookies, stats = reply
    state, reason, commit_no, epoch, control, hungry = numbers[:6]
    items, pages, errors, failures, queued, leased, cookie_no, leave, full = numbers[6:]
    payloads = {blob.decode(): unpack_blob(data) for blob, data in _rows(packed, 2)}
    return StepReply(
        state=CrawlState(state.decode()),
        close_reason=reason.decode(),
        commit_no=commit_no,
        epoch=epoch,
        control=control,
        hungry=hungry,
        totals=Totals(items, pages, errors, failures, queued, leased),
        leases=tuple(_lease(row, payloads) for row in _rows(leases, 6)),
        dropped=tuple(sorted(blobs[blob].places[index] for blob, index in _rows(dropped, 2))),
        shares=tuple(Share(slot.decode(), share, idle) for slot, share, idle in _rows(shares, 3)),
        cookies=tuple(CookieChange(key.decode(), value) for key, value in _rows(cookies, 2)),
        cookie_no=cookie_no,
        stats={key.decode(): value for key, value in _rows(stats, 2)},
        leave=leave == _TOO_MANY,
        patched=leave == _OLD_CODE,
        records_full=bool(full),
    )


def _lease(row: Sequence[Any], payloads: dict[str, list[bytes]]) -> Lease:
    lease_id, kind, origin, slot, attempt, has_parts = row
    payload = b""
    if kind == b"request":
        blob, _, index = origin.decode().partition(".")
        payload = payloads[blob][int(index) - 1]
    return Lease(
        lease_id=lease_id,
        kind=LeaseKind(kind.decode()),
        origin=origin.decode(),
        slot=slot.decode(),
        payload=payload,
        attempt=attempt,
        has_parts=bool(has_parts),
    )


def _rows(flat: Sequence[Any], width: int) -> Iterator[tuple[Any, ...]]:
    """A flat reply as rows."""
    return zip(*(flat[column::width] for column in range(width)), strict=True)
