"""Owns how one page is fetched through a worker, for somebody who wants to look at it.

Runs in the sender's process. It is a crawl like others, of one request: so the spider's settings,
middlewares and the worker's network are those of a real one.
"""

import difflib
import hashlib
from typing import Any, Final

import msgspec

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.bundle import Shipped
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.order import Order
from vscrapy_magic.sender.session import Session
from vscrapy_magic.store.fetching import COOKIES_SETTING, FETCH_SETTING
from vscrapy_magic.store.messages import Bundle, encode
from vscrapy_magic.store.presence import Liveness, Presence

_SPIDER: Final = "fetch"
_SOURCE: Final = b"""import scrapy


class FetchSpider(scrapy.Spider):
    name = "fetch"
"""
# What a page that is only looked at is not to do.
_QUIET: Final[dict[str, Any]] = {
    "HTTPCACHE_ENABLED": False,
    "CLOSESPIDER_TIMEOUT": 0,
    "CLOSESPIDER_ITEMCOUNT": 0,
    "CLOSESPIDER_PAGECOUNT": 0,
}


def plain_order() -> Order:
    """An order for a spider of no settings."""
    bundle = Bundle(files={"fetch.py": _SOURCE}, entry="fetch.py")
    digest = hashlib.sha256(encode(bundle)).hexdigest()
    return Order(shipped=Shipped(bundle=bundle, digest=digest), spider=_SPIDER)


def fetch(
    session: Session, url: str, order: Order, *, worker: str = "", cookies_of: str = ""
) -> Crawl:
    """Place the crawl that fetches a page; its only item is the response.

    Args:
        order: of the spider whose settings and middlewares are used.
        worker: through which it is fetched; empty for any.
        cookies_of: a running crawl whose cookies are sent along.

    Raises:
        ConfigError: no such worker is there, or it is no address.
    """
    if "://" not in url and not url.startswith("data:"):
        raise ConfigError(f"{url!r} is no address: write it as https://example.com/page")
    if worker:
        _check_worker(session, worker)
    settings = order.settings | _QUIET | {FETCH_SETTING: url}
    if cookies_of:
        settings[COOKIES_SETTING] = cookies_of
    fetching = msgspec.structs.replace(
        order,
        settings=settings,
        in_force={},
        workers=1,
        feeds=None,
        only=worker,
        keep_open=False,
        record=False,
    )
    return session.place(fetching)


def _check_worker(session: Session, worker: str) -> None:
    views = Presence(session.store).workers()
    names = [view.record.name for view in views if view.liveness is not Liveness.GONE]
    if worker in names:
        return
    near = difflib.get_close_matches(worker, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names) or 'none'}"
    raise ConfigError(f"no worker {worker}; {hint}")
