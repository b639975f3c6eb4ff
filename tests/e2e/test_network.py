"""A network that fails between sender, server and workers; the server is the Redis of Debian.

What is cut is a real link: both sides keep their connections, and neither hears a word.
"""

import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.terminal import Terminal, items
from tests.networks import NEAR, Machine, Network, Talking, network
from tests.servers import OwnServer, needs_redis
from tests.waiting import wait_until
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.presence import Presence
from vscrapy_magic.store.views import CrawlView

__all__ = ["network"]

pytestmark = needs_redis

# Two requests at once and a callback that takes its time: work is left for another worker.
SPIDER = """
import time
import scrapy

class Pages(scrapy.Spider):
    name = "pages"
    custom_settings = {"CONCURRENT_REQUESTS": 2, "LOG_LEVEL": "INFO"}

    def __init__(self, count, name=None, **kwargs):
        super().__init__(**kwargs)
        self.count = int(count)

    async def start(self):
        for number in range(self.count):
            yield scrapy.Request(f"data:text/plain,{number}", meta={"download_slot": "pages"})

    def parse(self, response):
        time.sleep(0.05)
        yield {"number": int(response.text)}
"""
ENOUGH = 100_000  # pages that no crawl of these tests comes to the end of
SLACK = 3  # of promised times, on a shared machine


class Site:
    """A server on the near side, what the test sees of it, and machines on both sides."""

    def __init__(self, folder: Path, tmp_path: Path, network: Network) -> None:
        options = {"bind": NEAR, "protected-mode": "no"}
        self.server = OwnServer(folder, options, within=network.within("near"))
        url = f"redis://{NEAR}:{self.server.port}"
        self.folder = tmp_path
        self.near = Machine(tmp_path / "near", url, network, "near")
        self.far = Machine(tmp_path / "far", url, network, "far")

    def crawl(self, machine: Terminal, count: int, feed: str, *words: str) -> Talking:
        target = ("runspider", "pages.py", "-a", f"count={count}")
        return Talking(machine, self.folder, *target, "-O", f"{feed}:jsonlines", *words)


def expected(count: int) -> Counter[str]:
    return Counter(f'{{"number": {number}}}' for number in range(count))


def the_crawl(store: Store, count: int) -> CrawlView:
    (view,) = [v for v in Crawls(store).list_all() if v.spec.args.get("count") == str(count)]
    return view


def has_items(store: Store, count: int, at_least: int) -> Callable[[], bool]:
    def has() -> bool:
        views = [v for v in Crawls(store).list_all() if v.spec.args.get("count") == str(count)]
        return bool(views) and views[0].totals.items >= at_least

    return has


def test_a_sender_cut_off_for_longer_than_its_ttl_loses_its_crawl_and_no_other_goes(
    folder: Path, tmp_path: Path, network: Network
) -> None:
    site, ttl_s = Site(folder, tmp_path, network), 3
    with (
        site.server,
        Store.connect(site.server.unix_url) as store,
        site.near.work(tmp_path, "-n", "1"),
        site.crawl(site.near, 120, "kept.jsonl") as kept,
        site.crawl(site.far, ENOUGH, "cut.jsonl", "--ttl", str(ttl_s)) as cut,
    ):
        wait_until(has_items(store, ENOUGH, 10), 30, "items of the far sender")
        wait_until(has_items(store, 120, 10), 30, "items of the near sender")
        network.cut()
        began = time.monotonic()
        wait_until(lambda: the_crawl(store, ENOUGH).state is CrawlState.CANCELLED, 30, "cancelled")
        took_s = time.monotonic() - began
        view = the_crawl(store, ENOUGH)
        assert took_s < ttl_s + 2 * SLACK, took_s
        found = re.fullmatch(r"its sender was not heard of for (\d+) s", view.why)
        assert found
        assert ttl_s <= int(found[1]) <= ttl_s + 2 * SLACK
        wait_until(lambda: not the_crawl(store, ENOUGH).members, 3 * SLACK, "end of its child")
        wait_until(lambda: cut.heard("does not answer"), 10, "what the cut off sender says")
        network.mend()
        assert cut.wait(30) == 1, cut.text()
        assert cut.heard("cancelled (its sender was not heard of for"), cut.text()
        assert kept.wait(60) == 0, kept.text()
    assert items(tmp_path / "kept.jsonl") == expected(120)
    assert max(items(tmp_path / "cut.jsonl").values()) == 1


