"""New code comes into force while a crawl runs: on all workers or on none, and nothing is lost."""

import hashlib
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from tests.waiting import wait_until
from tests.worker.crew import HEAD, Ordered, Workers
from vscrapy_magic.errors import PatchRefusedError
from vscrapy_magic.sender.bundle import Shipped
from vscrapy_magic.sender.order import Order
from vscrapy_magic.sender.patching import Patched, patch
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import Bundle, CrawlState, encode

SLOW = """
class S(scrapy.Spider):
    name = "s"
    async def start(self):
        for n in range(%d):
            yield page(n)
    async def parse(self, response):
        await asyncio.sleep(%s)
        yield {"n": int(response.text), "code": %d}
"""
WITHIN_S = 1.5  # from the patch until pages of all workers come of it


def order(source: str) -> Order:
    files = {"spider.py": (HEAD + textwrap.dedent(source)).encode()}
    bundle = Bundle(files=files, entry="spider.py")
    digest = hashlib.sha256(encode(bundle)).hexdigest()
    return Order(shipped=Shipped(bundle, digest, (), ""), spider="s")


def patched(crawl: Ordered, source: str) -> Patched:
    return patch(crawl.store, crawl.view(), order(source), None)


def codes(crawl: Ordered) -> Counter[int]:
    return Counter(item["code"] for item in crawl.items())


def test_patch_reaches_all_workers_and_loses_and_repeats_nothing(store: Store) -> None:
    with Workers(store.url, "-n", "2", "--name", "w"):
        crawl = Ordered(store, SLOW % (120, "0.1", 1))
        crawl.wait_for_members(2)
        wait_until(lambda: len(crawl.items()) > 10, 20, "items")
        done = patched(crawl, SLOW % (120, "0.1", 2))
        accepted = time.monotonic()
        assert done.version == 2
        assert crawl.view().code_version == 2
        wait_until(lambda: len(lines(crawl, "Code version 2 from here on")) == 2, 20, "both")
        wait_until(lambda: codes(crawl)[2] > 0, 3 * WITHIN_S, "an item of the new code")
        print("took", done.seconds, time.monotonic() - accepted)
        assert crawl.wait(60).state is CrawlState.FINISHED
        assert crawl.numbers() == dict.fromkeys(range(120), 1)
        assert codes(crawl)[1] > 0
        assert codes(crawl)[2] > 0


def lines(crawl: Ordered, text: str) -> list[str]:
    return [line.worker for line in crawl.lines() if text in line.text]


def test_code_that_one_worker_cannot_load_is_refused_everywhere(
    store: Store, tmp_path: Path
) -> None:
    flag = tmp_path / "first"
    broken = f"""
    try:
        os.close(os.open({str(flag)!r}, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        undefined_name
    """
    with Workers(store.url, "-n", "2", "--name", "w"):
        crawl = Ordered(store, SLOW % (80, "0.1", 1))
        crawl.wait_for_members(2)
        with pytest.raises(PatchRefusedError) as refused:
            patched(crawl, textwrap.dedent(broken) + SLOW % (80, "0.1", 2))
        text = str(refused.value)
        assert "code version 2 was refused on w-" in text
        assert "version 1 goes on everywhere" in text
        assert "spider.py, line 11, in <module>\n    undefined_name" in text
        assert "NameError: name 'undefined_name'" in text
        assert "vscrapy_magic" not in text
        assert crawl.wait(60).state is CrawlState.FINISHED
        assert crawl.view().code_version == 1
        assert codes(crawl) == {1: 80}
        assert crawl.numbers() == dict.fromkeys(range(80), 1)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("os._exit(3)", "exit code 3"),
        ("S.custom_settings = {'ITEM_PIPELINES': {'__main__.Nothing': 1}}", "Nothing"),
        ("S.__init__ = lambda self, **_: 1 / 0", "ZeroDivisionError"),
    ],
)
def test_code_that_ends_its_process_or_cannot_be_opened_is_refused(
    store: Store, fault: str, said: str
) -> None:
    with Workers(store.url, "--name", "w"):
        crawl = Ordered(store, SLOW % (40, "0.1", 1))
        crawl.wait_for_members(1)
        with pytest.raises(PatchRefusedError, match=f"(?s)refused on w,.*{said}"):
            patched(crawl, SLOW % (40, "0.1", 2) + fault)
        assert crawl.wait(60).state is CrawlState.FINISHED
        assert codes(crawl) == {1: 40}


def test_pages_that_do_not_end_in_time_run_again_with_the_new_code(store: Store) -> None:
    slow = SLOW.replace("sleep(%s)", "sleep(60 if response.text in '01' else %s)")
    with Workers(store.url, "--name", "w"):
        crawl = Ordered(store, slow % (6, "0.1", 1), CONCURRENT_REQUESTS=3)
        wait_until(lambda: len(crawl.items()) == 4, 20, "the quick ones")
        patched(crawl, SLOW % (6, "0.1", 2))
        assert crawl.wait(15).state is CrawlState.FINISHED
        assert crawl.numbers() == dict.fromkeys(range(6), 1)
        assert codes(crawl) == {1: 4, 2: 2}
        assert any("run again with newer code" in line.text for line in crawl.lines())


