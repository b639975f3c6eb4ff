"""A crawl of a cell is placed first and shown then; nothing that comes meanwhile is missed."""

import signal
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.notebook.feeding import line, view
from vscrapy_magic.errors import StoreUnreachableError
from vscrapy_magic.notebook.interrupts import CrawlInterruptedError
from vscrapy_magic.notebook.running import Early, Running, start
from vscrapy_magic.sender.options import CrawlOptions
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.views import CrawlView


class Crawl:
    """A crawl, and the session that places it; notes what is done, in order."""

    feed_notes = ()
    is_over = True

    def __init__(self, meanwhile: Callable[[Early], None] = lambda _: None) -> None:
        self.done: list[str] = []
        self.view = view("running")
        self.state = self.view.state
        self._meanwhile = meanwhile
        self._listener: Running | None = None

    def place(self, _order: object, *, detach: bool, listener: Early) -> "Crawl":
        self.done.append("placed")
        self._meanwhile(listener)
        return self

    def listen(self, listener: Running) -> None:
        self.done.append("listened to")
        self._listener = listener

    def stop(self, *, now: bool) -> None:
        self.done.append(f"stopped, now={now}")
        if self._listener is not None:
            self._listener.ended(self.view)

    def start(self, open_screen: Callable[[], Any]) -> Running:
        order = SimpleNamespace(shipped=SimpleNamespace(pinned=""), notes=())
        return start(cast("Any", self), cast("Any", order), CrawlOptions(), open_screen)


class Screen:
    """A screen that notes what it shows beside what is done to its crawl."""

    def __init__(self, done: list[str]) -> None:
        self.done = done
        done.append("made")

    def show(self) -> None:
        self.done.append("shown")

    def lines(self, lines: Sequence[LogLine]) -> None:
        self.done += [line.text for line in lines]

    def view(self, view: CrawlView) -> None:
        self.done.append(str(view.state))

    def ended(self, view: CrawlView) -> None:
        self.done.append(f"ended as {view.state}")

    def notice(self, text: str) -> None:
        """Nothing that is looked at here."""

    def drain(self) -> None:
        """Nothing that is looked at here."""

    def finish(self, _crawl: object) -> None:
        self.done.append("finished")


def test_the_screen_is_made_when_the_workers_have_begun() -> None:
    crawl = Crawl()
    crawl.start(lambda: Screen(crawl.done))
    assert crawl.done == ["placed", "made", "shown", "listened to"]


def test_what_comes_before_there_is_a_screen_is_shown() -> None:
    def meanwhile(early: Early) -> None:
        early.view(view("starting"))
        early.lines([line("one")])
        early.view(view("running"))
        early.lines([line("two"), line("three")])
        early.ended(view("finished"))

    crawl = Crawl(meanwhile)
    crawl.start(lambda: Screen(crawl.done))
    came = ["running", "one", "two", "three", "ended as finished"]
    assert crawl.done == ["placed", "made", "shown", *came, "listened to"]


def test_later_lines_go_straight_to_the_screen() -> None:
    done: list[str] = []
    early = Early()
    early.hand_on(Screen(done))
    early.lines([line("one")])
    early.view(view("running"))
    early.ended(view("finished"))
    assert done == ["made", "one", "running", "ended as finished"]


def test_an_interrupt_while_the_screen_is_made_stops_the_crawl_as_a_later_one() -> None:
    def open_screen() -> Screen:
        signal.raise_signal(signal.SIGINT)
        return Screen(crawl.done)

    crawl = Crawl()
    running = crawl.start(open_screen)
    with pytest.raises(CrawlInterruptedError):
        running.wait()
    assert crawl.done[-2:] == ["stopped, now=False", "finished"]


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), ImportError("no widgets")])
def test_a_crawl_that_cannot_be_shown_is_ended(problem: BaseException) -> None:
    def open_screen() -> Any:
        raise problem

    crawl = Crawl()
    with pytest.raises(type(problem)):
        crawl.start(open_screen)
    assert crawl.done == ["placed", "stopped, now=True"]


def test_what_went_wrong_is_told_although_the_server_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*, now: bool) -> None:
        raise StoreUnreachableError("away")

    def open_screen() -> Any:
        raise ImportError("no widgets")

    crawl = Crawl()
    monkeypatch.setattr(crawl, "stop", stop)
    with pytest.raises(ImportError, match="no widgets"):
        crawl.start(open_screen)
