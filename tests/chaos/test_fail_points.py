"""One process of a worker, or several, are killed at each named place: the crawl gives what it must.

Two workers share each crawl; those that are to die belong to one of them, and whoever is started in
their stead goes on. The sender's places and those of the local cluster have files of their own.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.crew import Crew
from tests.chaos.deaths import Deaths
from tests.chaos.scene import Expected, order, wait_until_swept
from tests.chaos.takeover import Takeovers
from tests.waiting import wait_until
from tests.worker.crew import workers
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.sender.session import Session
from vscrapy_magic.sender.spool import SPOOL_VARIABLE
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.server import EmbeddedServer

CHILD = (
    *("child_before_join", "after_lease:3", "before_commit:3", "after_commit_before_ack:3"),
    *("mid_part", "child_before_leave", "child_after_leave"),
)
SUPERVISOR = (
    *("supervisor_before_fork", "supervisor_after_fork", "supervisor_before_renew"),
    *("supervisor_before_lines:2", "supervisor_before_bury"),
)
ZYGOTE = ("zygote_before_fork", "zygote_after_fork", "zygote_before_exit_told")
SEVERAL = (
    ("after_lease:3", "supervisor_before_bury"),
    ("zygote_after_fork", "before_commit:3", "child_before_leave"),
    ("mid_part", "zygote_before_exit_told", "supervisor_before_renew:3"),
)
POINTS = (*CHILD, *SUPERVISOR, *ZYGOTE)
DOOMED, STEADY = "doomed", "steady"
PER_DOMAIN = 2  # requests at once of both workers: a crawl of two seconds
ENDS_WITHIN_S = 60.0
DIES_WITHIN_S = 10.0
TAKEN_OVER_WITHIN_S = 3 * 5.0  # 5 s are promised
SESSION_TTL_MS = 60_000  # the sender is not what is under fire here


class Stage:
    """A server that keeps every write, a session, and a worker that nobody kills."""

    def __init__(self, folder: Path, url: str, store: Store, session: Session, crew: Crew) -> None:
        self.folder = folder
        self.url = url
        self.store = store
        self.session = session
        self.crew = crew

    def takeovers_s(self, deaths: Deaths, site: DemoSite, expected: Expected) -> list[float]:
        """Run a crawl while they die; how long leases of dead workers waited for others."""
        site.reset()
        crawl = order(self.session, site, CONCURRENT_REQUESTS_PER_DOMAIN=PER_DOMAIN)
        with Takeovers(self.url, crawl.id) as takeovers:
            deadline = time.monotonic() + ENDS_WITHIN_S
            while not crawl.is_over and time.monotonic() < deadline:
                if self.crew.has_died(DOOMED):
                    takeovers.expect_of_worker(DOOMED)
                    self.crew.come_back(DOOMED)
                time.sleep(0.01)
        expected.is_given_by(crawl, 1.0)
        wait_until(lambda: not deaths.missing(), DIES_WITHIN_S, f"not killed at {deaths.missing()}")
        self.crew.restore(self.store)
        wait_until_swept(self.store, crawl)
        return takeovers.seconds()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = Path(tempfile.mkdtemp(prefix="vs-", dir="/tmp"))
    with (
        pytest.MonkeyPatch.context() as patch,
        EmbeddedServer(folder / "s") as server,
        Store.connect(server.url) as store,
    ):
        patch.setenv(SPOOL_VARIABLE, str(folder / "spool"))
        with (
            Session.connect(server.url, kind="python", ttl_ms=SESSION_TTL_MS) as session,
            Crew(server.url) as crew,
        ):
            crew.start(STEADY)
            crew.restore(store)
            yield Stage(folder, server.url, store, session, crew)
    shutil.rmtree(folder)


@pytest.mark.parametrize("points", [*((point,) for point in POINTS), *SEVERAL], ids="+".join)
def test_who_dies_at_a_named_place_loses_and_repeats_nothing_and_leaves_nothing(
    stage: Stage,
    site: DemoSite,
    expected: Expected,
    tmp_path: Path,
    points: tuple[str, ...],
) -> None:
    deaths, own_tmp = Deaths(tmp_path / "deaths", *points), tmp_path / "tmp"
    own_tmp.mkdir()
    stage.crew.start(DOOMED, TMPDIR=str(own_tmp), **deaths.environment)
    try:
        stage.crew.restore(stage.store)
        takeovers_s = stage.takeovers_s(deaths, site, expected)
        print(takeovers_s)
    finally:
        print(stage.crew.text())
        stage.crew.dismiss(DOOMED)
    assert max(takeovers_s, default=0.0) < TAKEN_OVER_WITHIN_S
    print(list(own_tmp.iterdir()))
    assert set(workers(stage.store)) == {STEADY}
