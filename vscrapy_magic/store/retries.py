"""Owns how failed requests are put back into their crawl, each once; one that is over goes on.

Used by senders. What a failed run had delivered before it failed is known by content keys, which go
with the request: its next run drops outputs that are among them, as the next run of a lost lease
does. URLs that were seen, and cookies, are kept for crawls with failures (`lua/sweep.lua`), so that
what a retried page leads to is not visited twice. Of more than about 900,000 URLs they are not.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from vscrapy_magic.errors import CrawlNotFoundError, StateError
from vscrapy_magic.store.blobs import pack_blob
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.frontier import READY_PER_CHILD
from vscrapy_magic.store.keys import CrawlId, SessionId, crawl_prefix, global_key
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.pushed import slot_of
from vscrapy_magic.store.scripts import load_script
from vscrapy_magic.store.values import PlainCodec
from vscrapy_magic.store.views import FINAL_STATES

AT_ONCE: Final = 500  # requests in one call
_MASK: Final = "***"
_MASKED_USER: Final = f"{_MASK}@"
_SHIFT: Final = 4096  # more than there are failures in one commit
_SECRETS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})


class FailedRequest(msgspec.Struct, frozen=True):
    """One request to be put back.

    Attributes:
        number: names the failure: `failure_number`.
        payload: as it was queued.
        delivered: content keys of what its failed run had brought.
    """

    number: int
    payload: bytes
    delivered: bytes = b""


class PutBack(msgspec.Struct, frozen=True):
    """What came of it.

    Attributes:
        before: state of the crawl before; when that was a final one, the crawl is open again.
        numbers: of those that are put back; the others were before.
        seen_known: whether URLs that the crawl has seen before are known.
    """

    before: CrawlState
    numbers: frozenset[int]
    seen_known: bool

    @property
    def reopened(self) -> bool:
        return self.before in FINAL_STATES and bool(self.numbers)


def failure_number(commit_no: int, place: int) -> int:
    """What names one failure of a crawl, by its commit and its place in it."""
    return commit_no * _SHIFT + place


def unmasked(payload: bytes) -> tuple[bytes, tuple[str, ...]]:
    """A request as it can be sent again: without what was masked when it failed.

    Returns:
        The payload, and names of headers and cookies that are left out.
    """
    fields = msgspec.msgpack.decode(payload)
    lost: list[str] = []
    headers = fields.get("headers")
    if isinstance(headers, dict):
        for name in list(headers):
            text = name.decode("latin-1") if isinstance(name, bytes) else str(name)
            values = headers[name] if isinstance(headers[name], list) else [headers[name]]
            if text.lower() in _SECRETS and any(v in {_MASK, _MASK.encode()} for v in values):
                del headers[name]
                lost.append(text)
    cookies = fields.get("cookies")
    each = cookies.values() if isinstance(cookies, dict) else cookies or ()
    if any(map(_is_masked, each)):
        del fields["cookies"]
        lost.append("cookies")
    url = fields.get("url")
    if isinstance(url, str) and _MASKED_USER in url:
        fields["url"] = url.replace(_MASKED_USER, "")
        lost.append("user and password")
    return (msgspec.msgpack.encode(fields), tuple(lost)) if lost else (payload, ())


def _is_masked(cookie: Any) -> bool:
    return cookie == _MASK or (isinstance(cookie, dict) and cookie.get("value") == _MASK)


class Retries:
    """Puts failed requests back; thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._codec = PlainCodec()

    def put_back(
        self, crawl_id: CrawlId, requests: Sequence[FailedRequest], owner: SessionId | None
    ) -> PutBack:
        """Queue them again, unfiltered; those that were put back before are left out.

        Atomic for each 500. A crawl that is over goes on with them.

        Args:
            owner: of a crawl that goes on so; None makes it a detached one.

        Raises:
            StateError: the crawl is about to end, or has ended in a way that it cannot go on from.
            CrawlNotFoundError: nobody knows it.
        """
        before: CrawlState | None = None
        numbers: set[int] = set()
        seen_known = True
        for at in range(0, len(requests), AT_ONCE):
            args: list[bytes | str | int] = [crawl_id, owner or "", READY_PER_CHILD]
            some = requests[at : at + AT_ONCE]
            args.append(len(some))
            for request in some:
                args += self._args(request)
            was, known, put = self._call(crawl_id, args)
            before = before or CrawlState(was.decode())
            seen_known = seen_known and bool(known)
            numbers |= set(put)
        if before is None:
            before = Crawls(self._store).view(crawl_id).state
        return PutBack(before, frozenset(numbers), seen_known)

    def _args(self, request: FailedRequest) -> list[bytes | str | int]:
        fields = self._codec.decode(request.payload)
        slot = slot_of(str(fields.get("url", "")), fields.get("meta") or {})
        score = -2 * int(fields.get("priority", 0))
        blob = pack_blob([request.payload])
        return [request.number, slot, score, request.delivered, blob]

    def _call(self, crawl_id: CrawlId, args: list[bytes | str | int]) -> list[Any]:
        keys = (crawl_prefix(crawl_id), global_key("crawls:live"), global_key("crawls:due"))
        while True:
            reply = self._store.call(load_script("retry"), keys, args)
            if reply[0] == b"ok":
                found: list[Any] = reply[1:]
                return found
            if reply[0] == b"over":
                state = reply[1].decode()
                hint = "; wait until it is over" if state in {"stopping", "closing"} else ""
                raise StateError(f"crawl {crawl_id} is {state}: nothing can be put back{hint}")
            if reply[0] != b"unswept":
                raise CrawlNotFoundError(
                    f"crawl {crawl_id}: not on {self._store.address}; `vscrapy -l` lists those "
                    "there"
                )
            Crawls(self._store).sweep(crawl_id)
