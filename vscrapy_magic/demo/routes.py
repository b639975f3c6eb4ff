"""Owns the map of the demo site: which part of it answers which path.

Runs in the demo site's process, on its one thread. Answers depend on the request and the options
alone, but for `/flaky/` (its failures are counted) and the pages under `/_` (what tests ask
about).
"""

from dataclasses import dataclass, replace

from vscrapy_magic.demo.answers import Handler, NotFoundError, not_allowed, not_found
from vscrapy_magic.demo.catalogue import Catalogue
from vscrapy_magic.demo.connection import Reply, Request
from vscrapy_magic.demo.customers import Customers
from vscrapy_magic.demo.oddities import Oddities
from vscrapy_magic.demo.shop import Shop
from vscrapy_magic.demo.tally import Tally

PAGE_CACHE = 4096  # rendered pages kept
_READS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the site is like.

    Attributes:
        pages: how many book pages there are; one book in ten is in no listing.
        seed: another seed, other content.
        related: links to other books on a book's page.
        delay_ms: added to every answer but those under `/_`.
    """

    pages: int = 200
    seed: int = 1
    related: int = 6
    delay_ms: int = 0


DEFAULT_OPTIONS = Options()


class Routes:
    """The whole site; `answer` is called for each request and `done` when its answer has left."""

    def __init__(self, options: Options) -> None:
        catalogue = Catalogue(options.pages, seed=options.seed, related=options.related)
        self._tally = Tally()
        shop = Shop(catalogue)
        oddities = Oddities(self._tally)
        customers = Customers(catalogue, seed=options.seed)
        self._fixed: dict[str, Handler] = shop.fixed | oddities.fixed
        self._live: dict[str, Handler] = shop.live | oddities.live | customers.live
        self._delay_s = options.delay_ms / 1000
        self._rendered: dict[tuple[str, str], Reply] = {}

    def answer(self, request: Request) -> Reply:
        if request.target.startswith("/_"):
            return self._guarded(self._tally.told, request)
        self._tally.begin(request.target)
        reply = self._routed(request)
        if self._delay_s:
            return replace(reply, delay_s=reply.delay_s + self._delay_s)
        return reply

    def done(self, request: Request) -> None:
        if not request.target.startswith("/_"):
            self._tally.end()

    def _routed(self, request: Request) -> Reply:
        key = request.target, request.header("host")
        if request.method in _READS and (rendered := self._rendered.get(key)):
            return rendered
        segments = request.segments
        first = segments[0] if segments else ""
        if live := self._live.get(first):
            return self._guarded(live, request)
        fixed = self._fixed.get(first)
        if fixed is None:
            return not_found(request)
        if request.method not in _READS:
            return not_allowed(request, "GET, HEAD")
        reply = self._guarded(fixed, request)
        if len(self._rendered) >= PAGE_CACHE:
            self._rendered.clear()
        self._rendered[key] = reply
        return reply

    @staticmethod
    def _guarded(handler: Handler, request: Request) -> Reply:
        try:
            return handler(request)
        except NotFoundError:
            return not_found(request)
