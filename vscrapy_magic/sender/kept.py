"""Owns how a crawl is opened that was followed to its end on this machine: without any server.

Runs in the sender's process; any thread.
"""

import msgspec

from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.feeds import Feeds
from vscrapy_magic.sender.spool import Spool
from vscrapy_magic.sender.spools import spool_root
from vscrapy_magic.store.keys import CrawlId
from vscrapy_magic.store.views import CrawlView


def open_complete(crawl_id: str) -> Crawl | None:
    """As `open_kept`, with its feeds completed, which blocks."""
    kept = open_kept(crawl_id)
    if kept is not None:
        kept.complete_feeds()
    return kept


def open_kept(crawl_id: str) -> Crawl | None:
    """A crawl that was followed to its end on this machine; needs no server. None: not here."""
    try:
        spool = Spool(spool_root(), CrawlId(crawl_id))
    except FileNotFoundError:
        return None
    end = spool.end
    if end is None:
        spool.close()
        return None
    view = msgspec.msgpack.decode(end.view, type=CrawlView)
    feeds = Feeds.find(spool.folder) if spool.collects else None  # its sender may be at them
    spool.release()
    return Crawl(None, spool, view, feeds=feeds)
