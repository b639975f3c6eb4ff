"""Owns which code a crawl runs, and how newer code comes into force while it runs.

Used by senders (offer), children (answer, get) and supervisors (answer for one that cannot). The
spec of a crawl never changes; the code in force is a number and what that stands for. What was
ordered is number 1; each offer has a number of its own, also one that is refused.

New code takes two phases, because a worker that cannot load it must not be found out after the old
code is gone (`lua/code.lua`). Every worker that takes part loads what is offered in a child beside
the old one. When all of them can, one call puts it into force, and from then on no lease goes to
the old code; when one cannot, or does not say so in time, nothing has changed.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from vscrapy_magic.errors import CrawlNotFoundError, StateError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import CrawlId, MemberToken, WorkerName, crawl_key, crawl_prefix
from vscrapy_magic.store.messages import Bundle, Code, CrawlSpec, decode, encode
from vscrapy_magic.store.placement import BUNDLE_TTL_MS, bundle_key
from vscrapy_magic.store.scripts import load_script

FIRST_CODE: Final = 1  # what was ordered
DECIDE_WITHIN_MS: Final = 10_000  # workers that take longer to load the code do not get it
ACCEPTED: Final = "accepted"
REFUSED: Final = "refused"
TEXT_CHARS: Final = 20_000  # of why not, from the end


class Offer(msgspec.Struct, frozen=True):
    """What came of offering code.

    Attributes:
        version: its number; 0 when it has to be offered again later.
        accepted: it is in force already, because nobody takes part who could try it.
    """

    version: int
    accepted: bool = False


class Standing(msgspec.Struct, frozen=True):
    """How the newest offer of a crawl stands.

    Attributes:
        in_force: number of the code that new leases are for.
        offered: number that is undecided; 0 for none.
        said: `ACCEPTED` or `REFUSED`; empty while it is undecided.
        by: the worker that refused it; empty when none did.
        text: why it was refused.
    """

    in_force: int
    offered: int
    said: str = ""
    by: str = ""
    text: str = ""


class Codes:
    """Code of crawls of one Redis; thread-safe, every call is one round trip or two."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def offer(self, crawl_id: CrawlId, code: Code, bundle: Bundle) -> Offer:
        """Let all workers that take part try this code; ask `look` what came of it.

        Args:
            bundle: the source that `code` names; it is sent first.

        Raises:
            StateError: the crawl is over, or about to end.
            CrawlNotFoundError: nobody knows it.
        """
        with self._store.errors_wrapped():
            self._store.client.set(bundle_key(code.bundle), encode(bundle), px=BUNDLE_TTL_MS)
        limits = code.limits
        reply = self._call(
            "offer",
            crawl_id,
            encode(code),
            DECIDE_WITHIN_MS,
            *("limit_items", limits.items, "limit_pages", limits.pages),
            *("limit_errors", limits.errors, "limit_timeout_ms", limits.timeout_ms),
        )
        if reply[0] == b"busy":
            return Offer(0)
        return Offer(reply[1], accepted=reply[0] == b"accepted")

    def look(self, crawl_id: CrawlId, version: int) -> Standing:
        """How an offer stands; decides it when it is time. Raises as `offer`."""
        return self._answer(crawl_id, version, "", WorkerName(""), MemberToken(""), "")

    def can(
        self, crawl_id: CrawlId, version: int, worker: WorkerName, token: MemberToken
    ) -> Standing:
        """A child of this worker has loaded the code and waits. Idempotent; raises as `offer`."""
        return self._answer(crawl_id, version, "ok", worker, token, "")

    def cannot(self, crawl_id: CrawlId, version: int, worker: WorkerName, text: str) -> Standing:
        """The code cannot be loaded on this worker. Idempotent; raises as `offer`."""
        token = MemberToken("")
        return self._answer(crawl_id, version, "no", worker, token, text[-TEXT_CHARS:])

    def get(self, spec: CrawlSpec, version: int) -> Code:
        """What a number stands for.

        Raises:
            CrawlNotFoundError: it is not kept any more.
        """
        if version <= FIRST_CODE:
            return Code(bundle=spec.bundle, spider=spec.spider, limits=spec.limits)
        with self._store.errors_wrapped():
            data = self._store.client.hget(crawl_key(spec.crawl_id, "codes"), str(version))
        if data is None:
            raise CrawlNotFoundError(
                f"crawl {spec.crawl_id}: code version {version} is not on {self._store.address}"
            )
        return decode(data, Code)

    def keep_sources(self, specs: Iterable[CrawlSpec]) -> None:
        """Keep all source of these crawls for longer: a worker may join after days. Idempotent."""
        specs = list(specs)
        with self._store.errors_wrapped():
            pipe = self._store.client.pipeline(transaction=False)
            for spec in specs:
                pipe.hvals(crawl_key(spec.crawl_id, "codes"))
            found = pipe.execute()
            digests = {spec.bundle for spec in specs}
            digests |= {decode(data, Code).bundle for codes in found for data in codes}
            pipe = self._store.client.pipeline(transaction=False)
            for digest in digests:
                pipe.pexpire(bundle_key(digest), BUNDLE_TTL_MS)
            pipe.execute()

    def _answer(
        self,
        crawl_id: CrawlId,
        version: int,
        word: str,
        worker: WorkerName,
        token: MemberToken,
        text: str,
    ) -> Standing:
        reply = self._call("answer", crawl_id, version, word, worker, token, text)
        _, in_force, offered, *words = reply
        return Standing(in_force, offered, *(word.decode(errors="replace") for word in words))

    def _call(self, script: str, crawl_id: CrawlId, *args: bytes | str | int) -> list[Any]:
        keys = (crawl_prefix(crawl_id),)
        reply: list[Any] = self._store.call(load_script(script), keys, list(args))
        if reply[0] == b"over":
            raise StateError(f"crawl {crawl_id} is {reply[1].decode()}: its code stays as it is")
        if reply[0] == b"unknown":
            raise CrawlNotFoundError(
                f"crawl {crawl_id}: not on {self._store.address}; `vscrapy -l` lists those there"
            )
        return reply
