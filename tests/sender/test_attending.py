"""Who sits at the prompt of a child, with a keyboard that a test holds."""

import signal
import threading
from collections.abc import Callable

import pytest

from tests.store.driver import Child, order
from vscrapy_magic.sender.attending import attend
from vscrapy_magic.sender.interrupts import Interrupts
from vscrapy_magic.store.breakpoints import Halt, Halts, Said, SaidKind, entries_of
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import MemberToken, WorkerName

TOKEN = MemberToken("w-1")
WAIT_S = 10.0


class Keyboard:
    """Types what it is told to; notes what is shown, and who presses Enter."""

    def __init__(self, *answers: Callable[[], str]) -> None:
        self._answers = list(answers)
        self.shown = ""
        self.pressed = threading.Event()

    def say(self, text: str) -> None:
        self.shown += text

    def ask(self, prompt: str) -> str:
        self.shown += prompt
        return self._answers.pop(0)()

    def press_enter(self) -> None:
        self.pressed.set()


@pytest.fixture
def frontier(store: Store) -> Frontier:
    made = order(store)
    Child(made, TOKEN)
    return made


@pytest.fixture
def halts(store: Store, frontier: Frontier) -> Halts:
    return Halts(store, frontier.crawl_id)


@pytest.fixture
def number(halts: Halts) -> int:
    begun = halts.begin(TOKEN, Halt(WorkerName("w-1"), "data:,1", "spider.py, line 3, in parse"))
    assert isinstance(begun, int)
    halts.say(begun, entries_of("\x1b[31mhere\x07\n(Pdb) ", SaidKind.PROMPT, 0))
    return begun


def ends(halts: Halts, number: int, text: str = "it goes on") -> None:
    halts.end(number, Said(2, SaidKind.END, text))


def sit(store: Store, frontier: Frontier, keyboard: Keyboard) -> int:
    """Interrupts that were counted."""
    with Interrupts(signal.SIGINT) as interrupts:
        assert attend(store, frontier.crawl_id, keyboard, interrupts) is not None
    return interrupts.count


def test_a_line_reaches_the_child_and_what_it_shows_is_text(
    store: Store, frontier: Frontier, halts: Halts, number: int
) -> None:
    heard: list[str | None] = []

    def answer() -> None:
        with store.blocking_client() as client:
            heard.append(halts.hear(client, number, WAIT_S / 3).line)
        ends(halts, number)

    child = threading.Thread(target=answer)
    child.start()
    keyboard = Keyboard(lambda: "p x")
    assert sit(store, frontier, keyboard) == 0
    child.join()
    assert heard == ["p x\n"]
    assert keyboard.shown == "here\n(Pdb) w-1: it goes on\n"


def test_nobody_standing_there_is_no_error(store: Store, frontier: Frontier) -> None:
    with Interrupts(signal.SIGINT) as interrupts:
        assert attend(store, frontier.crawl_id, Keyboard(), interrupts) is None


def test_a_prompt_that_came_to_nothing_is_answered_by_the_page(
    store: Store, frontier: Frontier, halts: Halts, number: int
) -> None:
    def wait_for_enter() -> str:
        ends(halts, number, "nobody typed anything")
        assert keyboard.pressed.wait(WAIT_S)
        return "half a lin"

    keyboard = Keyboard(wait_for_enter)
    assert sit(store, frontier, keyboard) == 0
    assert keyboard.shown.endswith("w-1: nobody typed anything\n")


def test_where_no_page_presses_enter_the_prompt_is_interrupted_and_nobody_else_is(
    store: Store, frontier: Frontier, number: int
) -> None:
    def wait_for_ever() -> str:
        frontier.reclaim(TOKEN)  # the child has died
        threading.Event().wait(WAIT_S)
        return "too late"

    keyboard = Keyboard(wait_for_ever)
    assert sit(store, frontier, keyboard) == 0
    assert keyboard.shown.endswith("w-1 is gone; what it worked on runs again elsewhere\n")


def test_an_interrupt_of_the_user_ends_it_and_counts(
    store: Store, frontier: Frontier, halts: Halts, number: int
) -> None:
    def interrupted() -> str:
        signal.raise_signal(signal.SIGINT)
        return "not read"

    keyboard = Keyboard(interrupted)
    assert sit(store, frontier, keyboard) == 1
    assert keyboard.pressed.is_set()  # the box that is left in the page
    assert [halt.number for halt in halts.standing()] == [number]


def test_the_end_of_input_is_typed_as_such(
    store: Store, frontier: Frontier, halts: Halts, number: int
) -> None:
    def end_of_input() -> str:
        raise EOFError

    def answer() -> None:
        with store.blocking_client() as client:
            assert halts.hear(client, number, WAIT_S / 3).line == ""
        ends(halts, number)

    child = threading.Thread(target=answer)
    child.start()
    assert sit(store, frontier, Keyboard(end_of_input)) == 0
    child.join()
