"""Two terminals that attach to one detached crawl: one collects, the other goes on when it dies."""

import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.terminal import Terminal, serve
from tests.networks import Talking
from tests.waiting import wait_until
from tests.worker.crew import Workers
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls

COUNT = 150
# A third of the pages comes at once, the second and the last one when the test says so.
SPIDER = """
import asyncio, os, time
import scrapy

class Pages(scrapy.Spider):
    name = "pages"
    custom_settings = {
        "LOG_LEVEL": "INFO", "CONCURRENT_REQUESTS": 200, "CONCURRENT_REQUESTS_PER_DOMAIN": 200
    }
    async def start(self):
        for n in range(int(self.count)):
            yield scrapy.Request(f"data:text/plain,{n}", meta={"download_slot": "pages"})
    async def parse(self, response):
        n = int(response.text)
        while not os.path.exists(f"{self.gates}/{n // 50}"):
            await asyncio.sleep(0.05)
        time.sleep(0.02)
        yield {"n": n}
"""
SEED = 20261128
STREAMS_S = (0.1, 0.5)  # of the second third


@pytest.fixture
def crew(store: Store) -> Iterator[Workers]:
    with serve(store) as workers:
        yield workers


def collected(terminal: Terminal, folder: Path, crawl_id: str) -> tuple[Counter[int], str]:
    done = terminal.run(folder, "items", crawl_id)
    return Counter(json.loads(line)["n"] for line in done.stdout.splitlines()), done.stderr


def test_the_second_of_two_terminals_goes_on_when_the_first_is_killed(
    store: Store, crew: Workers, tmp_path: Path
) -> None:
    (tmp_path / "pages.py").write_text(SPIDER)
    (tmp_path / "0").touch()
    one, two = (Terminal(tmp_path / name, store.url) for name in ("one", "two"))
    options = ("-a", f"gates={tmp_path}", "-a", f"count={COUNT}")
    assert one.run(tmp_path, "runspider", "pages.py", "--detach", *options).returncode == 0
    (view,) = Crawls(store).list_all()
    meta = f"vscrapy:{{{view.crawl_id}}}:meta"
    with Talking(one, tmp_path, "attach", view.crawl_id, "--nolog") as first:
        wait_until(lambda: store.client.hget(meta, "acked_no"), 20, "an acknowledgement")
        with Talking(two, tmp_path, "attach", view.crawl_id, "--nolog") as second:
            wait_until(lambda: second.heard("is being collected by"), 20, "that it watches")
            (tmp_path / "1").touch()
            time.sleep(random.Random(SEED).uniform(*STREAMS_S))
            first.process.kill()
            first.process.wait()
            wait_until(lambda: second.heard("is collected here now:"), 10, "that it collects")
            (tmp_path / "2").touch()
            assert second.wait(60) == 0, second.text()
    before = re.search(r"vscrapy: ([\d,]+) items were collected by \S+ before", second.text())
    assert before, second.text()
    there, _ = collected(two, tmp_path, view.crawl_id)
    here, said = collected(one, tmp_path, view.crawl_id)
    assert here.total() == int(before[1])
    assert here + there == Counter(range(COUNT))
    assert f"{there.total()} of the {COUNT} items of crawl {view.crawl_id} are with" in said
    assert not second.heard("store_rolled_back")
