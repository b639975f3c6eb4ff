"""Random faults: three workers, a sender and a site, and a seeded schedule of what happens to them.

`Scene` is the place: a server that keeps every write, workers that are started again when they
were killed, a session. `Scene.trial` runs one crawl under one `Plan` and says what came of it; the
same seed makes the same plan. Used by the tests here and by `benchmarks/chaos.py`.
"""

import enum
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

from tests.chaos.crew import UP_WITHIN_S, Crew
from tests.chaos.scene import Expected, keys_left, order
from tests.chaos.takeover import Takeovers
from tests.waiting import wait_until
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.session import Session
from vscrapy_magic.sender.spools import SPOOL_VARIABLE
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.frontier import MEMBER_TTL_MS
from vscrapy_magic.store.server import EmbeddedServer

WORKERS = 3
PAGES = 300
DELAY_MS = 40
PER_DOMAIN = 6  # requests at once, of all workers together: a crawl of some seconds
FAULTS = 3  # of one trial
FAULTS_WITHIN_S = 3.0  # after the first items
TTL_S = MEMBER_TTL_MS / 1000
STOPPED_S = (1.2 * TTL_S, 1.6 * TTL_S)  # beyond the lease
FROZEN_TTLS = 3
BACK_AFTER_S = (0.1, 1.5)  # a killed supervisor is started again
ENDS_WITHIN_S = 60.0  # a crawl that takes longer hangs
SESSION_TTL_MS = 60_000  # the sender is not what is under fire here


class Kind(enum.StrEnum):
    """What may happen."""

    KILL_CHILD = "kill -9 a child"
    KILL_SUPERVISOR = "kill -9 a supervisor"
    KILL_ZYGOTE = "kill -9 a zygote"
    KILL_SERVER = "kill -9 the server"
    STOP_CHILD = "stop a child beyond the lease"
    STOP_SUPERVISOR = "stop a supervisor beyond the lease"
    STOP_WORKER = "stop a whole worker beyond the lease"
    CUT = "cut all connections"
    FREEZE = "freeze all for 3 TTLs"


STOPS = frozenset({Kind.STOP_CHILD, Kind.STOP_SUPERVISOR, Kind.STOP_WORKER})
# Time in which nobody could take anything over, or not all of those who should.
STANDING_STILL = STOPS | {Kind.FREEZE, Kind.KILL_SERVER}


@dataclass(frozen=True)
class Fault:
    """One thing that happens.

    Attributes:
        at_s: after the first items.
        draw: in [0, 1); chooses the victim among those that are there.
        lasts_s: until what was stopped goes on, or what was killed is started again.
    """

    kind: Kind
    at_s: float
    draw: float
    lasts_s: float


@dataclass(frozen=True)
class Plan:
    """What happens in one trial."""

    seed: int
    faults: tuple[Fault, ...]

    @classmethod
    def of(
        cls,
        seed: int,
        kinds: Sequence[Kind],
        count: int = FAULTS,
        *,
        frozen_ttls: float = FROZEN_TTLS,
    ) -> "Plan":
        """So many faults of these kinds, at random moments."""
        rng = random.Random(seed)
        faults = []
        for _ in range(count):
            kind = rng.choice(list(kinds))
            lasts_s = rng.uniform(*BACK_AFTER_S)
            if kind in STOPS:
                lasts_s = rng.uniform(*STOPPED_S)
            elif kind is Kind.FREEZE:
                lasts_s = frozen_ttls * TTL_S
            faults.append(Fault(kind, rng.uniform(0, FAULTS_WITHIN_S), rng.random(), lasts_s))
        return cls(seed, tuple(sorted(faults, key=lambda fault: fault.at_s)))


@dataclass
class Trial:
    """What came of one plan.

    Attributes:
        done: what was done to whom; a fault that found no victim is not in it.
        takeovers_s: from each kill until the leases of the dead were with others; only where all
            others could work meanwhile.
        differences: from a local run; empty when all is exact.
    """

    plan: Plan
    done: list[str] = field(default_factory=list)
    kinds: set[Kind] = field(default_factory=set)
    lost: int = 0
    repeated: int = 0
    hung: bool = False
    again: int = 0
    wall_s: float = 0.0
    takeovers_s: list[float] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    log: str = ""

    @property
    def is_exact(self) -> bool:
        return not (self.hung or self.differences)

    def __str__(self) -> str:
        worst = max(self.takeovers_s, default=0.0)
        what = "hung" if self.hung else "; ".join(self.differences) or "exact"
        return (
            f"seed {self.plan.seed}: {what}; {self.wall_s:.1f} s, takeover {worst:.2f} s, "
            f"{self.again} pages again; {', '.join(self.done)}"
        )


