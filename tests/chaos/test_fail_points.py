"""Processes of a worker are killed at named places, one or several of a crawl: it stays exact.

Those that are to die belong to one worker, and whoever is started in their stead goes on. In the
normal run each place has its death, most together with others; each alone is `-m soak`. Places of
senders and of the local cluster have files of their own.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.deaths import Deaths, name_of
from tests.chaos.scene import Expected, order, wait_until_swept
from tests.chaos.stage import Stage, a_stage
from tests.chaos.takeover import Takeovers
from tests.waiting import wait_until
from tests.worker.crew import workers
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.sender.crawl import Crawl

CHILD = (
    *("child_before_join", "after_lease:3", "before_commit:3", "after_commit_before_ack:3"),
    *("mid_part", "child_before_leave", "child_after_leave"),
)
SUPERVISOR = (
    *("supervisor_before_fork", "supervisor_after_fork", "supervisor_before_renew"),
    *("supervisor_before_lines:2", "supervisor_before_bury"),
)
ZYGOTE = ("zygote_before_fork", "zygote_after_fork", "zygote_before_exit_told")
POINTS = (*CHILD, *SUPERVISOR, *ZYGOTE)
# The worker has nobody beside it: who dies second is there because the first came back.
ALONE = (
    ("supervisor_before_renew", "mid_part"),
    ("supervisor_before_bury", "after_lease:3"),
    ("zygote_before_fork", "child_before_leave"),
    ("zygote_before_exit_told", "before_commit:3"),
)
# Another worker takes over what it held.
BESIDE = (
    ("supervisor_before_fork",),
    ("supervisor_after_fork",),
    ("supervisor_before_lines:2",),
    ("zygote_after_fork", "after_commit_before_ack:3"),
    ("child_before_join", "child_after_leave"),
)
DOOMED, STEADY = "doomed", "steady"
PER_DOMAIN = 2  # requests at once of both workers: a crawl of two seconds
ENDS_WITHIN_S = 60.0
DIES_WITHIN_S = 10.0
LOOK_S = 0.01
TAKEN_OVER_WITHIN_S = 3 * 5.0  # 5 s are promised


@pytest.fixture(scope="module")
def alone() -> Iterator[Stage]:
    with a_stage() as stage:
        yield stage


@pytest.fixture(scope="module")
def beside() -> Iterator[Stage]:
    with a_stage(STEADY) as stage:
        yield stage


def play(stage: Stage, site: DemoSite, deaths: Deaths) -> tuple[Crawl, list[float]]:
    """Run a crawl while they die; also how long leases of a dead supervisor waited."""
    site.reset()
    crawl = order(stage.session, site, CONCURRENT_REQUESTS_PER_DOMAIN=PER_DOMAIN)
    with Takeovers(stage.url, crawl.id) as takeovers:
        deadline = time.monotonic() + ENDS_WITHIN_S
        while not crawl.is_over and time.monotonic() < deadline:
            if stage.crew.has_died(DOOMED):
                takeovers.expect_of_worker(DOOMED)
                stage.crew.come_back(DOOMED)
            time.sleep(LOOK_S)
    wait_until(lambda: not deaths.missing(), DIES_WITHIN_S, f"not killed at {deaths.missing()}")
    return crawl, takeovers.seconds()


def check(
    stage: Stage,
    site: DemoSite,
    expected: Expected,
    folder: Path,
    points: tuple[str, ...],
) -> None:
    deaths, tmp = Deaths(folder / "deaths", *points), folder / "tmp"
    tmp.mkdir()
    stage.crew.start(DOOMED, TMPDIR=str(tmp), **deaths.environment)
    try:
        stage.crew.restore(stage.store)
        crawl, takeovers_s = play(stage, site, deaths)
        expected.is_given_by(crawl, 1.0)
        assert max(takeovers_s, default=0.0) < TAKEN_OVER_WITHIN_S
        stage.crew.restore(stage.store)  # the dead are there again, and nobody was lost
        wait_until_swept(stage.store, crawl)
    finally:
        print(stage.crew.text())
        stage.crew.dismiss(DOOMED)
    assert stage.crew.names_of_processes() <= {STEADY}
    assert set(workers(stage.store)) <= {STEADY}
    left = list(tmp.iterdir())
    killed = [pid for name, pid in deaths.pids().items() if name in map(name_of, SUPERVISOR)]
    assert len(left) <= len(killed), f"{left} of {len(killed)} killed supervisors"


@pytest.mark.parametrize("points", ALONE, ids="+".join)
def test_the_only_worker_goes_on_where_its_dead_were(
    alone: Stage, site: DemoSite, expected: Expected, tmp_path: Path, points: tuple[str, ...]
) -> None:
    check(alone, site, expected, tmp_path, points)


@pytest.mark.parametrize("points", BESIDE, ids="+".join)
def test_two_workers_give_what_a_local_run_gives_when_processes_of_one_die(
    beside: Stage, site: DemoSite, expected: Expected, tmp_path: Path, points: tuple[str, ...]
) -> None:
    check(beside, site, expected, tmp_path, points)


@pytest.mark.soak
@pytest.mark.parametrize("point", POINTS)
def test_one_death_of_the_only_worker(
    alone: Stage, site: DemoSite, expected: Expected, tmp_path: Path, point: str
) -> None:
    check(alone, site, expected, tmp_path, (point,))


@pytest.mark.soak
@pytest.mark.parametrize("point", POINTS)
def test_one_death_of_one_of_two_workers(
    beside: Stage, site: DemoSite, expected: Expected, tmp_path: Path, point: str
) -> None:
    check(beside, site, expected, tmp_path, (point,))


def test_every_place_of_a_worker_has_its_death_in_the_normal_run() -> None:
    assert sorted(point for run in (*ALONE, *BESIDE) for point in run) == sorted(POINTS)