def test_page_that_blocks_its_process_runs_again_with_the_new_code(store: Store) -> None:
    stuck = SLOW.replace("await asyncio.sleep(%s)", "if response.text == '1': time.sleep(%s)")
    with Workers(store.url, "--name", "w"):
        crawl = Ordered(store, stuck % (6, "60", 1))
        crawl.wait_for_members(1)
        time.sleep(1)
        patched(crawl, SLOW % (6, "0.1", 2))
        assert crawl.wait(30).state is CrawlState.FINISHED
        assert crawl.numbers() == dict.fromkeys(range(6), 1)


def test_start_that_is_iterated_is_begun_again_and_repeats_nothing(store: Store) -> None:
    starting = SLOW.replace("yield page(n)", "yield page(n); await asyncio.sleep(0.05)")
    with Workers(store.url, "--name", "w"):
        crawl = Ordered(store, starting % (60, "0.1", 1))
        wait_until(lambda: len(crawl.items()) > 5, 20, "items")
        patched(crawl, starting % (60, "0.1", 2))
        assert crawl.wait(60).state is CrawlState.FINISHED
        assert crawl.numbers() == dict.fromkeys(range(60), 1)
        assert codes(crawl)[2] > 0


def test_worker_killed_while_it_tries_does_not_block_the_others(
    store: Store, tmp_path: Path
) -> None:
    flag = tmp_path / "first"
    sleepy = f"""
    try:
        os.close(os.open({str(flag)!r}, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        pass
    else:
        pathlib.Path({str(flag)!r}).write_text(str(os.getppid()))
        time.sleep(60)
    """
    head = "import pathlib\n" + textwrap.dedent(sleepy)
    with Workers(store.url, "--name", "a") as one, Workers(store.url, "--name", "b") as two:
        crawl = Ordered(store, SLOW % (150, "0.1", 1))
        crawl.wait_for_members(2)

        def kill() -> None:
            wait_until(lambda: flag.exists() and bool(flag.read_text()), 20, "a trial")
            zygote = int(flag.read_text())
            next(w for w in (one, two) if w.zygote().pid == zygote).process.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        done = patched(crawl, head + SLOW % (150, "0.1", 2))
        killer.join()
        assert done.version == 2
        assert crawl.wait(60).state is CrawlState.FINISHED
        assert crawl.numbers() == dict.fromkeys(range(150), 1)
        assert codes(crawl)[2] > 0


def test_two_patches_in_a_row_and_a_late_worker_run_the_newest_code(store: Store) -> None:
    with Workers(store.url, "--name", "a"):
        crawl = Ordered(store, SLOW % (250, "0", 1), DOWNLOAD_DELAY=0.1)
        crawl.wait_for_members(1)
        assert patched(crawl, SLOW % (250, "0", 2)).version == 2
        assert patched(crawl, SLOW % (250, "0", 3)).version == 3
        with Workers(store.url, "--name", "b"):
            wait_until(
                lambda: "b" in lines(crawl, "Code version 3 from here on"), 30, "the late one"
            )
            assert crawl.wait(60).state is CrawlState.FINISHED
        assert crawl.numbers() == dict.fromkeys(range(250), 1)
        assert codes(crawl)[3] > 0


def test_queued_request_whose_callback_is_gone_is_a_failure(store: Store) -> None:
    gone = SLOW.replace("yield page(n)", "yield page(n, callback=self.parse_old)")
    old = gone.replace("async def parse(", "async def parse_old(")
    with Workers(store.url, "--name", "w"):
        crawl = Ordered(store, old % (100, "0.2", 1))
        wait_until(lambda: len(crawl.items()) > 2, 20, "items")
        patched(crawl, SLOW % (100, "0.2", 2))
        view = crawl.wait(60)
        assert view.state is CrawlState.FINISHED
        assert view.totals.failures > 0
        assert view.totals.failures + view.totals.items == 100


def test_limits_of_the_new_code_hold_unless_set_by_hand(store: Store) -> None:
    limited = "    custom_settings = {'CLOSESPIDER_ITEMCOUNT': 30}\n    async def start"
    with Workers(store.url, "--name", "w"):
        crawl = Ordered(store, SLOW % (400, "0.1", 1))
        crawl.wait_for_members(1)
        source = (SLOW % (400, "0.1", 2)).replace("    async def start", limited)
        new = msgspec.structs.replace(order(source), in_force={"CLOSESPIDER_ITEMCOUNT": 30})
        done = patch(store, crawl.view(), new, None)
        assert done.notes == ("CLOSESPIDER_ITEMCOUNT = 30 for the whole crawl from here on",)
        assert crawl.wait(60).close_reason == "closespider_itemcount"
        assert len(crawl.items()) < 200
