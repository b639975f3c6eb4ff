"""What a zygote has done beforehand: its children have nothing left to import."""

from tests.waiting import wait_until
from tests.worker.crew import Ordered, Workers, workers
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import CrawlState

# Of the crawl's own choosing: which one is installed is a setting.
REACTOR = "twisted.internet.reactor"
SPIDER = """
BEFORE = set(sys.modules)
class S(scrapy.Spider):
    name = "s"
    async def start(self):
        yield scrapy.Request(f"{self.site}/book/1")
    def parse(self, response):
        title = response.css("h1::text").get() or response.xpath("//h1/text()").get()
        yield {"title": title, "came": sorted(set(sys.modules) - BEFORE)}
"""


def test_a_child_imports_nothing_for_its_first_page(store: Store) -> None:
    with DemoSite() as site, Workers(store.url, "--name", "w1") as crew:
        wait_until(lambda: "w1" in workers(store) and crew.ready(), 20, "a worker")
        crawl = Ordered(store, SPIDER, args={"site": site.url})
        assert crawl.wait().state is CrawlState.FINISHED, crawl.log()
        (item,) = crawl.items()
        assert item["title"]
        assert item["came"] == [REACTOR]
