"""Owns the workers of one process: compares what should run with what runs, and acts.

One loop in the main thread owns the children and never waits for the store: a second thread speaks
with it (`desk.py`), and a third only waits for a wake-up and pokes the loop; one that is lost costs
at most a beat. Never imports Scrapy: children come from a zygote (`zygote.py`).
"""

import contextlib
import logging
import os
import random
import selectors
import threading
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from vscrapy_magic.errors import StoreError
from vscrapy_magic.failpoints import fail_point
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import MemberToken
from vscrapy_magic.store.messages import ChildOrder, CrawlSpec, WorkerRecord
from vscrapy_magic.store.pipes import Command, ExitCode, Phase
from vscrapy_magic.store.presence import Presence
from vscrapy_magic.store.scratch import Scratch, sweep
from vscrapy_magic.store.values import Codec
from vscrapy_magic.worker.child import EARLY, READ_BYTES, Child
from vscrapy_magic.worker.desk import Desk
from vscrapy_magic.worker.measure import Measure
from vscrapy_magic.worker.output import Output
from vscrapy_magic.worker.plan import Burial, Plan, Roster, Start, Tenant
from vscrapy_magic.worker.rests import Rests
from vscrapy_magic.worker.source import Source

logger = logging.getLogger(__name__)

IDLE_BEAT_S: Final = 2.0
IDLE_SPREAD_S: Final = (
    0.4  # at most so much less: those that were woken at once do not look so for ever
)
BUSY_BEAT_S: Final = 1.0  # while there are crawls: leases are renewed with it
TICK_S: Final = 0.1  # while a child is stopping
FLUSH_S: Final = 0.1  # between two batches of lines
WAKE_WAIT_S: Final = 10.0  # of one blocking read
RETRY_S: Final = 1.0  # before a store that is away is asked again
EARLY_DEATHS: Final = 3  # of children that end themselves before they work: the crawl has failed
SETTLED_S: Final = 60.0  # after a child that lived for so long the next one is not waited for long
BURY_WITHIN_S: Final = 5.0  # for the last words of children when the workers leave
_GO: Final = b"g"
_WAKE: Final = b"w"
_DONE: Final = b"d"
_LEVEL_SETTING: Final = "LOG_LEVEL"


class Options(msgspec.Struct, frozen=True):
    """How a process of workers behaves.

    Attributes:
        parent_fd: a pipe whose end means that all must end at once.
        child_memory_bytes: a child that has more is killed; 0 for no limit.
    """

    parent_fd: int | None = None
    child_memory_bytes: int = 0


