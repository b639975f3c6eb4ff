"""A process of simulated workers that speak the real protocol; `benchmarks/herd.py` starts some.

Each worker is a real supervisor with its three threads and connections of its own; only its
children are no processes, and crawl nothing. A child joins, steps, parks, is woken and leaves as
`runtime/stepper.py` does, and a page takes it a number of milliseconds. The crawl is a tree: each
page brings `fan` others, as long as there are fewer than `pages`. It ends on SIGTERM, and with its
standard input.

    python -m benchmarks.crowd URL PREFIX COUNT
"""

import contextlib
import os
import resource
import selectors
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from math import ceil
from typing import Any

from vscrapy_magic.errors import VscrapyError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import WorkerName
from vscrapy_magic.store.messages import (
    ChildOrder,
    CrawlState,
    Lease,
    LeaseKind,
    NewRequest,
    SlotLimit,
    SlotUse,
    Step,
    StepReply,
    WorkerRecord,
)
from vscrapy_magic.store.pipes import (
    Command,
    ExitCode,
    FrameReader,
    FromChild,
    Phase,
    Report,
    frame,
    read_command,
)
from vscrapy_magic.worker.process import Pipes
from vscrapy_magic.worker.source import Birth
from vscrapy_magic.worker.supervisor import Supervisor

AT_ONCE = 4  # pages that a child works on
PREFETCH = 2  # leases that it holds beyond them
INTERVAL_S = 0.1  # between two steps that nobody waits for
SLOW_TICK_S = 5.0  # as in runtime/stepper.py, and the three that follow as in its neighbours
WAKE_S = 10.0
REST_S = 0.2
HOLD_S = 2.0  # an unused slot is kept for so long
READ_BYTES = 65536
SLOTS = 8  # crawls at once of one worker
PHASES = {CrawlState.STOPPING, CrawlState.CLOSING}


