"""The promise of this package: on any number of children a spider gives what it gives locally."""

from pathlib import Path
from typing import Any

import pytest

from tests.runtime.crawling import SPIDERS, Crawl, demo_site, local_run
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.pages import read_pages

COUNTED = (
    *("item_scraped_count", "response_received_count", "item_dropped_count"),
    *("dupefilter/filtered", "downloader/response_count", "scheduler/enqueued", "retry/count"),
    *("downloader/request_count", "robotstxt/forbidden", "robotstxt/request_count"),
)
PAGES = "150"


@pytest.mark.parametrize("children", [pytest.param(1, marks=pytest.mark.matrix), 2])
@pytest.mark.parametrize("name", ["books", "account", "shop_crawl"])
def test_spider_gives_the_items_and_counts_of_a_local_run(
    store: Store, tmp_path: Path, name: str, children: int
) -> None:
    path = SPIDERS / f"{name}.py"
    with demo_site("--pages", PAGES) as site:
        items, stats = local_run(path, tmp_path, args=[f"site={site}"])
        address = site.rpartition(":")[0]
    # A second site, because the first remembers which of its flaky pages have failed already.
    with (
        demo_site("--pages", PAGES) as site,
        Crawl(store, path.read_text(), name, args={"site": site}) as crawl,
    ):
        for _ in range(children):
            crawl.add_child()
        view = crawl.wait()
        assert view.state is CrawlState.FINISHED, crawl.logs()
        assert view.close_reason == stats["finish_reason"]
        assert crawl.items() == items, crawl.logs()
        assert address
        got = crawl.stats()
        assert {key: got.get(key) for key in COUNTED} == {key: stats.get(key) for key in COUNTED}
        assert view.totals.items == stats["item_scraped_count"]
        assert view.totals.pages == stats["response_received_count"]


@pytest.mark.parametrize("point", ["after_lease:3", "before_commit:4", "after_commit_before_ack:5"])
def test_child_killed_at_a_fail_point_loses_and_repeats_nothing(store: Store, point: str) -> None:
    # Recorded, because pages travel with the same commits.
    _crawl_and_kill(store, lambda crawl: crawl.add_child(VSCRAPY_FAIL=point), record_bytes=10**9)


def test_child_killed_at_any_moment_loses_and_repeats_nothing(store: Store) -> None:
    def kill_one(crawl: Crawl) -> Any:
        child = crawl.add_child()
        from tests.waiting import wait_until

        wait_until(lambda: crawl.view().totals.pages > 40, 30, "forty pages")
        child.process.kill()
        return child

    _crawl_and_kill(store, kill_one)


def _crawl_and_kill(store: Store, doomed: Any, **fields: Any) -> None:
    source = (SPIDERS / "books.py").read_text()
    settings = {"CONCURRENT_REQUESTS_PER_DOMAIN": 4}
    with (
        demo_site("--pages", PAGES, "--delay-ms", "20") as site,
        Crawl(store, source, "books", args={"site": site}, settings=settings, **fields) as crawl,
    ):
        crawl.add_child()
        victim = doomed(crawl)
        view = crawl.wait()
        assert victim.process.wait(10) == -9, "the child was to be killed on its way"
        assert view.state is CrawlState.FINISHED, crawl.logs()
        items = crawl.items()
        paths = [record["data"]["path"] for record in crawl.outputs()[0]]
        books = [path for path in paths if "/book/" in path or "/catalogue/" in path]
        assert len(paths) == len(set(paths)), "an item came twice"
        assert len([p for p in paths if "catalogue?page" not in p]) >= int(PAGES)
        assert view.totals.items == sum(items.values()) == crawl.stats()["item_scraped_count"]
        assert books
        if fields:
            pages = [p.url for each in crawl.raw_outputs() for p in read_pages(each.records)]
            assert len(pages) == len(set(pages)) == view.recorded, "a page came twice, or not"
            assert {f"{site}{path}" for path in paths} <= set(pages), crawl.logs()
