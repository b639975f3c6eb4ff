"""Keeper, server and beacon of a user's local cluster are killed at named places: crawls go on."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tests.chaos.deaths import Deaths
from tests.chaos.scene import Expected, order, wait_until_swept
from tests.clusters import ENDED_WITHIN_S, cluster_home, processes
from tests.waiting import wait_until
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.session import Session
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.views import CrawlView

KEEPER = ("keeper_before_server", "keeper_after_server", "keeper_before_workers")
BEACON = ("beacon_before_beat:3",)
IDLE_S = "1.5"  # without a session the cluster ends
ENDS_WITHIN_S = 60.0
ITEMS = 20  # have come when something is killed
BACK = r"the server answers again, after \d+ s"
SERVER = ("valkey-server", "unixsocket:")


class Sayings:
    """What a crawl's sender itself says of it."""

    def __init__(self, crawl: Crawl) -> None:
        self.texts: list[str] = []
        crawl.listen(self)

    def lines(self, lines: Sequence[LogLine]) -> None:
        self.texts += [line.text for line in lines if line.worker == "sender"]

    def are_of_one_absence(self) -> bool:
        """One line when the server was away, one when it was there again."""
        pattern = r"the server at unix://\S* does not answer \(.*\n" + BACK
        return bool(re.fullmatch(pattern, "\n".join(self.texts)))

    def view(self, view: CrawlView) -> None:
        """Not of interest."""

    def ended(self, view: CrawlView) -> None:
        """Not of interest."""


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, own_spool: Path) -> Iterator[Path]:
    with cluster_home(monkeypatch, idle_s=IDLE_S) as folder:
        yield folder
        # By itself, because nobody needs it any more.
        wait_until(lambda: not processes(folder), ENDED_WITHIN_S, f"left: {processes(folder)}")
        assert not (folder / "vscrapy" / "cluster").exists()


def doomed(monkeypatch: pytest.MonkeyPatch, folder: Path, *points: str) -> Deaths:
    """Whoever is started from now on dies there, once for each of these places."""
    deaths = Deaths(folder / "deaths", *points)
    for name, value in deaths.environment.items():
        monkeypatch.setenv(name, value)
    return deaths


def begin(session: Session, site: DemoSite) -> Crawl:
    site.reset()
    return order(session, site, CONCURRENT_REQUESTS_PER_DOMAIN=2)


def kill(home: Path, *words: str) -> psutil.Process:
    (victim,) = processes(home, *words)
    victim.kill()
    return victim


@pytest.mark.parametrize(
    "points",
    [KEEPER, *(pytest.param((point,), marks=pytest.mark.soak) for point in KEEPER)],
    ids="+".join,
)
def test_a_keeper_that_is_killed_while_it_starts_has_a_successor_at_once(
    home: Path,
    site: DemoSite,
    expected: Expected,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    points: tuple[str, ...],
) -> None:
    deaths = doomed(monkeypatch, tmp_path, *points)
    with Session.connect(workers=2) as session:
        crawl = begin(session, site)
        expected.is_given_by(crawl, ENDS_WITHIN_S)
        assert not deaths.missing()
        assert len(processes(home, "store.keeper")) == len(processes(home, *SERVER)) == 1
        wait_until_swept(session.store, crawl)


@pytest.mark.parametrize(
    "points",
    [
        ("keeper_before_server:2",),
        pytest.param(("keeper_after_server:2",), marks=pytest.mark.soak),
        pytest.param((), marks=pytest.mark.soak),
    ],
    ids="+".join,
)
def test_a_server_that_is_killed_in_the_middle_of_a_crawl_costs_time_and_so_does_its_keeper(
    home: Path,
    site: DemoSite,
    expected: Expected,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    points: tuple[str, ...],
) -> None:
    deaths = doomed(monkeypatch, tmp_path, *points)
    with Session.connect(workers=2) as session:
        crawl = begin(session, site)
        said = Sayings(crawl)
        wait_until(lambda: len(crawl.items) >= ITEMS, ENDS_WITHIN_S, "items")
        kill(home, *SERVER)
        expected.is_given_by(crawl, ENDS_WITHIN_S)
        assert not deaths.missing()
        assert not said.texts or said.are_of_one_absence()
        wait_until_swept(session.store, crawl)


def test_a_killed_keeper_is_told_of_in_one_line_and_its_crawl_goes_on_with_the_next(
    home: Path,
    site: DemoSite,
    expected: Expected,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deaths = doomed(monkeypatch, tmp_path, *BEACON, "keeper_before_workers")
    with Session.connect(workers=2) as session:
        crawl = begin(session, site)
        said = Sayings(crawl)
        wait_until(lambda: len(crawl.items) >= ITEMS, ENDS_WITHIN_S, "items")
        kill(home, "store.keeper")
        expected.is_given_by(crawl, ENDS_WITHIN_S)
        assert not deaths.missing()
        assert said.are_of_one_absence(), said.texts
        wait_until_swept(session.store, crawl)
        after = session.store.run_id()
    with Session.connect(workers=2) as session:
        assert session.store.run_id() == after
