"""The frontier as a state machine against a small model, with two and with three workers.

The model is a few Python collections. Whatever the order of steps, deaths, releases and repeats:
each request that was new is leased by one worker at a time, its outputs are kept exactly once, and
the crawl ends when nothing is left, not before.
"""

from collections import Counter
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from vscrapy_magic.errors import LeaseLostError, MemberGoneError, StateError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.messages import (
    CrawlState,
    Lease,
    LeaseKind,
    Part,
    SlotLimit,
    StepReply,
)
from vscrapy_magic.store.outputs import Outputs

from .driver import Child, order, requests

NUMBERS = st.lists(st.integers(0, 60), max_size=40)
OUTPUT_KEY = b"8 bytes!"
LIMITS = (SlotLimit("site", 16), SlotLimit("site", 2), SlotLimit("site", 4, exclusive=True))


class FrontierModel(RuleBasedStateMachine):
    """Children drive a real frontier; the model says what must come back."""

    store: ClassVar[Store]
    workers: ClassVar[int]

    @initialize(lifo=st.booleans())
    def begin(self, lifo: bool) -> None:
        self.store.client.flushall()
        self.frontier = order(self.store, lifo=lifo)
        self.children: list[Child] = []
        self.leases: dict[str, dict[int, Lease]] = {}
        self.zombies: list[tuple[Child, dict[int, Lease]]] = []
        self.queued: Counter[bytes] = Counter()
        self.seen: set[int] = set()
        self.filtered = 0
        self.published: Counter[str] = Counter()
        self.delivered: Counter[bytes] = Counter()
        self.suspects: set[str] = set()
        self.buried = 0
        self.started = self.over = False
        self.names = 0
        for _ in range(self.workers):
            self.join()

    def join(self) -> None:
        self.names += 1
        child = Child(self.frontier, f"w{self.names}")
        self.children.append(child)
        self.leases[child.token] = {}

    def child(self, index: int) -> Child:
        return self.children[index % len(self.children)]

    def some(self, child: Child, data: Any) -> list[int]:
        held = sorted(self.leases[child.token])
        return data.draw(st.lists(st.sampled_from(held), unique=True)) if held else []

    def took(self, child: Child, reply: StepReply) -> None:
        """What a reply leases must be queued in the model, and goes to this child."""
        for lease in reply.leases:
            if lease.kind is LeaseKind.REQUEST:
                assert self.queued[lease.payload] > 0
                self.queued[lease.payload] -= 1
            elif lease.kind is LeaseKind.START:
                assert not self.started
                assert not any(x.origin in self.suspects for x in self.leases[child.token].values())
                self.started = True
            else:
                assert not +self.queued
                assert not any(self.leases.values())
            assert lease.has_parts == (self.published[lease.origin] > 0)
            held = self.leases[child.token]
            held[lease.lease_id] = lease
            if self.suspects & {x.origin for x in held.values()}:
                assert len([x for x in held.values() if x.kind is LeaseKind.REQUEST]) == 1

    def gives_back(self, lease: Lease) -> None:
        if lease.kind is LeaseKind.REQUEST:
            self.queued[lease.payload] += 1
        elif lease.kind is LeaseKind.START:
            self.started = False

    def expect_dropped(self, numbers: list[int]) -> tuple[int, ...]:
        dropped = []
        for place, number in enumerate(numbers):
            if number in self.seen:
                dropped.append(place)
            else:
                self.seen.add(number)
                self.queued[str(number).encode()] += 1
        self.filtered += len(dropped)
        return tuple(dropped)

    @precondition(lambda self: not self.over)
    @rule(
        index=st.integers(0, 9),
        numbers=NUMBERS,
        unfiltered=st.booleans(),
        want=st.integers(0, 40),
        repeat=st.booleans(),
        limit=st.sampled_from(LIMITS),
        default=st.sampled_from((None, *LIMITS)),
        data=st.data(),
    )
    def step(
        self,
        *,
        index: int,
        numbers: list[int],
        unfiltered: bool,
        want: int,
        repeat: bool,
        limit: SlotLimit,
        default: SlotLimit | None,
        data: Any,
    ) -> None:
        child = self.child(index)
        ended = self.some(child, data)
        held = self.leases[child.token]
        if not held:
            numbers = []  # only a lease brings requests in this model
        items = [lease.payload or lease.origin.encode() for lease in (held[i] for i in ended)]
        kinds = {held[i].kind for i in ended}
        reply = child.step(
            ended=tuple(ended),
            requests=requests(numbers, filtered=not unfiltered),
            items=b" ".join(items),
            item_count=len(items),
            want=want,
            unstarted=len(held) - len(ended),
            limits=(limit,) if numbers else (),
            default_limit=default,
        )
        if unfiltered:
            self.queued.update(str(number).encode() for number in numbers)
            assert reply.dropped == ()
        else:
            assert reply.dropped == self.expect_dropped(numbers)
        for lease_id in ended:
            self.suspects.discard(held[lease_id].origin)
            self.published.pop(held.pop(lease_id).origin, None)
        self.delivered.update(items)
        if repeat:
            again = child.again()
            assert sorted(x.lease_id for x in again.leases) == sorted(
                [*held, *(x.lease_id for x in reply.leases)]
            )
            assert (again.dropped, again.totals) == (reply.dropped, reply.totals)
        self.took(child, reply)
        if reply.state is CrawlState.CLOSING:
            assert LeaseKind.IDLE in kinds
            self.over = True

    @precondition(lambda self: not self.over)
    @rule(numbers=NUMBERS, unfiltered=st.booleans())
    def push(self, numbers: list[int], unfiltered: bool) -> None:
        """A user adds requests, at any moment before the end."""
        before = self.queued.total()
        if unfiltered:
            self.queued.update(str(number).encode() for number in numbers)
        else:
            self.expect_dropped(numbers)
        added = self.frontier.push(requests(numbers, filtered=not unfiltered))
        assert added == self.queued.total() - before

    @precondition(lambda self: not self.over)
    @rule(index=st.integers(0, 9), data=st.data())
    def publish(self, index: int, data: Any) -> None:
        child = self.child(index)
        ids = self.some(child, data)
        reply = child.step(parts=tuple(Part(i, OUTPUT_KEY) for i in ids))
        for lease_id in ids:
            origin = self.leases[child.token][lease_id].origin
            self.published[origin] += 1
            keys = self.frontier.published(origin)
            assert keys == OUTPUT_KEY * self.published[origin]
        assert reply.leases == ()

    @precondition(lambda self: not self.over)
    @rule(index=st.integers(0, 9), data=st.data())
    def release(self, index: int, data: Any) -> None:
        child = self.child(index)
        ids = self.some(child, data)
        child.step(released=tuple(ids))
        for lease_id in ids:
            self.gives_back(self.leases[child.token].pop(lease_id))

    @precondition(lambda self: not self.over)
    @rule(index=st.integers(0, 9), suddenly=st.booleans())
    def die(self, index: int, suddenly: bool) -> None:
        """A child dies; found by its supervisor, or by somebody else when its deadline passes."""
        child = self.child(index)
        if suddenly:
            child.expire()
            assert self.frontier.renew([]).gone == (child.token,)
        else:
            self.frontier.reclaim(child.token)
        self.children.remove(child)
        lost = self.leases.pop(child.token)
        for lease in lost.values():
            self.gives_back(lease)
        self.zombies.append((child, lost))
        self.join()

    @precondition(lambda self: not self.over)
    @rule(index=st.integers(0, 9), clear=st.booleans(), data=st.data())
    def crash(self, *, index: int, clear: bool, data: Any) -> None:
        """A child ends itself; what is buried counts as done, what may be guilty runs alone."""
        child = self.child(index)
        blamed = self.some(child, data)
        lost = self.leases[child.token]
        buried = self.frontier.reclaim(child.token, suspects=blamed, clear=clear)
        if not clear:
            self.suspects |= {lost[i].origin for i in blamed if lost[i].kind is LeaseKind.REQUEST}
        self.children.remove(child)
        del self.leases[child.token]
        self.zombies.append((child, dict(lost)))
        self.buried += len(buried)
        assert set(buried) <= {lost[i].origin for i in blamed}
        for lease in lost.values():
            if lease.origin not in buried:
                self.gives_back(lease)
            self.published.pop(lease.origin, None) if lease.origin in buried else None
        self.suspects -= set(buried)
        if "idle" in buried and not +self.queued:
            self.over = not any(self.leases.values())
        self.join() if not self.over else None

    @precondition(lambda self: self.zombies)
    @rule(data=st.data())
    def zombie(self, data: Any) -> None:
        """A child that was given up commits late: nothing changes."""
        child, lost = data.draw(st.sampled_from(self.zombies))
        with pytest.raises((MemberGoneError, StateError)):
            child.step(ended=tuple(lost), items=b"late", item_count=1, requests=requests([99]))

    @precondition(lambda self: not self.over)
    @rule(index=st.integers(0, 9), data=st.data())
    def steal(self, index: int, data: Any) -> None:
        """A child ends leases of another: all of its step is refused."""
        child = self.child(index)
        foreign = [i for token, held in self.leases.items() for i in held if token != child.token]
        if not foreign:
            return
        taken = data.draw(st.lists(st.sampled_from(foreign), min_size=1, unique=True))
        own = self.some(child, data)
        with pytest.raises(LeaseLostError) as lost:
            child.step(ended=(*own, *taken), items=b"stolen", item_count=1)
        assert lost.value.lease_ids == set(taken)
        child.seq -= 1

    @precondition(lambda self: self.over)
    @rule(index=st.integers(0, 9))
    def closing_leases_nothing(self, index: int) -> None:
        reply = self.child(index).step(want=5)
        assert (reply.state, reply.leases) == (CrawlState.CLOSING, ())

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "frontier"):
            return
        totals = Crawls(self.store).view(self.frontier.crawl_id).totals
        assert totals.queued == self.queued.total()
        assert totals.leased == sum(len(held) for held in self.leases.values())
        assert totals.items == self.delivered.total()
        assert totals.failures == self.buried

    def teardown(self) -> None:
        """Whatever happened: the children that are left finish the crawl, and it adds up."""
        if not hasattr(self, "frontier"):
            return
        for _ in range(3000):
            if self.over:
                break
            for child in self.children:
                if not self.over:
                    self.finish(child)
        assert self.over
        assert not +self.queued
        outputs, last, items = Outputs(self.store, self.frontier.crawl_id), None, Counter[bytes]()
        while batch := outputs.read(last):
            items.update(item for output in batch for item in output.items.split())
            last = batch[-1].witness
        assert items == self.delivered
        for child in self.children:
            state = self.frontier.leave(child.token)
        assert state is CrawlState.FINISHED
        Crawls(self.store).sweep(self.frontier.crawl_id)
        names = {key.decode().rpartition(":")[2] for key in self.store.client.keys()}
        if self.buried:  # it may be put back: what was seen is kept
            names = {name for name in names if not name.isdecimal()} - {"cookies", "cookie_no"}
        assert names <= {"crawls", "due", "meta", "out", "stats", "log"}

    def finish(self, child: Child) -> None:
        held = self.leases[child.token]
        items = [lease.payload or lease.origin.encode() for lease in held.values()]
        reply = child.step(
            ended=tuple(held), items=b" ".join(items), item_count=len(items), want=30
        )
        self.delivered.update(items)
        held.clear()
        self.published.clear()
        for lease in reply.leases:
            held[lease.lease_id] = lease
            if lease.kind is LeaseKind.REQUEST:
                self.queued[lease.payload] -= 1
        self.over = reply.state is CrawlState.CLOSING


@pytest.mark.parametrize("workers", [2, 3])
def test_the_frontier_agrees_with_its_model(store: Store, workers: int) -> None:
    class Machine(FrontierModel):
        pass

    Machine.store, Machine.workers = store, workers
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
