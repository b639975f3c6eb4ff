"""Workers join and leave all the time, by SIGTERM and by kill -9: the crawl is exact."""

import random
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.chaos.scene import Expected, order, wait_until_swept
from tests.waiting import wait_until
from tests.worker.crew import Workers
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.sender.session import Session
from vscrapy_magic.store.connection import Store

PAGES = 60
DELAY_MS = 300
PER_DOMAIN = 2  # requests at once, of all workers together: a crawl of ten seconds
EVERY_S = 1.0
SEED = 4  # its endings alternate at first
AT_ONCE = 2  # workers, the one that comes next not counted
SOAK_CRAWLS = 100
CRAWLS_MAX = 5
ENDS_WITHIN_S = 90.0
ENDINGS = (signal.SIGTERM, signal.SIGKILL)


class Turnover:
    """Each second the oldest worker ends, and a new one takes its place; a thread of its own."""

    def __init__(self, url: str, stack: ExitStack, seed: int) -> None:
        self._url = url
        self._stack = stack
        self._random = random.Random(seed)
        self._there: deque[tuple[str, Workers]] = deque()
        self._stop = threading.Event()
        self._number = 0
        self.ended: list[tuple[str, signal.Signals]] = []
        self._thread = threading.Thread(target=self._run, name="turnover")

    def _come(self) -> None:
        self._number += 1
        name = f"t{self._number}"
        self._there.append((name, self._stack.enter_context(Workers(self._url, "--name", name))))

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._come()
            # One that could not even begin would make this a test of starting.
            name, oldest = self._there[0]
            if len(self._there) > AT_ONCE and oldest.ready():
                how = self._random.choice(ENDINGS)
                oldest.process.send_signal(how)
                self.ended.append((name, how))
                self._there.popleft()

    @contextmanager
    def going_on(self) -> Iterator["Turnover"]:
        for _ in range(AT_ONCE):
            self._come()
        wait_until(
            lambda: all(worker.ready() for _, worker in self._there), 60, "the first workers"
        )
        self._thread.start()
        try:
            yield self
        finally:
            self.end()

    def end(self) -> None:
        """Those that are there stay."""
        self._stop.set()
        self._thread.join()


@pytest.fixture(scope="module")
def slow_site() -> Iterator[DemoSite]:
    with DemoSite(pages=PAGES, delay_ms=DELAY_MS) as running:
        yield running


@pytest.fixture(scope="module")
def slowly_expected(slow_site: DemoSite, tmp_path_factory: pytest.TempPathFactory) -> Expected:
    return Expected.of(slow_site, tmp_path_factory.mktemp("local"))


def test_workers_that_come_and_go_each_second_lose_and_repeat_nothing(
    store: Store, session: Session, slow_site: DemoSite, slowly_expected: Expected
) -> None:
    how: set[signal.Signals] = set()
    with ExitStack() as stack, Turnover(store.url, stack, SEED).going_on() as turnover:
        for _ in range(CRAWLS_MAX):  # where workers come up slowly, one crawl sees too few of them
            crawl = order(session, slow_site, CONCURRENT_REQUESTS_PER_DOMAIN=PER_DOMAIN)
            slowly_expected.is_given_by(crawl, ENDS_WITHIN_S)
            took_part = {line.worker for line in crawl.logs()}
            how |= {number for name, number in turnover.ended if name in took_part}
            if how == set(ENDINGS):
                break
        turnover.end()
        wait_until_swept(store, crawl)
    assert how == set(ENDINGS), f"too little happened: {turnover.ended}"


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_many_crawls_while_workers_come_and_go_lose_and_repeat_nothing(
    store: Store, session: Session, slow_site: DemoSite, slowly_expected: Expected
) -> None:
    with ExitStack() as stack, Turnover(store.url, stack, random.randrange(10**6)).going_on():
        for _ in range(SOAK_CRAWLS):
            crawl = order(session, slow_site, CONCURRENT_REQUESTS_PER_DOMAIN=PER_DOMAIN)
            slowly_expected.is_given_by(crawl, ENDS_WITHIN_S)
