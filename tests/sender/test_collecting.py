"""Several senders of one crawl, on other machines or beside each other: one of them collects."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.relay import Relay
from tests.sender.spiders import Pages
from tests.store.driver import Child, order, requests
from tests.waiting import wait_until
from vscrapy_magic.errors import StoreUnreachableError
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.session import Session
from vscrapy_magic.sender.spool import Spool
from vscrapy_magic.sender.spools import SPOOL_VARIABLE
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.keys import CrawlId, crawl_key
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.outputs import Outputs
from vscrapy_magic.store.scripts import load_script
from vscrapy_magic.store.values import Codec
from vscrapy_magic.store.views import CrawlView

COMES_S = 10.0


class Source:
    """A detached crawl whose child brings items when it is told to."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._frontier = order(store)
        self.id: CrawlId = self._frontier.crawl_id
        self._child = Child(self._frontier, "a")
        (start,) = self._child.step(want=1).leases
        self._child.step(ended=(start.lease_id,), requests=requests(range(4)))

    def bring(self, *numbers: int) -> None:
        """Items, each in a commit of its own."""
        for number in numbers:
            records = [{"type": "dict", "data": {"n": number}}]
            self._child.step(item_count=1, items=Codec().encode(records))

    def is_acked(self) -> bool:
        """Whether all outputs were acknowledged; the last one stays."""
        ((entry, _),) = self.store.client.xrevrange(crawl_key(self.id, "out"), count=1)
        return bool(self.store.client.hget(crawl_key(self.id, "meta"), "acked_no") == entry[:-2])

    def end(self) -> None:
        Crawls(self.store).kill(self.id)


