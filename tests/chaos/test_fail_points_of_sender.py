"""A sender, its heartbeat and its writer of feeds are killed at named places: nothing is lost."""

import json
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.deaths import Deaths
from tests.chaos.scene import SPIDER, Expected, wait_until_swept
from tests.chaos.stage import Stage, a_stage
from tests.e2e.terminal import Terminal
from tests.runtime.crawling import plain
from tests.waiting import wait_until
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.spools import SPOOL_VARIABLE
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.keys import crawl_key
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.views import CrawlView

SENDER = (
    *("sender_before_spool", "spool_mid_write", "sender_after_spool_before_ack"),
    "sender_after_ack",
)
FEED = ("feed_mid_item:9", "feed_before_close")
# Time to live of the session, and what its crawl says at last. A heartbeat that is later than this,
# on a loaded machine, hears that its session was judged, and does not come to where it is to die.
BEACON = {
    "beacon_before_end_session": ("4", r"its sender was not heard of for \d+ s"),
    "beacon_before_cancel": ("30", "its sender is gone"),
}
ENDS_WITHIN_S = 60.0
SLACK = 3  # a loaded machine
JUDGED_WITHIN_S = SLACK * 8.0  # TTL, two beats of a worker, and the look that follows
DELAY_S = 0.15
ITEMS = 20  # have come when the sender is killed


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with a_stage("w1", "w2") as stage:
        yield stage


@pytest.fixture
def terminal(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Its spool is that of this process too."""
    terminal = Terminal(tmp_path / "home", stage.url)
    terminal.environment[SPOOL_VARIABLE] = str(stage.folder / "spool")
    monkeypatch.chdir(tmp_path)
    return terminal


def words(site: DemoSite, *more: str) -> tuple[str, ...]:
    site.reset()
    few = ("-s", "CONCURRENT_REQUESTS_PER_DOMAIN=2")
    return ("runspider", str(SPIDER), "--nolog", "-a", f"site={site.url}", *few, *more)


def newest(stage: Stage) -> CrawlView:
    return max(Crawls(stage.store).list_all(), key=lambda view: view.created_ms)


def nobody_works(stage: Stage, crawl: Crawl) -> None:
    wait_until_swept(stage.store, crawl)
    wait_until(lambda: not stage.crew.children(), ENDS_WITHIN_S, "children are left")


def test_who_collects_a_crawl_is_killed_at_each_place_and_the_next_one_gets_what_a_local_run_gives(
    stage: Stage,
    terminal: Terminal,
    site: DemoSite,
    expected: Expected,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slowly = ("-s", f"DOWNLOAD_DELAY={DELAY_S}")  # each of them is to find something new
    placed = terminal.run(tmp_path, *words(site, "--detach", "-O", "out.jsonl", *slowly))
    assert placed.returncode == 0, placed.stderr
    crawl_id = newest(stage).crawl_id
    own = dict(terminal.environment)
    for point in SENDER:
        # The writer of feeds dies in one of these runs, before its sender or after it.
        deaths = Deaths(tmp_path / point, point, FEED[0])
        terminal.environment = own | deaths.environment
        assert terminal.run(tmp_path, "attach", crawl_id).returncode == -signal.SIGKILL, point
        assert not deaths.missing() - {"feed_mid_item"}
    deaths = Deaths(tmp_path / "last", *FEED)
    for name, value in deaths.environment.items():
        monkeypatch.setenv(name, value)
    crawl = stage.session.attach(crawl_id)
    expected.is_given_by(crawl, ENDS_WITHIN_S)
    assert not deaths.missing()
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert Counter(plain(json.loads(line)) for line in lines) == expected.items
    restarted, stored = crawl.feeds
    assert restarted == "feeds: their writer was killed (signal 9) and started again"
    assert stored.startswith(f"Stored jsonl feed ({len(lines)} items) in: out.jsonl")
    nobody_works(stage, crawl)
    crawl.close()
    only_a_witness = 1
    assert stage.store.client.xlen(crawl_key(crawl.id, "out")) == only_a_witness


@pytest.mark.parametrize("point", BEACON)
def test_a_sender_and_its_heartbeat_are_killed_together_and_the_crawl_ends_everywhere(
    stage: Stage,
    terminal: Terminal,
    site: DemoSite,
    expected: Expected,
    tmp_path: Path,
    point: str,
) -> None:
    ttl_s, why = BEACON[point]
    deaths = Deaths(tmp_path / "deaths", point)
    terminal.environment |= {"VSCRAPY_SESSION_TTL_S": ttl_s, **deaths.environment}
    before = {view.crawl_id for view in Crawls(stage.store).list_all()}
    with terminal.start(tmp_path, *words(site, "--keep-open")) as sender:
        wait_until(
            lambda: newest_but(stage, before) and newest(stage).totals.items >= ITEMS,
            ENDS_WITHIN_S,
            "items",
        )
        sender.kill()
        sender.wait(10)
    wait_until(lambda: newest(stage).over, JUDGED_WITHIN_S, "the verdict of the others")
    wait_until(lambda: not deaths.missing(), JUDGED_WITHIN_S, "the death of the heartbeat")
    view = newest(stage)
    assert view.state is CrawlState.CANCELLED
    assert re.fullmatch(why, view.why), view.why
    crawl = stage.session.attach(view.crawl_id)
    crawl.wait(ENDS_WITHIN_S)
    assert not expected.repeated(crawl)
    assert ITEMS <= len(crawl.items) == view.totals.items
    nobody_works(stage, crawl)
    crawl.close()


def newest_but(stage: Stage, known: set[str]) -> bool:
    return bool({view.crawl_id for view in Crawls(stage.store).list_all()} - known)
