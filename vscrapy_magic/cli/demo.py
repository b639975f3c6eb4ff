"""Owns `vscrapy demo`: one crawl of the bundled shop on two local workers, and what happened."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Final

from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.demo.spiders import BOOKS, BOOKS_NAME
from vscrapy_magic.sender.bundle import Shipped
from vscrapy_magic.sender.cluster import LocalCluster
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.options import OptionParser
from vscrapy_magic.sender.order import Order, digest_of
from vscrapy_magic.sender.session import Session
from vscrapy_magic.store.messages import Bundle, CrawlState

WORKERS: Final = 2
DELAY_MS: Final = 50  # of each page, so that there is work for more than one worker
ITEMS_SHOWN: Final = 3
EXIT_FAILED: Final = 1
_FILE: Final = "demo_books.py"
_FETCHED: Final = "Crawled ("  # begins the line that Scrapy writes for each page
_NEXT: Final = (
    ("vscrapy -l", "all crawls and workers"),
    ("vscrapy items {id} -n 3", "its last items, as JSON lines"),
    ("vscrapy logs {id} -w {worker}", "what one worker wrote"),
    ("vscrapy crawl NAME", "in any Scrapy project, as `scrapy crawl NAME`"),
    ("vscrapy runspider FILE", "one spider file; --workers 4 for four workers"),
    ("%load_ext vscrapy_magic", "in a notebook; then begin a cell with %%vcrawl NAME"),
)


def demo(words: Sequence[str]) -> int:
    """Crawl the demo shop and tell what happened."""
    OptionParser(
        "vscrapy demo",
        description="Crawl a small shop on this machine with two workers. Needs no network.",
        epilog="example: vscrapy demo",
    ).parse_all(words)
    _tell("starting a shop and a local cluster on this machine ...")
    url = LocalCluster.ensure(WORKERS)
    with DemoSite(delay_ms=DELAY_MS) as site, Session.connect(url, kind="terminal") as session:
        _tell(f"the shop is {site.url}; crawling it with one spider on {WORKERS} workers ...")
        crawl = session.place(_order(site.url))
        view = crawl.wait()
        if view.state is not CrawlState.FINISHED:
            _tell(f"the crawl {view.state}: {view.why or view.close_reason}")
            return EXIT_FAILED
        sys.stdout.write(_summary(crawl))
    return 0


def _order(site: str) -> Order:
    bundle = Bundle(files={_FILE: BOOKS.encode()}, entry=_FILE)
    return Order(
        shipped=Shipped(bundle, digest_of(bundle)),
        spider=BOOKS_NAME,
        args={"site": site},
        workers=WORKERS,
    )


def _tell(text: str) -> None:
    sys.stdout.write(f"vscrapy demo: {text}\n")
    sys.stdout.flush()


def _summary(crawl: Crawl) -> str:
    view = crawl.view
    pages = Counter(line.worker for line in crawl.logs() if line.text.startswith(_FETCHED))
    seconds = (view.ended_ms - view.started_ms) / 1000
    shares = [f"{worker}  {count:>4} pages" for worker, count in sorted(pages.items())]
    items = [f"{item['title']}, {item['price']}" for item in crawl.items[:ITEMS_SHOWN]]
    busiest = max(pages, key=lambda worker: pages[worker]) if pages else "NAME"
    words = [(typed.format(id=crawl.id, worker=busiest), does) for typed, does in _NEXT]
    width = max(len(typed) for typed, _ in words)
    return "\n".join(
        [
            f"\n{view.totals.items} items from {view.totals.pages} pages in {seconds:.1f} s.",
            "The workers shared one queue, and each page was fetched once:",
            *(f"  {share}" for share in shares),
            "\nThe first items:",
            *(f"  {item}" for item in items),
            "\nWhat to type next:",
            *(f"  {typed.ljust(width)}  {does}" for typed, does in words),
            "",
        ]
    )
