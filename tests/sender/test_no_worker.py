"""All workers are gone: the crawl waits and says so, goes on when one comes, and can be stopped."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.placing import place
from tests.waiting import wait_until
from tests.worker.crew import HEAD, PAGES, Workers
from vscrapy_magic.cli import main
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.options import parse_words
from vscrapy_magic.sender.order import file_order
from vscrapy_magic.sender.session import Session
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls, new_crawl_id
from vscrapy_magic.store.frontier import MEMBER_TTL_MS, Frontier
from vscrapy_magic.store.keys import MemberToken, WorkerName, crawl_key
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.messages import CrawlSpec, CrawlState, Step
from vscrapy_magic.store.views import CrawlView

PAGE_COUNT = 60
# Its items must not name their process: of another content, an item is another one.
SPIDER = PAGES.replace(', "pid": os.getpid()', "")
SLACK = 3  # a loaded machine
SEEN_WITHIN_S = SLACK * (MEMBER_TTL_MS / 1000 + 2.5)


class Heard:
    """What a user is told of a crawl."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.over = threading.Event()

    def lines(self, lines: Sequence[LogLine]) -> None:
        self.said += [line.text for line in lines if line.source == "sender"]

    def view(self, view: CrawlView) -> None:
        """Not of interest."""

    def ended(self, _view: CrawlView) -> None:
        self.over.set()


def placed(session: Session, folder: Path, heard: Heard, *words: str) -> Crawl:
    spider = folder / "pages.py"
    spider.write_text(HEAD + SPIDER)
    args = [str(spider), "-a", f"count={PAGE_COUNT}", "-a", "delay=0.05", *words]
    crawl = session.place(file_order(parse_words(args, "vscrapy runspider", "spider_file")))
    crawl.listen(heard)
    return crawl


def killed_while_it_crawls(store: Store, crawl: Crawl) -> None:
    """A worker comes, and dies with all that it has when the crawl runs."""
    with Workers(store.url, "--name", "w") as crew:
        wait_until(lambda: crawl.view.totals.items, 30, "items")
        crew.process.send_signal(signal.SIGKILL)
        crew.wait(10)
    # Nobody heard of them for long, as it were.
    store.client.delete("vscrapy:workers", "vscrapy:workers:due")


def test_a_crawl_whose_workers_died_waits_says_so_and_goes_on(
    store: Store, session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = Heard()
    crawl = placed(session, tmp_path, heard, "-s", "LOG_LEVEL=INFO")
    killed_while_it_crawls(store, crawl)
    wait_until(lambda: crawl.view.state is CrawlState.WAITING, SEEN_WITHIN_S, "it waits")
    assert crawl.view.why == "no worker takes part"
    assert not crawl.view.members
    now_ms = int(time.time() * 1000)
    assert crawl.view.waits(now_ms).startswith("no worker takes part (for ")
    assert abs(crawl.view.since_ms - now_ms) < SEEN_WITHIN_S * 1000
    wait_until(lambda: any("the crawl goes on when one comes" in x for x in heard.said), 20, "said")
    assert main(["-l", "--redis", store.url]) == 0
    assert "no worker takes part (for " in capsys.readouterr().out
    with Workers(store.url, "--name", "v"):
        assert crawl.wait(60).state is CrawlState.FINISHED
    assert Counter(item["n"] for item in crawl.items) == dict.fromkeys(range(PAGE_COUNT), 1)
    assert any(line.startswith("a worker takes part, after ") for line in heard.said)


def left_by_its_worker(store: Store, crawl: Crawl) -> None:
    """A child has begun, and was not heard of since; no supervisor is there to see it."""
    frontier, token = Frontier(store, crawl.id), MemberToken("w.1")
    frontier.join(token, WorkerName("w"))
    assert frontier.step(Step(token=token, seq=1, want=1)).leases
    store.client.zadd(crawl_key(crawl.id, "members"), {token: 1})


@pytest.mark.parametrize("how", ["notebook", "terminal"])
def test_a_crawl_that_waits_for_a_worker_is_stopped_at_once(
    store: Store,
    session: Session,
    tmp_path: Path,
    how: str,
) -> None:
    heard = Heard()
    crawl = placed(session, tmp_path, heard)
    left_by_its_worker(store, crawl)
    wait_until(lambda: crawl.view.state is CrawlState.WAITING, SEEN_WITHIN_S, "it waits")
    begun = time.monotonic()
    if how == "notebook":
        crawl.stop()
    else:
        assert main(["stop", crawl.id, "--redis", store.url]) == 0
    assert Crawls(store).view(crawl.id).state is CrawlState.STOPPED
    assert heard.over.wait(SLACK * 2.0)
    assert crawl.view.state is CrawlState.STOPPED
    assert time.monotonic() - begun < SLACK * 2.0


def test_a_stop_that_comes_before_the_death_is_seen_ends_the_crawl(
    store: Store, session: Session, tmp_path: Path
) -> None:
    crawl = placed(session, tmp_path, Heard())
    left_by_its_worker(store, crawl)
    crawl.stop()
    assert crawl.wait(SEEN_WITHIN_S).state is CrawlState.STOPPED


def test_a_crawl_that_never_had_a_worker_is_stopped_at_once(
    store: Store, session: Session, tmp_path: Path
) -> None:
    crawl = placed(session, tmp_path, Heard())
    crawl.stop()
    assert crawl.wait(SLACK * 1.0).state is CrawlState.STOPPED


def test_a_detached_crawl_that_nobody_has_judged_for_long_is_stopped_at_once(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = CrawlSpec(crawl_id=new_crawl_id(), spider="s", bundle="none")
    place(store, spec)
    frontier, token = Frontier(store, spec.crawl_id), MemberToken("w.1")
    frontier.join(token, WorkerName("w"))
    assert frontier.step(Step(token=token, seq=1, want=1)).leases
    meta = crawl_key(spec.crawl_id, "meta")
    judged_ms = int(store.client.hget(meta, "judged_ms"))
    store.client.hset(meta, "judged_ms", judged_ms - 13_000)
    assert main(["stop", spec.crawl_id, "--redis", store.url]) == 0
    assert capsys.readouterr().out == f"crawl {spec.crawl_id}: stopped\n"
    assert Crawls(store).view(spec.crawl_id).members == ()