def test_a_sender_cut_off_for_less_than_its_ttl_gets_every_item_once(
    folder: Path, tmp_path: Path, network: Network
) -> None:
    site, count = Site(folder, tmp_path, network), 110
    with (
        site.server,
        Store.connect(site.server.unix_url) as store,
        site.near.work(tmp_path),
        site.crawl(site.far, count, "all.jsonl", "--ttl", "30") as sender,
    ):
        wait_until(has_items(store, count, 20), 30, "items")
        network.cut()
        brought = the_crawl(store, count).totals.items
        wait_until(has_items(store, count, brought + 30), 30, "items that nobody hears of")
        network.mend()
        assert sender.wait(60) == 0, sender.text()
    assert items(tmp_path / "all.jsonl") == expected(count)


def test_a_worker_cut_off_gives_its_requests_to_others_and_repeats_nothing_when_back(
    folder: Path, tmp_path: Path, network: Network
) -> None:
    site, count = Site(folder, tmp_path, network), 300
    with (
        site.server,
        Store.connect(site.server.unix_url) as store,
        site.near.work(tmp_path, "--name", "near"),
        site.far.work(tmp_path, "--name", "far") as far,
    ):
        wait_until(lambda: len(Presence(store).workers()) == 2, 30, "workers")
        with site.crawl(site.near, count, "all.jsonl") as sender:
            wait_until(lambda: members(store, count) == {"near", "far"}, 30, "members")
            wait_until(has_items(store, count, 40), 30, "items")
            network.cut()
            began = time.monotonic()
            wait_until(lambda: members(store, count) == {"near"}, 5 * SLACK, "leases go back")
            assert time.monotonic() - began < 5 * SLACK
            wait_until(lambda: far.heard("trying again each second"), 15, "what it says")
            network.mend()
            wait_until(lambda: far.heard("answers again"), 20, "the worker is back")
            assert not the_crawl(store, count).over, "it was back too late to repeat anything"
            assert sender.wait(90) == 0, sender.text()
    assert items(tmp_path / "all.jsonl") == expected(count)


def members(store: Store, count: int) -> set[str]:
    views = [v for v in Crawls(store).list_all() if v.spec.args.get("count") == str(count)]
    return {str(member.worker) for view in views for member in view.members}


@pytest.fixture
def terminal(tmp_path: Path, folder: Path) -> Iterator[tuple[Terminal, OwnServer]]:
    with OwnServer(folder) as server:
        yield Terminal(tmp_path / "home", server.url), server


def test_connections_that_the_server_closes_again_and_again_lose_and_repeat_nothing(
    terminal: tuple[Terminal, OwnServer], tmp_path: Path
) -> None:
    user, server = terminal
    count = 90
    with (
        Store.connect(server.unix_url) as store,
        Talking(user, tmp_path, "worker", "-n", "2"),
        Talking(
            user,
            tmp_path,
            *("runspider", "pages.py", "-a", f"count={count}", "-O", "all.jsonl:jsonlines"),
        ) as sender,
    ):
        for at_least in (10, 30, 50, 70):
            wait_until(has_items(store, count, at_least), 30, f"{at_least} items")
            assert store.client.execute_command("CLIENT", "KILL", "TYPE", "normal") > 3
        assert sender.wait(60) == 0, sender.text()
    assert items(tmp_path / "all.jsonl") == expected(count)


def test_a_server_killed_and_started_again_with_its_file_loses_and_repeats_nothing(
    terminal: tuple[Terminal, OwnServer], tmp_path: Path
) -> None:
    user, server = terminal
    count = 80
    with (
        Store.connect(server.unix_url) as store,
        Talking(user, tmp_path, "worker", "-n", "2") as worker,
        Talking(
            user,
            tmp_path,
            *("runspider", "pages.py", "-a", f"count={count}", "-O", "all.jsonl:jsonlines"),
        ) as sender,
    ):
        wait_until(has_items(store, count, 30), 30, "items")
        server.stop(signal.SIGKILL)
        wait_until(lambda: worker.heard("trying again each second"), 15, "noticed")
        wait_until(lambda: sender.heard("does not answer"), 15, "said to the user")
        server.start()
        assert sender.wait(60) == 0, sender.text()
        assert sender.heard("the server answers again") == 1, sender.text()
    assert items(tmp_path / "all.jsonl") == expected(count)