class Hearing:
    """A listener that keeps the sender's own lines."""

    def __init__(self) -> None:
        self.said: list[tuple[int, str]] = []

    def lines(self, lines: Sequence[LogLine]) -> None:
        self.said += [(line.level, line.text) for line in lines]

    def view(self, view: CrawlView) -> None:
        pass

    def ended(self, view: CrawlView) -> None:
        pass

    def heard(self, text: str) -> bool:
        return any(text in said for _, said in self.said)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeats of so many sessions end in their time, on a machine that is busy."""
    monkeypatch.setattr("vscrapy_magic.sender.beacon.CLOSE_WITHIN_S", 20.0)


@pytest.fixture
def source(store: Store) -> Source:
    return Source(store)


@pytest.fixture
def sender(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Session]]:
    """Opens sessions of users on machines, each of which is a folder here."""
    with contextlib.ExitStack() as opened:

        def begin(machine: str) -> Session:
            monkeypatch.setenv(SPOOL_VARIABLE, str(tmp_path / machine))
            return opened.enter_context(Session.connect(store.url, kind="terminal"))

        yield begin


def numbers(crawl: Crawl) -> list[int]:
    return [item["n"] for item in crawl.items]


def has(crawl: Crawl, *wanted: int) -> Callable[[], bool]:
    return lambda: numbers(crawl) == list(wanted)


def listening(crawl: Crawl) -> Hearing:
    hearing = Hearing()
    crawl.listen(hearing)
    return hearing


def test_a_second_machine_watches_and_goes_on_where_the_first_one_ended(
    source: Source, sender: Callable[..., Session]
) -> None:
    source.bring(0, 1)
    first_session, second_session = sender("one"), sender("two")
    first = first_session.attach(source.id)
    wait_until(has(first, 0, 1), COMES_S, "items")
    second = second_session.attach(source.id)
    heard = listening(second)
    ((level, text),) = heard.said
    assert level == logging.WARNING
    who = first_session.record
    assert text.startswith(
        f"crawl {source.id} is being collected by {who.host} (terminal, pid {who.pid}); here it is"
    )
    assert f"`vscrapy attach {source.id} --take`" in text
    assert second.collected_by == f"{who.host} (terminal, pid {who.pid})"
    source.bring(2)
    wait_until(has(first, 0, 1, 2), COMES_S, "the third item")
    wait_until(lambda: second.view.totals.items == 3, COMES_S, "its view elsewhere")
    assert numbers(second) == []
    first_session.close()
    source.bring(3, 4)
    wait_until(has(second, 3, 4), COMES_S, "what is left, on the second machine")
    assert heard.heard("is collected here now:")
    assert heard.heard(f"3 items were collected by {who.host} before")
    assert second.collected_by == ""
    assert [kept.items for kept in second.elsewhere] == [3]
    source.end()
    assert second.wait(COMES_S).state is CrawlState.STOPPED
    assert numbers(second) == [3, 4]
    assert numbers(first) == [0, 1, 2]


def test_a_machine_that_comes_later_gets_what_is_left_and_no_output_twice(
    source: Source, sender: Callable[..., Session]
) -> None:
    source.bring(0, 1, 2)
    session = sender("one")
    first = session.attach(source.id)
    wait_until(has(first, 0, 1, 2), COMES_S, "items")
    session.close()
    source.bring(3)
    second = sender("two").attach(source.id)
    (note,) = second.notes
    assert note == (logging.INFO, f"3 items were collected by {session.record.host} before")
    wait_until(has(second, 3), COMES_S, "the rest")
    # And back to the first one, past whose witness the second has gone.
    third_session = sender("one")
    wait_until(source.is_acked, COMES_S, "the acknowledgement")
    third = third_session.attach(source.id, take=True)
    source.bring(4)
    wait_until(has(third, 0, 1, 2, 4), COMES_S, "a new item where the first ones are")
    source.end()
    assert third.wait(COMES_S).state is CrawlState.STOPPED
    assert second.wait(COMES_S).state is CrawlState.STOPPED
    assert (numbers(second), numbers(third)) == ([3], [0, 1, 2, 4])


def test_one_that_takes_over_gets_what_is_to_come_and_the_former_one_keeps_what_it_has(
    source: Source, sender: Callable[..., Session]
) -> None:
    source.bring(0)
    first, heard = sender("one").attach(source.id), Hearing()
    first.listen(heard)
    wait_until(has(first, 0), COMES_S, "an item")
    wait_until(source.is_acked, COMES_S, "the acknowledgement")
    taker = sender("two")
    second = taker.attach(source.id)
    assert taker.attach(source.id, take=True) is second
    who = f"{taker.record.host} (terminal, pid {taker.record.pid})"
    wait_until(lambda: heard.heard(f"was taken over by {who}"), COMES_S, "the line")
    source.bring(1, 2)
    wait_until(has(second, 1, 2), COMES_S, "what came since")
    source.end()
    for crawl in (first, second):
        assert crawl.wait(COMES_S).state is CrawlState.STOPPED
    assert (numbers(first), numbers(second)) == ([0], [1, 2])
    told = [text for level, text in heard.said if level >= logging.WARNING]
    assert len(told) == 1
    assert "what came here until now is kept" in told[0]
    assert "--take" in told[0]


def test_a_crawl_that_is_over_is_collected_by_one_that_watched_when_its_collector_is_gone(
    source: Source, sender: Callable[..., Session], store: Store
) -> None:
    session = sender("one")
    first = session.attach(source.id)
    second = sender("two").attach(source.id)
    first.close()  # as one that is stopped: its session lives
    source.bring(0, 1)
    session.close()
    source.end()
    assert second.wait(COMES_S).state is CrawlState.STOPPED
    assert numbers(second) == [0, 1]


def test_what_was_kept_and_not_acknowledged_is_of_the_one_that_did(
    store: Store, source: Source, sender: Callable[..., Session], tmp_path: Path
) -> None:
    source.bring(0, 1, 2)
    session = sender("one")
    first = session.attach(source.id)
    wait_until(has(first, 0, 1, 2), COMES_S, "items")
    session.close()
    source.bring(3, 4)
    # As a process does that is killed between its disk and its word to the server.
    with Spool(tmp_path / "one", source.id, first.view.spec) as spool:
        found = Outputs(store, source.id).read(spool.last)
        assert len(spool.keep(found)) == 2
    second_session = sender("two")
    second = second_session.attach(source.id)
    wait_until(has(second, 3, 4), COMES_S, "what was not acknowledged")
    watching = sender("one").attach(source.id)
    assert numbers(watching) == [0, 1, 2]
    second_session.close()
    source.bring(5)
    wait_until(has(watching, 0, 1, 2, 5), COMES_S, "what came since")


def test_what_nobody_else_acknowledged_stays_where_it_is(
    store: Store, source: Source, sender: Callable[..., Session], tmp_path: Path
) -> None:
    source.bring(0, 1)
    session = sender("one")
    with Spool(tmp_path / "one", source.id, Crawls(store).view(source.id).spec) as spool:
        assert len(spool.keep(Outputs(store, source.id).read())) == 2
    first = session.attach(source.id)
    wait_until(source.is_acked, COMES_S, "an acknowledgement, though nothing came")
    assert first.notes == ()
    source.bring(2)
    wait_until(has(first, 0, 1, 2), COMES_S, "the third item")
    session.close()
    second = sender("two").attach(source.id)
    source.bring(3)
    wait_until(has(second, 3), COMES_S, "a fourth one elsewhere")


def test_a_second_terminal_of_the_same_user_reads_along_and_goes_on(
    source: Source, sender: Callable[..., Session]
) -> None:
    source.bring(0)
    session = sender("one")
    first = session.attach(source.id)
    second = sender("one").attach(source.id)
    heard = listening(second)
    assert heard.heard("for this user on this machine: what it brings is here too")
    assert second.collected_by == ""
    wait_until(has(second, 0), COMES_S, "an item of the other")
    session.close()
    source.bring(1)
    wait_until(has(second, 0, 1), COMES_S, "an item of its own")
    assert heard.heard("is collected here now:")
    assert numbers(first) == [0, 1]  # the same folder, though that one is closed


def test_a_second_terminal_of_the_same_user_takes_over_when_the_first_lets_go(
    source: Source, sender: Callable[..., Session]
) -> None:
    source.bring(0)
    first = sender("one").attach(source.id)
    wait_until(has(first, 0), COMES_S, "an item")
    session = sender("one")
    second = session.attach(source.id, take=True)
    wait_until(lambda: first.notes != () and second.elsewhere == (), COMES_S, "a line")
    wait_until(lambda: second._spool.collects, COMES_S, "the folder")
    source.bring(1)
    for crawl in (first, second):
        wait_until(has(crawl, 0, 1), COMES_S, "both items, of which the first reads one along")
    assert first.notes[-1][1].startswith(f"crawl {source.id} was taken over by")


def test_a_crawl_that_one_has_collected_to_its_end_can_be_attached_elsewhere(
    source: Source, sender: Callable[..., Session]
) -> None:
    source.bring(0, 1)
    first = sender("one").attach(source.id)
    source.end()
    first.wait(COMES_S)
    second = sender("two").attach(source.id)
    assert [text for _, text in second.notes] == [
        f"2 items were collected by {second.elsewhere[0].host} before"
    ]
    assert second.wait(COMES_S).state is CrawlState.STOPPED
    assert numbers(second) == []


def test_a_crawl_that_may_have_begun_though_its_order_failed_is_cancelled(
    store: Store, own_spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vscrapy_magic.store.placement.CREATE_WITHIN_S", 0.0)

    def states() -> list[CrawlState]:
        return [view.state for view in Crawls(store).list_all()]

    with Relay(store.url) as relay, Session.connect(relay.url) as session:
        left = session.crawl(Pages, detach=True)  # the server knows the script
        left.stop(now=True)
        for detach in (False, True):
            relay.break_after(load_script("create").sha1.encode())
            with pytest.raises(StoreUnreachableError):
                session.crawl(Pages, detach=detach)
            wait_until(lambda: CrawlState.CANCELLED in states(), COMES_S, "the end")
            assert CrawlState.QUEUED not in states()
            store.client.zremrangebyrank("vscrapy:crawls", 1, -1)
        view: Any = left.wait(COMES_S)
        assert view.state is CrawlState.STOPPED