class Answerer:
    """Answers the pings of all children of this process; one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="answers", daemon=True).start()

    def add(self, child: "Child") -> None:
        with self._lock:
            self._selector.register(child.control, selectors.EVENT_READ, (child, FrameReader()))

    def remove(self, child: "Child") -> None:
        with self._lock:
            self._selector.unregister(child.control)

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select(0.05):
                child, reader = key.data
                with self._lock:
                    if key.fd in self._selector.get_map():
                        self._hear(child, reader)

    def _hear(self, child: "Child", reader: FrameReader) -> None:
        data = os.read(child.control, READ_BYTES)
        for body in reader.feed(data):
            said = read_command(body)
            if said.command is Command.PING:
                child.report(FromChild(Report.PONG, number=said.number))
            elif said.command is Command.STOP:
                child.stop()


class Child:
    """One simulated child, in two threads; also the process that its supervisor sees."""

    pid = 0

    def __init__(self, order: ChildOrder, answerer: Answerer) -> None:
        self.pipes = Pipes()
        self.control = self.pipes.control_far
        self._order = order
        self._store = Store(order.url)
        self._answerer = answerer
        self._frontier = Frontier(self._store, order.crawl_id)
        self._code: int | None = None
        self._wake = threading.Event()
        self._gone = threading.Event()
        self._killed = self._leaving = False
        self._seq = self._last_lease = 0
        self._limits_told = False
        self._parked = False
        self._state = CrawlState.RUNNING
        self._hungry = 0
        self._rest_until = 0.0
        self._shares: dict[str, int] = {}
        self._used_at: dict[str, float] = {}
        self._buffer: deque[Lease] = deque()
        self._active: list[tuple[float, Lease]] = []
        self._done: list[Lease] = []
        self._woken = True
        self._stepped_at = 0.0
        self._answerer.add(self)
        for target, name in ((self._run, "child"), (self._wait, "child-wake")):
            threading.Thread(target=target, name=name, daemon=True).start()

    # What its supervisor sees.

    def code(self) -> int | None:
        return self._code

    def is_known(self, pid: int) -> None:
        """It has no process."""

    def is_silent(self) -> None:
        """Its end is told by `code`."""

    def signal(self, _number: int) -> None:
        self.kill()

    def kill(self) -> None:
        self._killed = True
        self._wake.set()

    def close(self) -> None:
        self.kill()

    def stop(self) -> None:
        self._leaving = True
        self._wake.set()

    def report(self, report: FromChild) -> None:
        os.write(self.pipes.report_far, frame(report))

    # What it does.

    def _wait(self) -> None:
        while not self._gone.is_set():
            try:
                if self._frontier.wait(self._order.token, WAKE_S):
                    self._wake.set()
            except Exception:  # noqa: BLE001 - as in runtime/link.py
                self._gone.wait(0.5)

    def _run(self) -> None:
        code = ExitCode.DONE
        try:
            self._say(Phase.LOADING)
            self._take_part()
            if not self._killed:
                self._frontier.leave(self._order.token)
                self._say(Phase.CLOSED)
        except VscrapyError:
            code = ExitCode.MEMBER_GONE
        self._gone.set()
        self._store.close()
        self._answerer.remove(self)
        self._code = -signal.SIGKILL if self._killed else code
        self.pipes.close_far()

    def _say(self, phase: Phase) -> None:
        self.report(FromChild(Report.PHASE, text=phase, number=self._number))

    @property
    def _number(self) -> int:
        return int(self._order.token.rpartition(".")[2], 16)

    def _take_part(self) -> None:
        view = Crawls(self._store).view(self._order.crawl_id, named=False)
        args = {name: int(value) for name, value in view.spec.args.items()}
        self._page_s, self._args = args["page_ms"] / 1000, args
        self._frontier.join(self._order.token, self._order.worker)
        self._say(Phase.RUNNING)
        while not self._killed:
            now = time.monotonic()
            self._done += [lease for until, lease in self._active if until <= now]
            self._active = [pair for pair in self._active if pair[0] > now]
            self._begin(now)
            if self._is_due(now):
                done, self._done = self._done, []
                reply = self._step(done, now)
                if reply.state is CrawlState.CLOSING or self._is_done():
                    return
            self._sleep()

    def _is_done(self) -> bool:
        ending = self._leaving or self._state in PHASES
        return ending and not (self._active or self._buffer or self._done)

    def _is_due(self, now: float) -> bool:
        """Whether a step is worth its round trip."""
        if self._woken or now - self._stepped_at >= SLOW_TICK_S:
            return True
        if now - self._stepped_at < INTERVAL_S:
            return bool(self._done) and not self._active
        is_low = not (self._buffer or self._parked or self._state in PHASES)
        return bool(self._done) or is_low or bool(self._hungry and self._buffer)

    def _step(self, done: Sequence[Lease], now: float) -> StepReply:
        released = self._give_back(now)
        ending = self._leaving or self._state in PHASES
        room = 0 if ending or released or now < self._rest_until else AT_ONCE + PREFETCH
        want = max(0, room - len(self._active) - len(self._buffer))
        brought = [request for lease in done for request in self._links(lease)]
        self._seq += 1
        limit = SlotLimit("", self._args["limit"], exclusive=self._args["limit"] == 1)
        pages = sum(lease.kind is LeaseKind.REQUEST for lease in done)
        reply = self._frontier.step(
            Step(
                token=self._order.token,
                seq=self._seq,
                ended=tuple(lease.lease_id for lease in done),
                released=tuple(lease.lease_id for lease in released),
                requests=tuple(brought),
                default_limit=None if self._limits_told else limit,
                want=want,
                unstarted=len(self._buffer),
                last_lease=self._last_lease,
                pages=pages,
                slots=self._uses(now),
            )
        )
        self._limits_told, self._woken, self._stepped_at = True, False, now
        self._accept(reply, want, now)
        return reply

    def _links(self, lease: Lease) -> list[NewRequest]:
        """Of start() the first page; of a page those below it."""
        if lease.kind is LeaseKind.IDLE:
            return []
        fan, number = self._args["fan"], int(lease.payload or b"0")
        first = 1 if lease.kind is LeaseKind.START else fan * (number - 1) + 2
        last = 1 if lease.kind is LeaseKind.START else first + fan - 1
        return [
            NewRequest(b"%d" % n, f"site{n % self._args['sites']}", n, 0, start=False)
            for n in range(first, min(last, self._args["pages"]) + 1)
        ]

    def _give_back(self, now: float) -> list[Lease]:
        if self._leaving or self._state in PHASES:
            back = [lease for lease in self._buffer if lease.kind is LeaseKind.REQUEST]
            self._buffer.clear()
            return back
        count = ceil(len(self._buffer) * self._hungry / (1 + self._hungry))
        if count:
            self._rest_until = now + REST_S
        return [self._buffer.pop() for _ in range(count)]

    def _uses(self, now: float) -> tuple[SlotUse, ...]:
        waiting = Counter(lease.slot for lease in self._buffer)
        begun = Counter(lease.slot for _, lease in self._active)
        uses = []
        for slot, share in list(self._shares.items()):
            if begun[slot] or waiting[slot]:
                self._used_at[slot] = now
            elif now - self._used_at.get(slot, 0.0) > HOLD_S:
                del self._shares[slot]
                continue
            room = max(0, share + PREFETCH - waiting[slot] - begun[slot])
            uses.append(SlotUse(slot, max(share, begun[slot]), room))
        return tuple(uses)

    def _accept(self, reply: StepReply, want: int, now: float) -> None:
        self._state = reply.state
        self._leaving |= reply.leave
        self._shares.update({share.slot: share.concurrency for share in reply.shares})
        for lease in reply.leases:
            self._last_lease = max(self._last_lease, lease.lease_id)
            if lease.kind is LeaseKind.REQUEST:
                self._buffer.append(lease)
            else:
                self._active.append((now, lease))
        self._parked = want > 0 and not reply.leases
        self._hungry = max(0, reply.hungry - self._parked)
        self._begin(now)

    def _begin(self, now: float) -> None:
        """Start what its shares allow."""
        begun = Counter(lease.slot for _, lease in self._active)
        for lease in list(self._buffer):
            if len(self._active) < AT_ONCE and begun[lease.slot] < self._shares.get(lease.slot, 1):
                self._buffer.remove(lease)
                begun[lease.slot] += 1
                self._active.append((now + self._page_s, lease))

    def _sleep(self) -> None:
        """Until there is something to do, or somebody wakes it."""
        now = time.monotonic()
        due = self._stepped_at + SLOW_TICK_S
        if self._active:
            due = min(due, *(until for until, _ in self._active))
        waits = self._done or self._hungry or not (self._parked or self._buffer)
        if waits and self._state not in PHASES:
            due = min(due, max(now, self._stepped_at + INTERVAL_S))
        if self._done and not self._active:
            due = now
        if self._wake.wait(max(0.0, due - now)):
            self._wake.clear()
            self._woken = True


class Children:
    """Where simulated children come from: a source that is always ready."""

    ready = True
    problem = ""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer

    def sockets(self) -> list[int]:
        return []

    def heard(self, fd: int) -> None:
        """It has no sockets."""

    def start(self, order: ChildOrder) -> Birth:
        child = Child(order, self._answerer)
        return Birth(child, child.pipes)

    def tend(self, now: float) -> None:
        """Nothing is missing."""

    def pids(self) -> list[int]:
        return []

    def close(self) -> None:
        """There are no processes."""


def end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def main(url: str, prefix: str, count: int) -> int:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    threading.stack_size(512 * 1024)
    crew: list[tuple[Supervisor, threading.Thread]] = []

    def leave(*_: Any) -> None:
        for supervisor, _ in crew:
            supervisor.go()
            supervisor.go()

    with contextlib.ExitStack() as stores:
        answerer = Answerer()
        for number in range(count):
            record = WorkerRecord(
                name=WorkerName(f"{prefix}{number}"), host="crowd", pid=os.getpid(), slots=SLOTS
            )
            store = stores.enter_context(Store.connect(url))
            supervisor = Supervisor(store, [record], Children(answerer))
            crew.append((supervisor, threading.Thread(target=supervisor.run, name=record.name)))
        signal.signal(signal.SIGTERM, leave)
        threading.Thread(target=end_with_parent, name="parent", daemon=True).start()
        for _, thread in crew:
            thread.start()
            time.sleep(2.0 / count)  # so that they do not all beat at the same moment
        for _, thread in crew:
            thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
