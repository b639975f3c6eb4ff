"""What faults cost, beside scrapy-redis 0.9.1 on the same site: `python -m benchmarks.chaos`.

Three workers, and three `scrapy runspider` with scrapy-redis, run the same unmodified spider (items
of `start()`, 1,200 items of one page, slow callbacks, exceptions, dropped items, duplicates) while
the same seeded plan happens to them. What was killed is started again a moment later, and their
queue is kept. Items are compared with those of a plain Scrapy. Items of `start()` itself are left
out on both sides: scrapy-redis runs it in every process. Its server keeps every write, as ours.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.measure import cluster, conditions, table
from benchmarks.peers import PEER, SETTINGS, environment
from tests.chaos.harness import (
    DELAY_MS,
    ENDS_WITHIN_S,
    PAGES,
    PER_DOMAIN,
    STOPS,
    WORKERS,
    Fault,
    Kind,
    Plan,
    Scene,
    Trial,
)
from tests.chaos.scene import SPIDER, Expected
from tests.runtime.crawling import plain
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.server import EmbeddedServer

LOOK_S = 0.02
MIXED = 3  # faults of a trial of all kinds
FIRST_SEED = 1
OF_START = "'kind', 'start'"
PIPELINES = {f"{SPIDER.stem}.FewPipeline": 300, "scrapy_redis.pipelines.RedisPipeline": 400}
ITEMS, QUEUE = "rough:items", "rough:requests"
# Their process is worker, child and supervisor in one.
THEIR_KILLS = frozenset({Kind.KILL_CHILD, Kind.KILL_SUPERVISOR, Kind.KILL_ZYGOTE})


@dataclass
class Row:
    """Trials of one kind of fault, on one side."""

    trials: int = 0
    happened: int = 0
    exact: int = 0
    lost: int = 0
    worst_lost: int = 0
    repeated: int = 0
    hung: int = 0
    again: int = 0
    wall_s: float = 0.0
    takeovers_s: list[float] = field(default_factory=list)

    def add(self, trial: Trial) -> None:
        self.trials += 1
        self.happened += len(trial.done)
        self.exact += trial.is_exact
        self.lost += trial.lost
        self.worst_lost = max(self.worst_lost, trial.lost)
        self.repeated += trial.repeated
        self.hung += trial.hung
        self.again += trial.again
        self.wall_s += trial.wall_s
        self.takeovers_s += trial.takeovers_s

    def cells(self) -> list[str]:
        worst = f"{max(self.takeovers_s):.2f} ({len(self.takeovers_s)})" if self.takeovers_s else ""
        return [
            *(str(self.trials), str(self.happened), str(self.exact)),
            *(f"{self.lost} ({self.worst_lost})", str(self.repeated), str(self.hung), worst),
            *(f"{self.again / self.trials:.1f}", f"{self.wall_s / self.trials:.1f}"),
        ]


class PeerScene:
    """Three processes with scrapy-redis, beside a server of their own."""

    def __init__(self, python: Path, server: EmbeddedServer, site: DemoSite, folder: Path) -> None:
        self._python = python
        self._server = server
        self._site = site
        self._folder = folder
        self._expected = _without_start(Expected.of(site, folder).items)
        self._lock = threading.Lock()
        self._running: list[subprocess.Popen[bytes]] = []

    def trial(self, plan: Plan) -> Trial:
        trial = Trial(plan)
        self._site.reset()
        with Store.connect(self._server.url) as store:
            store.client.flushall()
        begun = time.monotonic()
        self._running = [self._started() for _ in range(WORKERS)]
        later = self._happen(plan, trial)
        for timer in later:
            timer.join()
        trial.hung = not self._ended(begun + ENDS_WITHIN_S)
        trial.wall_s = time.monotonic() - begun
        with Store.connect(self._server.url) as store:
            raw = store.client.lrange(ITEMS, 0, -1)
        found = _without_start(Counter(plain(json.loads(one)) for one in raw))
        trial.lost = (self._expected - found).total()
        trial.repeated = (found - self._expected).total()
        trial.again = sum(hits - 1 for hits in self._site.hits().values())
        if trial.lost or trial.repeated:
            trial.differences.append(f"lost {trial.lost}, repeated {trial.repeated}")
        return trial

    def _started(self) -> subprocess.Popen[bytes]:
        settings = {
            **SETTINGS,
            "ITEM_PIPELINES": json.dumps(PIPELINES),
            "REDIS_URL": self._server.url,
            # Which lets each have its part, so that the sums of both sides are equal.
            "CONCURRENT_REQUESTS_PER_DOMAIN": str(PER_DOMAIN // WORKERS),
        }
        options = [part for name, value in settings.items() for part in ("-s", f"{name}={value}")]
        return subprocess.Popen(
            [
                *(str(self._python), "-m", "scrapy", "runspider", str(SPIDER)),
                *("-a", f"site={self._site.url}", "-L", "INFO", *options),
            ],
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": str(SPIDER.parent)},
            stderr=subprocess.DEVNULL,
        )

    def _happen(self, plan: Plan, trial: Trial) -> list[threading.Timer]:
        self._wait_for_items()
        begun = time.monotonic()
        later: list[threading.Timer] = []
        for fault in plan.faults:
            time.sleep(max(0.0, begun + fault.at_s - time.monotonic()))
            if not self._living():
                break
            self._strike(fault, later)
            trial.kinds.add(fault.kind)
            trial.done.append(str(fault.kind))
        return later

    def _wait_for_items(self) -> None:
        with Store.connect(self._server.url) as store:
            while self._living() and not store.client.llen(ITEMS):
                time.sleep(LOOK_S)

    def _strike(self, fault: Fault, later: list[threading.Timer]) -> None:
        living = self._living()
        victim = living[int(fault.draw * len(living))]
        if fault.kind is Kind.CUT:
            with Store.connect(self._server.url) as store:
                store.client.client_kill_filter(_type="normal", skipme=True)
        elif fault.kind is Kind.KILL_SERVER:
            self._server.kill()
            self._server.start()
        elif fault.kind is Kind.FREEZE:
            assert self._server.pid is not None
            frozen = [self._server.pid, *(process.pid for process in living)]
            _signal(frozen, signal.SIGSTOP)
            time.sleep(fault.lasts_s)
            _signal(frozen, signal.SIGCONT)
        elif fault.kind in STOPS:
            _signal([victim.pid], signal.SIGSTOP)
            later.append(_later(fault.lasts_s, lambda: _signal([victim.pid], signal.SIGCONT)))
        elif fault.kind in THEIR_KILLS:
            victim.kill()
            victim.wait()
            later.append(_later(fault.lasts_s, self._add))

    def _living(self) -> list[subprocess.Popen[bytes]]:
        with self._lock:
            return [process for process in self._running if process.poll() is None]

    def _add(self) -> None:
        process = self._started()
        with self._lock:
            self._running.append(process)

    def _ended(self, deadline: float) -> bool:
        """Wait for the end of all; one more comes while the queue still has something."""
        while time.monotonic() < deadline:
            if not self._living():
                with Store.connect(self._server.url) as store:
                    if not store.client.zcard(QUEUE):
                        return True
                self._add()
            time.sleep(LOOK_S)
        for process in self._living():
            process.kill()
            process.wait()
        return False


def _without_start(items: Counter[str]) -> Counter[str]:
    return Counter({item: count for item, count in items.items() if OF_START not in item})


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        if psutil.pid_exists(pid):
            os.kill(pid, number)


def _later(seconds: float, call: object) -> threading.Timer:
    timer = threading.Timer(seconds, call)  # type: ignore[arg-type]
    timer.start()
    return timer


def plans(rounds: int, first_seed: int) -> dict[str, list[Plan]]:
    """So many plans of each kind alone, and of several of any kind."""
    seeds = range(first_seed, first_seed + rounds)
    found = {str(kind): [Plan.of(seed, [kind], 1) for seed in seeds] for kind in Kind}
    found[f"{MIXED} of any kind"] = [Plan.of(seed, list(Kind), MIXED) for seed in seeds]
    return found


def run(scene: Scene | PeerScene, planned: dict[str, list[Plan]]) -> dict[str, Row]:
    """All plans; what was not exact is told at once, with its seed."""
    rows = {kind: Row() for kind in planned}
    for kind, several in planned.items():
        for plan in several:
            trial = scene.trial(plan)
            rows[kind].add(trial)
            if not trial.is_exact and isinstance(scene, Scene):
                print(f"{kind}: {trial}", file=sys.stderr, flush=True)
                Path(f"chaos-{kind.replace(' ', '-')}-{plan.seed}.log").write_text(trial.log)
    return rows


def main() -> int:
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parse.add_argument("--rounds", type=int, default=20, help="trials of each kind of fault")
    parse.add_argument("--peer-rounds", type=int, default=3, help="of scrapy-redis")
    parse.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first trial")
    parse.add_argument("--venv", default="", help="folder of an environment to keep")
    options = parse.parse_args()
    sides: list[tuple[str, dict[str, Row]]] = []
    with Scene() as scene:
        sides.append(("vscrapy", run(scene, plans(options.rounds, options.seed))))
    if options.peer_rounds:
        with (
            environment(options.venv) as python,
            DemoSite(pages=PAGES, delay_ms=DELAY_MS) as site,
            cluster(0) as bare,
        ):
            peers = PeerScene(python, bare.server, site, bare.folder)
            sides.append((PEER, run(peers, plans(options.peer_rounds, options.seed))))
    print(f"{PAGES} pages, {WORKERS} workers; {conditions()}")
    head = [
        *("fault", "what", "trials", "faults", "exact", "items lost (worst)", "repeated", "hung"),
        *("worst takeover s (of)", "pages again", "seconds"),
    ]
    rows = [
        [kind, side, *row.cells()]
        for kind in sides[0][1]
        for side, found in sides
        if (row := found.get(kind)) is not None
    ]
    print(table(head, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
