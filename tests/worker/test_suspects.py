"""Deaths of every kind: who is guilty gets three strikes, who was beside it is delivered once."""

import os
import signal
import time

import psutil
import pytest

from tests.waiting import wait_until
from tests.worker.crew import KILLS_AT_ONE, Ordered, Workers
from vscrapy_magic.sender.spool import failures_in
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.outputs import Outputs

# The thread ends the process while the loop does nothing: no lease is marked.
GUILTY_BY_THREAD = """
import threading
class S(scrapy.Spider):
    name = "s"
    async def start(self):
        for n in range(int(self.count)):
            yield page(n)
    async def parse(self, response):
        if response.text in self.guilty.split():
            threading.Timer(0.3, %s).start()
            await asyncio.sleep(5)
        await asyncio.sleep(0.5)
        yield {"n": int(response.text)}
"""
IN_CALLBACK = "import threading, re" + KILLS_AT_ONE
IN_START = """
class S(scrapy.Spider):
    name = "s"
    async def start(self):
        for n in range(1500):
            yield page(n, dont_filter=True)
        await asyncio.sleep(0.2)
        %s
        yield page(99)
    def parse(self, response):
        yield {"n": int(response.text)}
"""
NEVER = (
    "while True: pass",
    "ctypes.PyDLL(None).sleep(600)",  # keeps the interpreter to itself
    "re.match(r'(a+)+$', 'a' * 60 + 'b')",
    "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "raise SystemExit",
    "os.kill(os.getpid(), signal.SIGFPE)",
)
GROW = """
            self.kept = []
            while True:
                self.kept.append(b"x" * (20 * 2**20))
                await asyncio.sleep(0.05)
"""
STRIKE = "the request that it worked on gets a strike"
GIVEN_UP = "a request is given up: the process died of it three times"


def urls_given_up(crawl: Ordered) -> list[str]:
    outputs, found = Outputs(crawl.store, crawl.crawl_id), []
    entries = outputs.read()
    while entries:
        found += [f.url for e in entries for f in failures_in(e) if f.kind == "buried"]
        entries = outputs.read(entries[-1].witness)
    return found


def test_a_thread_that_ends_the_process_is_found_by_running_suspects_alone(store: Store) -> None:
    with Workers(store.url, "-n", "2", "--name", "w"):
        args = {"count": "9", "guilty": "4"}
        for how in ("lambda: ctypes.string_at(0)", "lambda: os._exit(5)"):
            crawl = Ordered(store, GUILTY_BY_THREAD % how, args=args, CONCURRENT_REQUESTS=4)
            view = crawl.wait(60)
            assert view.state is CrawlState.FINISHED, crawl.log()
            assert view.close_reason == "finished"
            assert crawl.numbers() == dict.fromkeys({*range(9)} - {4}, 1), crawl.log()
            assert urls_given_up(crawl) == ["data:text/plain,4"]
            assert crawl.log().count(GIVEN_UP) == 1
            assert crawl.log().count(STRIKE) == 3, crawl.log()
            assert "requests: each of them runs alone next" in crawl.log()


def test_two_guilty_requests_are_both_found(store: Store) -> None:
    with Workers(store.url, "--name", "w"):
        how = GUILTY_BY_THREAD % "lambda: os.abort()"
        args = {"count": "6", "guilty": "2 3"}
        crawl = Ordered(store, how, args=args, CONCURRENT_REQUESTS=6)
        assert crawl.wait(60).state is CrawlState.FINISHED, crawl.log()
        assert crawl.numbers() == dict.fromkeys([0, 1, 4, 5], 1), crawl.log()
        assert sorted(urls_given_up(crawl)) == ["data:text/plain,2", "data:text/plain,3"]


def test_request_that_never_returns_is_given_up_and_its_neighbours_are_not(store: Store) -> None:
    with Workers(store.url, "--name", "w", "--slots", "8"):
        crawls = [Ordered(store, IN_CALLBACK % how, VSCRAPY_HANG_TIMEOUT=2) for how in NEVER]
        for how, crawl in zip(NEVER, crawls, strict=True):
            view = crawl.wait(90)
            assert view.state is CrawlState.FINISHED, how + crawl.log()
            assert crawl.numbers() == dict.fromkeys([0, 2, 3, 4, 5], 1), how + crawl.log()
            assert urls_given_up(crawl) == ["data:text/plain,1"]
            assert view.totals.failures == 4  # three deaths, and that it was given up
            assert crawl.log().count(STRIKE) == 3, how + crawl.log()