class Scene:
    """A place for trials, one after another; a context manager, for one thread."""

    def __init__(self, *, pages: int = PAGES, delay_ms: int = DELAY_MS) -> None:
        self._pages = pages
        self._delay_ms = delay_ms
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        enter = self._stack.enter_context
        try:
            self._folder = Path(enter(tempfile.TemporaryDirectory(prefix="vs-")))
            enter(_environment(SPOOL_VARIABLE, str(self._folder / "spool")))
            self._site = enter(DemoSite(pages=self._pages, delay_ms=self._delay_ms))
            self._expected = Expected.of(self._site, self._folder)
            self._server = enter(EmbeddedServer(self._folder / "s"))
            self._store = enter(Store.connect(self._server.url))
            self._session = enter(
                Session.connect(self._server.url, kind="python", ttl_ms=SESSION_TTL_MS)
            )
            self._crew = enter(Crew(self._server.url))
            for number in range(1, WORKERS + 1):
                self._crew.start(f"w{number}")
            self._crew.restore(self._store)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # One trial.

    def trial(self, plan: Plan) -> Trial:
        """Run a crawl while the plan happens; the scene is whole again afterwards."""
        trial = Trial(plan)
        self._crew.restore(self._store)
        self._site.reset()
        begun = time.monotonic()
        crawl = order(self._session, self._site, CONCURRENT_REQUESTS_PER_DOMAIN=PER_DOMAIN)
        with Takeovers(self._server.url, crawl.id) as takeovers:
            self._happen(plan, crawl, trial, takeovers)
            crawl.wait(ENDS_WITHIN_S)
            trial.wall_s = time.monotonic() - begun
            if not trial.kinds & STANDING_STILL:
                trial.takeovers_s = takeovers.seconds()
        self._judge(crawl, trial)
        return trial

    def _happen(self, plan: Plan, crawl: Crawl, trial: Trial, takeovers: Takeovers) -> None:
        wait_until(lambda: crawl.view.totals.items or crawl.is_over, UP_WITHIN_S, "items")
        begun = time.monotonic()
        later: list[threading.Timer] = []
        for fault in plan.faults:
            time.sleep(max(0.0, begun + fault.at_s - time.monotonic()))
            if crawl.view.over:
                break
            done = self._strike(fault, takeovers, later)
            if done:
                trial.kinds.add(fault.kind)
                trial.done.append(f"{time.monotonic() - begun:.2f} s {fault.kind} ({done})")
        for timer in later:
            timer.join()

    def _strike(self, fault: Fault, takeovers: Takeovers, later: list[threading.Timer]) -> str:
        """Do it; says to whom, and nothing when nobody was there for it."""
        if fault.kind is Kind.CUT:
            count = self._store.client.client_kill_filter(_type="normal", skipme=True)
            return f"{count} of them"
        if fault.kind is Kind.KILL_SERVER:
            self._server.kill()
            self._server.start()
            return "started again"
        if fault.kind is Kind.FREEZE:
            return self._freeze(fault.lasts_s)
        victims = {
            Kind.KILL_CHILD: self._crew.children,
            Kind.STOP_CHILD: self._crew.children,
            Kind.KILL_ZYGOTE: self._crew.zygotes,
        }.get(fault.kind, self._crew.supervisors)()
        if not victims:
            return ""
        victim = victims[int(fault.draw * len(victims))]
        if fault.kind in {Kind.KILL_CHILD, Kind.KILL_ZYGOTE, Kind.KILL_SUPERVISOR}:
            return self._kill(fault, victim, takeovers, later)
        stopped = [victim]
        if fault.kind is Kind.STOP_WORKER:
            stopped += victim.children(recursive=True)
        for process in stopped:
            _signal(process, signal.SIGSTOP)
        later.append(_after(fault.lasts_s, lambda: _go_on(stopped)))
        return f"{len(stopped)} processes for {fault.lasts_s:.1f} s"

    def _kill(
        self,
        fault: Fault,
        victim: psutil.Process,
        takeovers: Takeovers,
        later: list[threading.Timer],
    ) -> str:
        name = self._crew.name_of(victim.pid)
        if fault.kind is Kind.KILL_CHILD:
            takeovers.expect_of_pid(victim.pid)
        elif name:
            takeovers.expect_of_worker(name)
        _signal(victim, signal.SIGKILL)
        if name:
            self._crew[name].wait(10)
            later.append(_after(fault.lasts_s, lambda: self._crew.come_back(name)))
        return f"{name or victim.pid}"

    def _freeze(self, seconds: float) -> str:
        """All stand still, as on a suspended laptop; the site is elsewhere."""
        assert self._server.pid is not None
        frozen = [psutil.Process(self._server.pid), psutil.Process(self._session._beacon.pid)]
        frozen += self._crew.processes()
        for process in frozen:
            _signal(process, signal.SIGSTOP)
        time.sleep(seconds)
        _go_on(frozen)
        return f"{len(frozen)} processes for {seconds:.1f} s"

    def _judge(self, crawl: Crawl, trial: Trial) -> None:
        if not crawl.is_over:
            trial.hung = True
            trial.differences.append(f"hung: {crawl.view} {crawl.view.why} {crawl.view.totals}")
            crawl.stop(now=True)
            crawl.wait(10)
        trial.lost = self._expected.lost(crawl).total() if not trial.hung else 0
        trial.repeated = self._expected.repeated(crawl).total()
        if not trial.hung:
            trial.differences += self._expected.differences(crawl)
        trial.again = sum(hits - 1 for hits in self._site.hits().values())
        trial.log = "\n".join(
            f"{line.time_ms / 1000:.2f} {line.worker} {line.source} {line.text}"
            for line in crawl.logs()
        )
        trial.log += self._crew.text()
        self._crew.restore(self._store)
        with suppress(AssertionError):
            wait_until(lambda: not keys_left(self._store, crawl), 20)
        if left := keys_left(self._store, crawl):
            trial.differences.append(f"keys left: {sorted(left)}")


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.Error):
        process.send_signal(number)


def _go_on(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        _signal(process, signal.SIGCONT)


def _after(seconds: float, call: object) -> threading.Timer:
    timer = threading.Timer(seconds, call)  # type: ignore[arg-type]
    timer.start()
    return timer


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
