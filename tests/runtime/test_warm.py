"""What a zygote has done beforehand: its children have nothing left to import."""

import os
import subprocess
import sys
from pathlib import Path

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


GREEDY = """
import sys
import scrapy.settings.default_settings as defaults
from vscrapy_magic.runtime.warm import warm
defaults.DOWNLOAD_HANDLERS_BASE["greedy"] = "greedy.Handler"
warm()
sys.exit(int("twisted.internet.reactor" in sys.modules))
"""


def test_no_reactor_is_installed_by_what_is_imported_beforehand(tmp_path: Path) -> None:
    (tmp_path / "greedy.py").write_text("from twisted.internet import reactor\nHandler = reactor\n")
    places = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
    assert not subprocess.run(
        [sys.executable, "-c", GREEDY], env=environment, check=False
    ).returncode
