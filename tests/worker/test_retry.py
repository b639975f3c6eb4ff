"""Failed requests that are put back run again, once, and nothing comes twice of what had come."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.waiting import wait_until
from tests.worker.crew import HEAD, Workers
from tests.worker.test_patch import order
from vscrapy_magic.cli import main
from vscrapy_magic.config import URL_VARIABLE
from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.session import Session
from vscrapy_magic.sender.spools import SPOOL_VARIABLE
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import CrawlState

# Fails at page 1 and 2 after some outputs, until the file is there.
FAILING = """
class S(scrapy.Spider):
    name = "s"
    async def start(self):
        for n in range(%d):
            yield page(n)
    async def parse(self, response):
        n = int(response.text)
        yield {"n": n, "part": "first"}
        yield page(100 + n, callback=self.more)
        yield page(0)
        if n in (1, 2) and not os.path.exists(%r):
            raise ValueError(f"page {n}")
        yield {"n": n, "part": "last"}
        await asyncio.sleep(%s)
    def more(self, response):
        yield {"n": int(response.text), "part": "more"}
"""


@pytest.fixture
def session(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv(SPOOL_VARIABLE, str(tmp_path / "spool"))
    with Session.connect(store.url, kind="test") as opened, Workers(store.url, "--name", "w"):
        yield opened


def begin(session: Session, source: str, **settings: float) -> Crawl:
    return session.place(msgspec.structs.replace(order(source), settings=settings))


def ended(crawl: Crawl) -> CrawlState:
    assert crawl.wait(60).over
    assert crawl.is_over
    return crawl.state


def counted(crawl: Crawl) -> Counter[tuple[int, str]]:
    return Counter((item["n"], item["part"]) for item in crawl.items)


def all_of(pages: int) -> Counter[tuple[int, str]]:
    own = [(n, part) for n in range(pages) for part in ("first", "last")]
    return Counter([*own, *((100 + n, "more") for n in range(pages))])


def test_finished_crawl_goes_on_with_its_failed_requests(session: Session, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    crawl = begin(session, FAILING % (6, str(mended), "0"))
    assert ended(crawl) is CrawlState.FINISHED
    assert len(crawl.failures) == 2
    missing = all_of(6) - counted(crawl)
    assert set(missing) == {(1, "last"), (2, "last")}
    mended.touch()

    lines = len(crawl.logs(pattern="Spider opened"))
    done = crawl.retry()
    assert (done.count, done.reopened) == (2, True)
    assert not crawl.is_over
    assert ended(crawl) is CrawlState.FINISHED
    assert counted(crawl) == all_of(6)
    assert len(crawl.failures) == 2
    assert [group.retried for group in crawl.failures.groups()] == [2]
    assert crawl.stats["retry/vretry"] == 2
    assert len(crawl.logs(pattern="Spider opened")) == lines + 1
    again = crawl.retry()
    assert (again.count, again.reopened) == (0, False)
    assert again.notes == ("2 failures were put back before",)
    assert crawl.is_over


def test_failure_that_fails_again_is_a_new_one_and_can_be_put_back(
    session: Session, tmp_path: Path
) -> None:
    mended = tmp_path / "mended"
    crawl = begin(session, FAILING % (3, str(mended), "0"))
    ended(crawl)
    assert crawl.retry().count == 2
    ended(crawl)
    assert len(crawl.failures) == 4
    assert crawl.failures[3].record.attempt == 2
    mended.touch()
    assert crawl.retry().count == 2
    ended(crawl)
    assert counted(crawl) == all_of(3)
    assert len(crawl.failures) == 4


def test_running_crawl_gets_its_failed_requests_back(session: Session, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    crawl = begin(session, FAILING % (60, str(mended), "0.2"))
    wait_until(lambda: len(crawl.failures) == 2, 20, "failures")
    mended.touch()
    done = crawl.retry(1)
    assert (done.count, done.reopened) == (2, False)
    assert ended(crawl) is CrawlState.FINISHED
    assert counted(crawl) == all_of(60)


def test_who_attaches_later_owns_what_goes_on(
    session: Session, store: Store, tmp_path: Path
) -> None:
    mended = tmp_path / "mended"
    crawl = begin(session, FAILING % (3, str(mended), "0"))
    ended(crawl)
    mended.touch()
    with Session.connect(store.url, kind="test") as other:
        again, done = other.retry(crawl.id)
        assert done.reopened
        assert ended(again) is CrawlState.FINISHED
        assert again.view.session == other.record.session
        assert counted(again) == all_of(3)
    with Session.connect(store.url, kind="test") as third:
        assert counted(third.attach(crawl.id)) == all_of(3)


def test_crawl_that_goes_on_ends_with_its_new_owner(
    session: Session, store: Store, tmp_path: Path
) -> None:
    stuck = FAILING.replace("await asyncio.sleep(%s)", "await asyncio.sleep(%s if n == 1 else 0)")
    mended = tmp_path / "mended"
    crawl = begin(session, stuck % (3, str(mended), "60"))
    ended(crawl)
    mended.touch()
    other = Session.connect(store.url, kind="test")
    again, _ = other.retry(crawl.id)
    wait_until(lambda: again.state is CrawlState.RUNNING, 20, "running")
    other.close()
    with Session.connect(store.url, kind="test") as third:
        wait_until(lambda: third.attach(crawl.id).state is CrawlState.CANCELLED, 20, "cancelled")


def test_wrong_numbers_and_crawls_without_failures_are_one_clear_line(session: Session) -> None:
    crawl = begin(session, FAILING % (1, "", "0"))
    ended(crawl)
    with pytest.raises(ConfigError, match="no failure 3: there are 0"):
        crawl.retry(3)
    assert str(crawl.retry()) == "nothing to put back"


def test_terminal_patches_and_retries(
    session: Session,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(URL_VARIABLE, store.url)
    monkeypatch.chdir(tmp_path)
    failing = FAILING % (90, "", "0")
    crawl = begin(session, failing, DOWNLOAD_DELAY=0.1)
    wait_until(lambda: len(crawl.failures) == 2, 20, "failures")
    mended = (FAILING % (90, "", "0")).replace("n in (1, 2) and", "False and")
    mended = mended.replace('"n": n,', '"n": n, "v": 2,')
    (tmp_path / "mended.py").write_text(HEAD + mended)
    assert main(["patch", crawl.id[:6], "mended.py"]) == 0
    assert f"crawl {crawl.id}: code version 2 is in force after" in capsys.readouterr().out
    assert ended(crawl) is CrawlState.FINISHED
    assert {item.get("v") for item in crawl.items} == {None, 2}
    assert crawl.source(2)[0].files["mended.py"]
    assert main(["retry", crawl.id]) == 0
    said = capsys.readouterr()
    assert f"crawl {crawl.id}: 2 failed requests are put back; the crawl goes on" in said.out
    assert "finished" in said.err
    with Session.connect(store.url, kind="test") as other:
        found = other.attach(crawl.id)
        assert {(item["n"], item["part"]) for item in found.items} == set(all_of(90))
    assert main(["patch", crawl.id, "mended.py"]) == 2
    assert "its code stays as it is" in capsys.readouterr().err


def test_requests_of_a_callback_that_was_gone_for_a_while_are_put_back(session: Session) -> None:
    gone = FAILING.replace("callback=self.more", "callback=self.parse_more")
    with_it = (gone % (50, "", "0")).replace("n in (1, 2) and", "False and")
    with_it = with_it.replace("def more(", "def parse_more(")
    without = with_it.replace("def parse_more(", "def nothing(")
    without = without.replace("yield page(100 + n, callback=self.parse_more)", "pass")
    crawl = begin(session, with_it, DOWNLOAD_DELAY=0.05)
    wait_until(lambda: len(crawl.items) > 5, 20, "items")
    crawl.patch(order(without))
    wait_until(lambda: len(crawl.failures) > 2, 20, "failures")
    assert crawl.failures[0].record.kind == "request"
    assert crawl.failures[0].record.url.startswith("data:text/plain,1")
    assert crawl.failures[0].record.code_version == 2
    crawl.patch(order(with_it))
    assert ended(crawl) is CrawlState.FINISHED
    failed = len(crawl.failures)
    assert crawl.retry().count == failed
    ended(crawl)
    assert len(crawl.failures) == failed
    items = counted(crawl)
    assert set(items.values()) == {1}
    lost = {int(each.record.url.partition(",")[2]) for each in crawl.failures}
    assert {(n, "more") for n in lost} <= set(items)


SECRET = """
class S(scrapy.Spider):
    name = "s"
    async def start(self):
        yield scrapy.Request("data:text/plain,1", headers={"Authorization": "Bearer abcdef"})
    def parse(self, response):
        if not os.path.exists(%r):
            raise ValueError("page 1")
        yield {"sent": response.request.headers.get("Authorization", b"").decode()}
"""


@pytest.mark.parametrize(("kept", "sent"), [(False, ""), (True, "Bearer abcdef")])
def test_secret_header_that_is_left_out_is_named_with_what_keeps_it(
    session: Session, tmp_path: Path, kept: bool, sent: str
) -> None:
    mended = tmp_path / "mended"
    crawl = begin(session, SECRET % str(mended), VSCRAPY_FAILURE_SECRETS=kept)
    ended(crawl)
    mended.touch()
    done = crawl.retry()
    ended(crawl)
    assert list(crawl.items) == [{"sent": sent}]
    warnings = [note for note in done.notes if note.startswith("WARNING: 1 of them")]
    assert len(warnings) == (not kept)
    assert all("Authorization" in note and "VSCRAPY_FAILURE_SECRETS" in note for note in warnings)
