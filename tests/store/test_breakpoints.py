"""Halts: listed while their child is a member, bounded both ways, gone with the crawl."""

import pytest

from tests.store.driver import Child, order, requests
from vscrapy_magic.store.breakpoints import (
    ENTRIES_KEPT,
    ENTRY_CHARS,
    TEXT_CHARS_MAX,
    TYPED_KEPT,
    Halt,
    HaltKind,
    Halts,
    Refusal,
    Said,
    SaidKind,
    Screen,
    entries_of,
)
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import MemberToken, WorkerName, crawl_key

PLACE = "Cell In[3], line 12, in Books.parse"
END = Said(100, SaidKind.END, "it goes on")


@pytest.fixture
def frontier(store: Store) -> Frontier:
    return order(store)


@pytest.fixture
def halts(store: Store, frontier: Frontier) -> Halts:
    return Halts(store, frontier.crawl_id)


def halt(worker: str = "w-1", kind: HaltKind = HaltKind.BREAKPOINT) -> Halt:
    return Halt(WorkerName(worker), "https://example.com/é", PLACE, kind)


def stand(halts: Halts, frontier: Frontier, name: str) -> int:
    Child(frontier, name)
    number = halts.begin(MemberToken(name), halt(name))
    assert isinstance(number, int)
    return number


def left_over(store: Store, frontier: Frontier) -> list[str]:
    keys = store.client.keys(crawl_key(frontier.crawl_id, "halt*"))
    return sorted(key.decode().partition("}:")[2] for key in keys)


def test_halts_are_listed_in_their_order_and_the_view_tells_of_the_first(
    store: Store, frontier: Frontier, halts: Halts
) -> None:
    first, second = (stand(halts, frontier, name) for name in ("w-1", "w-2"))
    assert [(each.number, each.worker) for each in halts.standing()] == [
        (first, "w-1"),
        (second, "w-2"),
    ]
    assert halts.standing()[0].url == "https://example.com/é"
    crawls = Crawls(store)
    view = crawls.view(frontier.crawl_id)
    assert (view.halts, view.halted_at) == (2, f"breakpoint on w-1: {PLACE}")
    halts.end(first, END)
    view = crawls.view(frontier.crawl_id)
    assert (view.halts, view.halted_at) == (1, f"breakpoint on w-2: {PLACE}")
    halts.end(second, END)
    halts.end(second, END)
    view = crawls.view(frontier.crawl_id)
    assert (view.halts, view.halted_at) == (0, "")


def test_what_is_shown_and_typed_arrives_in_order(
    store: Store, frontier: Frontier, halts: Halts
) -> None:
    number = stand(halts, frontier, "w-1")
    with Screen(store, frontier.crawl_id, number) as screen:
        assert screen.read(0.01) == []
        assert halts.say(number, entries_of("> here\n", SaidKind.TEXT, 0))
        assert halts.say(number, entries_of("(Pdb) ", SaidKind.PROMPT, 1))
        said = screen.read(1) or []
        assert [(each.kind, each.text) for each in said] == [
            (SaidKind.TEXT, "> here\n"),
            (SaidKind.PROMPT, "(Pdb) "),
        ]
        with store.blocking_client() as client:
            before = halts.hear(client, number, 0.01)
            assert (before.line, before.goes_on) == (None, False)
            assert halts.type(number, "p x")
            assert halts.type(number, None)
            heard = [halts.hear(client, number, 1) for _ in range(2)]
        assert [each.line for each in heard] == ["p x\n", ""]
        assert heard[0].typed == before.typed + 2
        halts.end(number, Said(3, SaidKind.END, "it goes on"))
        assert screen.read(1) == [Said(3, SaidKind.END, "it goes on")]
        assert screen.read(0.01) is None


def test_nothing_is_written_for_one_who_does_not_stand_there(
    store: Store, frontier: Frontier, halts: Halts
) -> None:
    number = stand(halts, frontier, "w-1")
    halts.end(number, END)
    assert not halts.type(number, "p x")
    assert not halts.say(number, entries_of("x", SaidKind.TEXT, 100))
    assert left_over(store, frontier) == [f"halt:{number}"]
    assert 0 < store.client.pttl(crawl_key(frontier.crawl_id, f"halt:{number}")) <= 60_000


