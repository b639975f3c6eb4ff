"""A bug of this package ends its crawl and says so: nothing stands still with its leases."""

import pytest

from tests.worker.crew import Ordered, Workers
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import CrawlState

# What Scrapy's loop, the clock and an answer of the store call; each breaks at the fourth page.
BREAKING = """
class S(scrapy.Spider):
    name = "s"
    async def start(self):
        for n in range(2000):
            yield page(n)
    def parse(self, response):
        if response.text == "3":
            host = self.crawler.host
            %s = lambda *_, **__: 1 / 0
        yield {"n": int(response.text)}
"""


@pytest.mark.parametrize(
    "place", ["host.slots.begin", "host.is_full", "host.committed", "host.stepper.pace.measure"]
)
def test_a_bug_of_this_package_ends_the_crawl_as_failed_and_is_named(
    store: Store, place: str
) -> None:
    with Workers(store.url, "--name", "w"):
        crawl = Ordered(store, BREAKING % place)
        view = crawl.wait(60)
        assert view.state is CrawlState.FAILED, crawl.log()
        assert "a bug of vscrapy_magic, please report it: ZeroDivisionError" in view.why
        assert "This is a bug of vscrapy_magic; the crawl cannot go on" in crawl.log()
        assert "in <lambda>" in crawl.log()