class Supervisor:
    """The workers of one process; `run` returns when they are told to go and children have ended.

    Args:
        records: how the workers present themselves, one each.
        source: where children come from; ready, so that the first crawl need not wait. It is
            closed at the end.
    """

    def __init__(
        self,
        store: Store,
        records: Sequence[WorkerRecord],
        source: Source,
        options: Options | None = None,
    ) -> None:
        self._store = store
        self._records = list(records)
        self._options = options or Options()
        self._source = source
        self._children: dict[MemberToken, Child] = {}
        self._rests = Rests()
        self._scratch = Scratch("work")
        self._selector = selectors.DefaultSelector()
        self._poked, self._poke = os.pipe()
        for fd in (self._poked, self._poke):
            os.set_blocking(fd, False)
        self._selector.register(self._poked, selectors.EVENT_READ, None)
        if self._options.parent_fd is not None:
            self._selector.register(self._options.parent_fd, selectors.EVENT_READ, None)
        self._measure = Measure()
        self._presence = Presence(store)
        self._going = 0
        self._childless_since: float | None = None
        self._look_at = self._measure_at = self._flush_at = 0.0
        self._woken = False
        self._desk = Desk(store, lambda: self._poke_with(_DONE))

    def go(self) -> None:
        """Leave: the first call lets children finish what they hold, the second kills them.

        Safe to call from a signal handler.
        """
        self._going += 1
        self._poke_with(_GO)

    def _poke_with(self, word: bytes) -> None:
        with contextlib.suppress(OSError):  # full: it is poked already; closed: it has ended
            os.write(self._poke, word)

    def run(self) -> None:
        """Serve until told to go; blocks. Survives a store that goes away for a while."""
        stop = threading.Event()
        waker = threading.Thread(
            target=self._wait_for_wakes, args=(stop,), name="wake", daemon=True
        )
        waker.start()
        # What killed supervisors left on this machine: it may be much, and nobody waits for it.
        threading.Thread(target=sweep, name="sweep", daemon=True).start()
        try:
            while not self._is_done(time.monotonic()):
                self._turn()
        finally:
            stop.set()
            self._end()

    def _wait_for_wakes(self, stop: threading.Event) -> None:
        first, *others = (record.name for record in self._records)
        while not stop.is_set():
            try:
                if self._presence.wait_worker(first, WAKE_WAIT_S, *others):
                    self._poke_with(_WAKE)
            except StoreError:
                stop.wait(RETRY_S)

    def _is_done(self, now: float) -> bool:
        if not self._going or self._children:
            self._childless_since = None
            return False
        if self._childless_since is None:
            self._childless_since = now
        return not self._desk.burying or now - self._childless_since > BURY_WITHIN_S

    # One turn.

    def _turn(self) -> None:
        now = time.monotonic()
        is_due = now >= self._look_at and not self._desk.looking
        if is_due or not self._source.ready:
            self._watch_source()  # what has ended is forgotten before its number is used again
            self._source.tend(now)
        if is_due:
            self._desk.look(self._roster(now))
        self._watch_source()
        self._read(self._idle_for(now))
        now = time.monotonic()
        if (plan := self._desk.plan()) is not None:
            self._apply(plan, now)
        for child in self._children.values():
            if self._going > 1:
                child.kill()
            elif self._going:
                child.stop(now, leave=True)
            child.press(now)
        if self._children and now >= self._measure_at:
            self._measure_at = now + BUSY_BEAT_S
            self._hold_limits()
        self._reap(now)
        if now >= self._flush_at and not self._desk.sending:
            self._flush_at = now + FLUSH_S
            self._desk.send(child.output for child in self._children.values())

    def _idle_for(self, now: float) -> float:
        """Seconds until something is due."""
        due = [now + IDLE_BEAT_S]
        if not self._desk.looking:
            due.append(self._look_at)
        if self._children:
            due.append(self._measure_at)
            if any(child.urgent for child in self._children.values()) or self._going:
                due.append(now + TICK_S)
            if any(child.output.waiting for child in self._children.values()):
                due.append(max(self._flush_at, now + TICK_S * self._desk.sending))
        elif self._going:
            due.append(now + TICK_S)
        return max(0.0, min(due) - now)

    def _watch_source(self) -> None:
        """Watch the sockets that the source has now."""
        wanted = set(self._source.sockets())
        watched = {fd for fd, key in self._selector.get_map().items() if key.data is self._source}
        for fd in watched - wanted:
            self._selector.unregister(fd)
        for fd in wanted - watched:
            self._selector.register(fd, selectors.EVENT_READ, self._source)

    def _read(self, timeout_s: float) -> None:
        """Take in what children, zygotes and threads have to say."""
        for key, _ in self._selector.select(timeout_s):
            if key.fd == self._poked:
                self._heard_poke(os.read(key.fd, READ_BYTES))
            elif key.data is None:
                if not os.read(key.fd, READ_BYTES):
                    self._selector.unregister(key.fd)
                    self._going = 2
            elif key.data is self._source:
                self._hear_source(key.fd)
            else:
                child: Child = key.data
                data = os.read(key.fd, READ_BYTES)
                if not data:
                    self._selector.unregister(key.fd)
                child.take(key.fd, data)

    def _hear_source(self, fd: int) -> None:
        was_ready = self._source.ready
        self._source.heard(fd)
        if self._source.ready and not was_ready:
            self._heard_poke(_WAKE)  # crawls that came meanwhile have waited for this

    def _heard_poke(self, words: bytes) -> None:
        if _WAKE in words or _GO in words:
            self._woken = True
            self._look_at = 0.0

    # What should run.

    def _roster(self, now: float) -> Roster:
        tenants = tuple(_tenant(child, now) for child in self._children.values())
        woken, self._woken = self._woken, False
        # A wake-up from now on asks for another look.
        self._look_at = now + BUSY_BEAT_S
        return Roster(
            records=tuple(self._present()),
            tenants=tenants,
            taking=not self._going and self._source.ready,
            problem=self._source.problem,
            resting=self._rests.places(now),
            woken=woken,
        )

    def _present(self) -> list[WorkerRecord]:
        """The records of this moment; what all workers share is spread over them."""
        children = list(self._children.values())
        shared = [os.getpid(), *self._source.pids()]
        self._measure.keep([*shared, *(child.process.pid for child in children)])
        count = len(self._records)
        cpu = sum(self._measure.cpu_percent(pid) for pid in shared) / count
        memory = sum(self._measure.memory_bytes(pid) for pid in shared) // count
        records = []
        for record in self._records:
            here = [child for child in children if child.worker == record.name]
            own = [child.process.pid for child in here if child.process.pid]
            percent = cpu + sum(self._measure.cpu_percent(pid) for pid in own)
            records.append(
                msgspec.structs.replace(
                    record,
                    used=len({child.crawl_id for child in here}),
                    draining=bool(self._going),
                    cpu_percent=round(percent, 1),
                    memory_bytes=memory + sum(self._measure.memory_bytes(pid) for pid in own),
                )
            )
        return records

    def _apply(self, plan: Plan, now: float) -> None:
        if not plan.known:
            self._look_at = max(self._look_at, now + RETRY_S)
            return
        if self._look_at > now:
            idle_s = IDLE_BEAT_S - IDLE_SPREAD_S * random.random()  # noqa: S311 - no secret
            self._look_at = now + (BUSY_BEAT_S if plan.busy else idle_s)
        for number, record in enumerate(self._records):
            slots = plan.slots.get(record.name, record.slots)
            self._records[number] = msgspec.structs.replace(record, slots=slots)
        for child in self._children.values():
            crawl_id = child.crawl_id
            if crawl_id in plan.kill or child.token in plan.drop:
                child.kill()
            elif crawl_id in plan.stop or child.token in plan.leave:
                child.stop(now, leave=crawl_id not in plan.stop)
            elif crawl_id in plan.changed:
                child.say(Command.SETTINGS)
        for start in plan.starts:
            if not self._going:
                self._start(start, now)

    def _start(self, start: Start, now: float) -> None:
        tenant = start.tenant
        folder = self._scratch.path / tenant.token
        folder.mkdir()
        order = ChildOrder(
            crawl_id=tenant.crawl_id,
            token=tenant.token,
            worker=tenant.worker,
            url=self._store.url,
            folder=str(folder),
            code_version=tenant.code_version,
            is_trial=tenant.is_trial,
        )
        output = Output(tenant.crawl_id, tenant.worker, _level(start.spec))
        place = (tenant.worker, tenant.crawl_id)
        fail_point("supervisor_before_fork")
        try:
            birth = self._source.start(order)
        except OSError as exc:
            logger.error("Crawl %s: no child can be started: %s", tenant.crawl_id, exc)  # noqa: TRY400
            problem = f"no process can be started here: {exc}"
            output.own(logging.ERROR, problem)
            self._rests.begin(place, now)
            failed = problem if tenant.is_trial else ""
            self._desk.bury(Burial(tenant, output, now, folder=folder, trial_failed=failed))
            return
        fail_point("supervisor_after_fork")
        self._watch_source()  # a spare is none any more: its pipes are a child's now
        child = self._children[tenant.token] = Child(order, birth, output)
        for fd in child.pipes:
            self._selector.register(fd, selectors.EVENT_READ, child)

    # What runs.

    def _hold_limits(self) -> None:
        limit = self._options.child_memory_bytes
        for child in self._children.values() if limit else ():
            used = self._measure.memory_bytes(child.process.pid) if child.process.pid else 0
            if used > limit:
                megabytes = 1024 * 1024
                child.condemn(
                    f"it used {used // megabytes} MB of memory, more than the "
                    f"{limit // megabytes} MB of --child-memory"
                )

    def _reap(self, now: float) -> None:
        for child in list(self._children.values()):
            if child.has_ended(now):
                del self._children[child.token]
                self._buried(child, now)
                self._look_at = 0.0

    def _buried(self, child: Child, now: float) -> None:
        place = (child.worker, child.crawl_id)
        child.last_lines()
        suspects, how, in_vain = child.suspects(), child.describe_end(), child.has_tried_in_vain
        if in_vain:
            text = f"the child that tried code version {child.code_version} {how or 'has ended'}"
            child.output.own(logging.WARNING if how else logging.INFO, text)
        elif how:
            strike = _blame(len(suspects)) if suspects else ""
            doing = "" if child.phase is Phase.CLOSED else f" while {child.phase}"
            text = f"the child {how}{doing}{strike}"
            child.output.own(logging.WARNING, text)
            if suspects or now - child.started > SETTLED_S:  # a strike leads somewhere
                self._rests.forgive(place)
            self._rests.begin(place, now)
        else:
            self._rests.forgive(place)
            child.output.own(logging.INFO, "the child has ended")
        logger.info("Crawl %s: the child %s", child.crawl_id, how or "has ended")
        fatal = unfit = ""
        if in_vain:
            pass  # the old code goes on
        elif child.process.code() == ExitCode.FATAL and child.fatal:
            fatal = child.output.hide(child.fatal.strip().splitlines()[-1])
        elif child.process.code() == ExitCode.UNFIT:
            unfit = child.output.hide(child.fatal)
        elif (
            child.ended_itself
            and child.phase in EARLY
            and self._rests.deaths(place) >= EARLY_DEATHS
        ):
            fatal = f"its process {how} while loading, {EARLY_DEATHS} times in a row"
        failed = child.output.hide(child.fatal) or (how and f"the child {how}")
        burial = Burial(
            tenant=_tenant(child, now),
            output=child.output,
            died=now,
            fatal=fatal,
            unfit=unfit,
            suspects=suspects,
            clear=child.is_clear,
            folder=child.folder,
            trial_failed=failed if in_vain else "",
        )
        death = None if in_vain else child.death()
        self._desk.bury(msgspec.structs.replace(burial, death=death))
        for fd in child.pipes.keys() - child.ended_pipes:
            self._selector.unregister(fd)
        child.close()

    def _end(self) -> None:
        for child in self._children.values():
            child.kill()
            child.close()
        self._source.close()
        self._desk.close([record.name for record in self._records])
        self._selector.close()
        os.close(self._poke)
        os.close(self._poked)
        self._scratch.close()


def _tenant(child: Child, now: float) -> Tenant:
    return Tenant(
        *(child.worker, child.crawl_id, child.token, child.code_version),
        is_trial=child.is_trial,
        starts=child.starts(now) and not child.is_trial,
    )


def _blame(count: int) -> str:
    """What a death of its own means for the requests that a child may have died of."""
    if count == 1:
        return "; the request that it worked on gets a strike"
    return f"; it was one of {count} requests: each of them runs alone next"


def _level(spec: CrawlSpec) -> int:
    """The lowest level that the order wants to see; the spider may say otherwise later."""
    raw = spec.settings.get(_LEVEL_SETTING)
    name = Codec().decode(bytes(raw)) if raw is not None else ""
    return logging.getLevelNamesMapping().get(str(name).upper(), logging.DEBUG)