def test_both_directions_are_bounded_and_a_line_says_what_was_cut(
    store: Store, frontier: Frontier, halts: Halts
) -> None:
    number = stand(halts, frontier, "w-1")
    shown = 0
    for _ in range(3):
        entries = entries_of("x" * ENTRY_CHARS * 30, SaidKind.TEXT, shown)
        shown = entries[-1].number
        halts.say(number, entries)
    assert shown == 90
    with Screen(store, frontier.crawl_id, number) as screen:
        said = screen.read(1) or []
        assert len(said) == 1 + ENTRIES_KEPT
        assert "what was shown before is cut" in said[0].text
        assert said[-1].number == shown
    for n in range(TYPED_KEPT + 20):
        halts.type(number, str(n))
    assert store.client.llen(crawl_key(frontier.crawl_id, f"halt-in:{number}")) == TYPED_KEPT


def test_a_very_long_text_keeps_its_end_and_says_so() -> None:
    entries = entries_of("a" * TEXT_CHARS_MAX + "b" * 1234, SaidKind.PROMPT, 7)
    assert entries[0].text.startswith("... 1,234 characters before this are cut ...\naaa")
    assert entries[-1].text.endswith("b")
    assert [entry.number for entry in entries] == list(range(8, 8 + len(entries)))
    assert {entry.kind for entry in entries[:-1]} == {SaidKind.TEXT}
    assert entries[-1].kind is SaidKind.PROMPT
    assert len(entries) <= ENTRIES_KEPT
    assert entries_of("\ud800", SaidKind.TEXT, 0)[0].text == "\\ud800"


def test_a_child_that_is_gone_stands_nowhere(
    store: Store, frontier: Frontier, halts: Halts
) -> None:
    number = stand(halts, frontier, "w-1")
    stand(halts, frontier, "w-2")
    halts.say(number, entries_of("x", SaidKind.TEXT, 0))
    halts.type(number, "p x")
    frontier.reclaim(MemberToken("w-1"))
    assert [each.worker for each in halts.standing()] == ["w-2"]
    assert left_over(store, frontier) == ["halts"]
    with Screen(store, frontier.crawl_id, number) as screen:
        assert screen.read(0.01) is None


def test_a_crawl_that_is_over_keeps_nothing_of_them(
    store: Store, frontier: Frontier, halts: Halts
) -> None:
    number = stand(halts, frontier, "w-1")
    halts.say(number, entries_of("x", SaidKind.TEXT, 0))
    halts.type(number, "p x")
    crawls = Crawls(store)
    crawls.kill(frontier.crawl_id)
    assert left_over(store, frontier) == []
    view = crawls.view(frontier.crawl_id)
    assert (view.halts, view.halted_at) == (0, "")
    halts.end(number, END)
    assert left_over(store, frontier) == []


def test_who_may_not_stop(store: Store, frontier: Frontier, halts: Halts) -> None:
    assert halts.begin(MemberToken("nobody"), halt()) is Refusal.GONE
    number = stand(halts, frontier, "w-1")
    halts.end(number, END, off=True)
    assert halts.begin(MemberToken("w-1"), halt()) is Refusal.OFF
    other = order(store)
    Child(other, "w-1")
    Crawls(store).stop(other.crawl_id)
    assert Halts(store, other.crawl_id).begin(MemberToken("w-1"), halt()) is Refusal.OVER


def test_leaving_for_good_lets_those_go_who_stand_elsewhere(
    store: Store, frontier: Frontier, halts: Halts
) -> None:
    first, second = (stand(halts, frontier, name) for name in ("w-1", "w-2"))
    halts.end(first, END, off=True)
    with store.blocking_client() as client:
        assert halts.hear(client, second, 1).goes_on
        assert not halts.hear(client, second, 0.01).goes_on


def test_a_stopping_crawl_lets_its_children_go_on(
    store: Store, frontier: Frontier, halts: Halts
) -> None:
    child = Child(frontier, "w-1")
    (start,) = child.step(want=1).leases
    child.step(ended=(start.lease_id,), requests=requests([1]), want=1)
    number = halts.begin(child.token, halt())
    assert isinstance(number, int)
    Crawls(store).stop(frontier.crawl_id)
    with store.blocking_client() as client:
        assert halts.hear(client, number, 0.01).goes_on


def test_only_the_first_failure_stops_unless_it_has_died_there(
    frontier: Frontier, halts: Halts
) -> None:
    failure = halt(kind=HaltKind.FAILURE)
    for name in ("w-1", "w-2"):
        Child(frontier, name)
    assert halts.begin(MemberToken("w-1"), failure, once=True) == 1
    assert halts.begin(MemberToken("w-2"), failure, once=True) is Refusal.LATE
    assert halts.begin(MemberToken("w-2"), halt()) == 2
    frontier.reclaim(MemberToken("w-1"))
    assert halts.begin(MemberToken("w-2"), failure, once=True) == 3
    halts.end(3, END)
    assert halts.begin(MemberToken("w-2"), failure, once=True) is Refusal.LATE