def test_memory_that_grows_between_callbacks_is_blamed_on_the_one_that_lets_it_grow(
    store: Store,
) -> None:
    with Workers(store.url, "--name", "w", "--child-memory", "300"):
        crawl = Ordered(store, IN_CALLBACK % GROW)
        view = crawl.wait(60)
        assert view.state is CrawlState.FINISHED, crawl.log()
        assert crawl.numbers() == dict.fromkeys([0, 2, 3, 4, 5], 1), crawl.log()
        assert urls_given_up(crawl) == ["data:text/plain,1"]


def test_start_that_ends_the_process_is_given_up_and_what_it_brought_is_not(store: Store) -> None:
    with Workers(store.url, "--name", "w"):
        crawl = Ordered(store, IN_START % "ctypes.string_at(0)")
        view = crawl.wait(60)
        assert view.state is CrawlState.FINISHED, crawl.log()
        assert crawl.numbers() == dict.fromkeys(range(1500), 1), crawl.log()
        assert urls_given_up(crawl) == ["start()"]


def test_three_kills_from_outside_during_one_slow_page_bury_nobody(store: Store) -> None:
    source = IN_CALLBACK % "print('slow', flush=True); await asyncio.sleep(2)"
    with Workers(store.url, "--name", "w") as crew:
        crawl = Ordered(store, source)
        for number in range(1, 4):
            wait_until(lambda: crawl.log().count(": slow") == number, 20, "the slow page")  # noqa: B023
            os.kill(crew.zygote().children()[0].pid, signal.SIGKILL)
        assert crawl.wait(60).state is CrawlState.FINISHED
        assert crawl.numbers() == dict.fromkeys(range(6), 1)
        assert urls_given_up(crawl) == []
        assert STRIKE not in crawl.log()
        assert "alone" not in crawl.log()


def test_a_traced_process_is_not_taken_for_a_hanging_one(store: Store) -> None:
    """Stopped by its tracer, as in a debugger: not the state of a process that got SIGSTOP."""
    source = IN_CALLBACK % "self.traced()"
    source += """
    def traced(self):
        if not os.fork():
            libc = ctypes.CDLL(None, use_errno=True)
            child = os.getppid()
            if libc.ptrace(16, child, None, None):  # PTRACE_ATTACH
                print("ptrace failed", ctypes.get_errno(), flush=True)
                os._exit(1)
            os.waitpid(child, 0x40000000)
            print("traced", flush=True)
            time.sleep(5)
            libc.ptrace(17, child, None, None)  # PTRACE_DETACH
            os._exit(0)
        time.sleep(1)
"""
    with Workers(store.url, "--name", "w") as crew:
        crawl = Ordered(store, source, VSCRAPY_HANG_TIMEOUT=2)
        line = crawl.wait_for_line("trace")
        if "failed" in line.text:
            crawl.crawls.kill(crawl.crawl_id)
            crawl.wait()
            pytest.skip(line.text)
        begun = time.monotonic()
        (child,) = crew.zygote().children()
        assert child.status() in {psutil.STATUS_TRACING_STOP, psutil.STATUS_STOPPED}
        assert crawl.wait(60).state is CrawlState.FINISHED, crawl.log()
        assert time.monotonic() - begun > 4
        assert crawl.numbers() == dict.fromkeys(range(6), 1)
        assert len(crawl.pids()) == 1
        assert STRIKE not in crawl.log()


@pytest.mark.parametrize("where", ["os._exit(7)", "def __init__(self): ctypes.string_at(0)"])
def test_a_process_that_ends_itself_before_it_works_fails_the_crawl(
    store: Store, where: str
) -> None:
    with Workers(store.url, "--name", "w"):
        crawl = Ordered(store, f'class S(scrapy.Spider):\n    name = "s"\n    {where}\n')
        view = crawl.wait(60)
        assert view.state is CrawlState.FAILED, crawl.log()
        assert "while loading, 3 times in a row" in view.why, view
        deaths = crawl.failures()
        assert {death.kind for death in deaths} == {"crash"}, deaths
        assert len({death.group for death in deaths}) == 1
        if "string_at" in where:
            assert deaths[0].place.endswith("in __init__")
            assert deaths[0].traceback.startswith("Fatal Python error: Segmentation fault")
