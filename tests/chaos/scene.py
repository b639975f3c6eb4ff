"""What a crawl under fire has to give, who takes part in it, and what may be left of it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.runtime.crawling import local_run, plain
from tests.waiting import wait_until
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.options import parse_words
from vscrapy_magic.sender.order import file_order
from vscrapy_magic.sender.session import Session
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import crawl_prefix
from vscrapy_magic.store.messages import CrawlState

SPIDER = Path(__file__).parent / "rough.py"
# What is committed with the lease that counted it. A page is downloaded again when its worker dies,
# and counted once all the same.
EXACT = (
    *("item_scraped_count", "item_dropped_count", "response_received_count"),
    *("spider_exceptions/ValueError", "spider_exceptions/count", "log_count/ERROR"),
    *("dupefilter/filtered", "scheduler/enqueued", "scheduler/dequeued"),
    *("downloader/request_count", "downloader/response_status_count/200"),
)
SWEPT_WITHIN_S = 15.0  # two looks of a supervisor, on a slow machine
MARK = "VSCRAPY_TEST_SCENE"  # environment variable: whose process it is


@dataclass(frozen=True)
class Expected:
    """What a plain Scrapy gives."""

    items: Counter[str]
    stats: Mapping[str, Any]

    @classmethod
    def of(cls, site: DemoSite, folder: Path) -> "Expected":
        log = [f"LOG_FILE={folder / 'local.log'}"]
        items, stats = local_run(SPIDER, folder, args=[f"site={site.url}"], settings=log)
        return cls(items, {name: stats.get(name) for name in EXACT})

    @property
    def failures(self) -> int:
        return int(self.stats["spider_exceptions/ValueError"])

    def lost(self, crawl: Crawl) -> Counter[str]:
        return self.items - _items(crawl)

    def repeated(self, crawl: Crawl) -> Counter[str]:
        return _items(crawl) - self.items

    def differences(self, crawl: Crawl) -> list[str]:
        """How a crawl that is over differs; empty when it is as it should be."""
        view, found = crawl.view, []
        lost, repeated = self.lost(crawl), self.repeated(crawl)
        for what, items in (("lost", lost), ("repeated", repeated)):
            if items:
                found.append(f"{what} {items.total()} items, as {next(iter(items))}")
        if view.state is not CrawlState.FINISHED or view.close_reason != "finished":
            found.append(f"{view.state} ({view.close_reason}) {view.why}")
        stats = crawl.stats
        for name, value in self.stats.items():
            if stats.get(name) != value:
                found.append(f"{name}: {stats.get(name)} instead of {value}")
        for whose, count in (("counted", view.totals.failures), ("kept", len(crawl.failures))):
            if count != self.failures:
                found.append(f"failures {whose}: {count} instead of {self.failures}")
        return found

    def is_given_by(self, crawl: Crawl, within_s: float) -> None:
        """The crawl ends in time, exactly."""
        view = crawl.wait(within_s)
        log = "\n".join(f"{x.worker} {x.source}: {x.text}" for x in crawl.logs())
        assert view.over, f"it hangs: {view} {view.why} {view.totals}\n{log}"
        assert not self.differences(crawl), f"{self.differences(crawl)}\n{log}"


def _items(crawl: Crawl) -> Counter[str]:
    return Counter(plain(item) for item in crawl.items)


def order(session: Session, site: DemoSite, **settings: object) -> Crawl:
    """The crawl, as `vscrapy runspider` places it."""
    words = [str(SPIDER), "-a", f"site={site.url}"]
    for name, value in settings.items():
        words += ["-s", f"{name}={value}"]
    return session.place(file_order(parse_words(words, "vscrapy runspider", "spider_file")))


def marked(mark: str) -> list[psutil.Process]:
    """Processes that were started with this mark, and all that came of them; no zombies."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found


def keys_left(store: Store, crawl: Crawl) -> set[str]:
    """Keys that a crawl which is over would have for ever."""
    prefix = crawl_prefix(crawl.id)
    keys = store.client.keys(f"{prefix}*")
    return {raw.decode().removeprefix(prefix) for raw in keys if store.client.pttl(raw) < 0}


def wait_until_swept(store: Store, crawl: Crawl) -> None:
    """The workers tidy up after each crawl."""
    wait_until(
        lambda: not keys_left(store, crawl),
        SWEPT_WITHIN_S,
        f"keys left of crawl {crawl.id}: {keys_left(store, crawl)}",
    )
