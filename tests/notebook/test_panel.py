"""The panel without a browser: what it sends, how often, what it keeps and leaves behind."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.notebook.feeding import (
    CRAWL,
    HOSTILE,
    Feeder,
    ended_crawl,
    failure,
    line,
    members,
    some_lines,
    view,
)
from tests.waiting import wait_until
from vscrapy_magic.errors import StateError
from vscrapy_magic.notebook import panel as panel_module
from vscrapy_magic.notebook.panel import FLUSH_S, KEPT_MAX, PANES_MAX, Panel
from vscrapy_magic.notebook.rings import ROWS_MAX


class FakeComm:
    """Takes what would go to the page."""

    comm_id = "c0"

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.is_open = True

    def send(self, data: dict[str, Any], *_: object, **__: object) -> None:
        assert self.is_open
        self.sent.append(data)

    def on_msg(self, handler: object) -> None:
        self.handler = handler

    def close(self, *_: object, **__: object) -> None:
        self.is_open = False

    def custom(self) -> list[dict[str, Any]]:
        return [data["content"] for data in self.sent if data["method"] == "custom"]

    def ask(self, content: object) -> None:
        """A message of the page."""
        message = {"content": {"data": {"method": "custom", "content": content}}, "buffers": []}
        self.handler(message)  # type: ignore[operator]


class FakeHandle:
    """A display handle that remembers what it was told to show."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def update(self, data: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.shown.append(data)


@pytest.fixture
def comms(monkeypatch: pytest.MonkeyPatch) -> list[FakeComm]:
    made: list[FakeComm] = []

    def create(**_: object) -> FakeComm:
        made.append(FakeComm())
        return made[-1]

    monkeypatch.setattr("comm.create_comm", create)
    return made


@pytest.fixture
def handles(monkeypatch: pytest.MonkeyPatch) -> list[FakeHandle]:
    made: list[FakeHandle] = []

    def display(_shown: object, *, display_id: bool) -> FakeHandle:
        assert display_id
        made.append(FakeHandle())
        return made[-1]

    monkeypatch.setattr(panel_module, "display", display)
    return made


@pytest.fixture
def panel(comms: list[FakeComm], handles: list[FakeHandle]) -> Iterator[Panel]:
    made = Panel()
    yield made
    made.dispose()
    panel_module._ended.clear()


def comm_of(panel: Panel) -> FakeComm:
    return panel.widget.comm


def test_one_flush_is_one_message_of_state_and_one_of_lines_for_all_panes(panel: Panel) -> None:
    panel.view(view())
    panel.lines([line("a"), line("b\nc", 40, "host-2"), line("d", worker="sender")])
    comm_of(panel).sent.clear()
    panel.close()
    state, lines = comm_of(panel).sent
    assert state["method"] == "update"
    assert set(state["state"]) == {"head", "panes"}
    names = [pane["name"] for pane in state["state"]["panes"]]
    assert names == ["host-1", "host-10", "host-2", "other-1", "sender"]
    assert lines["content"]["k"] == "lines"
    clock = lines["content"]["v"][0][2][1:9]
    assert lines["content"]["v"] == [
        (0, 1, f"I{clock} [quotes] INFO: a"),
        (2, 1, f"E{clock} [quotes] ERROR: b\nec"),
        (4, 1, f"I{clock} [quotes] INFO: d"),
    ]


def test_lines_are_sent_once_and_nothing_is_sent_when_nothing_is_new(panel: Panel) -> None:
    panel.view(view("finished"))
    panel.lines([line("a")])
    panel.close()
    count = len(comm_of(panel).sent)
    panel.close()
    assert len(comm_of(panel).sent) == count
    panel.lines([line("b")])
    panel.close()
    assert comm_of(panel).custom()[-1]["v"][0][:2] == (0, 2)


def test_a_thread_of_its_own_sends_at_most_twenty_messages_a_second(panel: Panel) -> None:
    sent = comm_of(panel).sent
    started_s = time.monotonic()
    panel.show()
    with Feeder(panel, lambda number: [line(f"n {number}")] * 50, every_s=0.01) as feeder:
        wait_until(lambda: feeder.rounds >= 100, 30)
        thread = next(t for t in threading.enumerate() if t.name == "vscrapy-panel")
        assert thread.daemon
    panel.close()
    assert not thread.is_alive()
    assert panel.widget.panes[0]["lines"] == 50 * feeder.rounds
    assert 10 <= len(sent) <= 20 * (time.monotonic() - started_s)


def test_something_is_sent_each_second_while_a_crawl_goes_on_and_nothing_afterwards(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1_800_000_000.0  # the crawl runs for a year: its duration is said in hours
    monkeypatch.setattr("vscrapy_magic.notebook.panel.time.time", lambda: now_s)
    for state, sent_each_second in (("running", 1), ("finished", 0)):
        panel.view(view(state))
        panel.close()
        count = len(comm_of(panel).sent)
        now_s += 1
        panel.close()
        assert len(comm_of(panel).sent) - count == sent_each_second


def test_what_a_page_did_not_get_is_told_by_the_numbers_of_rows(panel: Panel) -> None:
    panel.lines([line(f"n {number}") for number in range(3 * ROWS_MAX)])
    panel.close()
    ((pane, first, rows),) = comm_of(panel).custom()[-1]["v"]
    assert (pane, first) == (0, 2 * ROWS_MAX + 1)
    assert rows.count("\n") == ROWS_MAX - 1
    assert panel.widget.panes[0]["lines"] == 3 * ROWS_MAX


def test_a_page_that_was_loaded_again_gets_all_rows_that_are_kept(panel: Panel) -> None:
    panel.lines([line(f"n {number}") for number in range(100)])
    panel.show()
    wait_until(lambda: comm_of(panel).custom(), 5)
    panel.lines([line("last")])
    comm_of(panel).ask({"k": "hello"})
    wait_until(lambda: comm_of(panel).custom()[-1]["k"] == "backlog", 5)
    ((_, first, rows),) = comm_of(panel).custom()[-1]["v"]
    assert first == 1
    assert rows.count("\n") == 100
    assert rows.endswith("last")


def test_a_backlog_is_there_after_the_end_too(panel: Panel, tmp_path: Path) -> None:
    panel.lines([line("a")])
    panel.finish(ended_crawl(tmp_path))
    comm_of(panel).ask({"k": "hello"})
    assert comm_of(panel).custom()[-1]["k"] == "backlog"


def test_dropped_lines_and_workers_that_left_are_shown(panel: Panel) -> None:
    panel.view(view())
    panel.lines([line("12 lines were dropped here", 30, dropped=12)])
    panel.view(view(members=members("host-2")))
    panel.mark("host-2", "late")
    panel.close()
    states = {pane["name"]: pane for pane in panel.widget.panes}
    assert states["host-1"]["dropped"] == 12
    assert states["host-1"]["lines"] == 0
    assert states["host-1"]["mark"] == "left"
    assert states["host-2"]["mark"] == "late"
    panel.view(view(members=members("host-1", "host-2")))
    panel.close()
    assert {pane["name"]: pane["mark"] for pane in panel.widget.panes}["host-1"] == ""


def test_more_workers_than_panes_share_one(panel: Panel) -> None:
    count = PANES_MAX + 5
    panel.lines([line("a", worker=f"w{number}") for number in range(count)] * 2)
    panel.close()
    assert len(panel.widget.panes) == PANES_MAX + 1
    shared = panel.widget.panes[-1]
    assert (shared["name"], shared["lines"]) == ("other workers", 10)
    assert "(w66) a" in panel.kept()["other workers"].rows[-3].text


def test_the_head_says_what_the_sender_sees_of_its_server_the_newest_last(panel: Panel) -> None:
    away = line("the server at X does not answer", 30, "sender", source="sender")
    back = line("the server answers again, after 7 s", 20, "sender", source="sender")
    panel.lines([away, back, line("a page", 30), away])
    panel.close()
    assert panel.widget.head["notices"] == [back.text, away.text]


def test_the_head_says_what_the_crawl_does(panel: Panel) -> None:
    panel.notice("1 of 4 workers: state on self, Cell In[3] line 12")
    panel.notice("1 of 4 workers: state on self, Cell In[3] line 12")
    panel.view(view("waiting", why="items not collected", limited_by="DOWNLOAD_DELAY = 1 on a.com"))
    panel.close()
    head = panel.widget.head
    assert (head["title"], head["crawl_id"], head["state"]) == ("quotes", CRAWL, "waiting")
    assert head["words"].startswith("waiting: 4 workers, 120 pages, 96 items, 2 errors, 40 queued")
    assert head["notices"] == [
        "1 of 4 workers: state on self, Cell In[3] line 12",
        "waiting: items not collected",
        "limited by DOWNLOAD_DELAY = 1 on a.com (%vset DOWNLOAD_DELAY=... changes it)",
    ]
    assert head["stoppable"]


@pytest.mark.parametrize("state", ["closing", "finished", "stopped", "failed", "cancelled"])
def test_what_ends_by_itself_cannot_be_stopped(panel: Panel, state: str) -> None:
    panel.view(view(state))
    panel.close()
    assert not panel.widget.head["stoppable"]


def test_presses_of_the_stop_button_reach_the_crawl(
    comms: list[FakeComm], handles: list[FakeHandle]
) -> None:
    pressed: list[bool] = []

    def stop(now: bool) -> None:
        pressed.append(now)
        raise StateError("crawl 1a2b3c4d is over")

    panel = Panel(blocking=False, on_stop=stop)
    for content in ({"k": "stop", "now": False}, {"k": "stop", "now": True}, "nonsense", {}):
        comm_of(panel).ask(content)
    panel.close()
    assert pressed == [False, True]
    assert panel.widget.head["notices"] == ["crawl 1a2b3c4d is over"]
    panel.dispose()


def test_the_bundle_of_a_running_panel_has_a_view_and_two_texts(panel: Panel) -> None:
    data, _ = panel._repr_mimebundle_()
    assert data["text/plain"] == "a crawl begins"
    panel.view(view(spider=f"q{HOSTILE}"))
    data, _ = panel._repr_mimebundle_()
    assert set(data) == {
        "application/vnd.jupyter.widget-view+json",
        "text/html",
        "text/plain",
    }
    assert "\n" not in data["text/plain"]
    assert data["text/plain"].startswith(f"crawl {CRAWL} q<script>")
    assert "\x1b" not in data["text/plain"]
    assert "<script" not in data["text/html"]


def test_the_end_replaces_the_panel_wherever_it_is_shown(
    panel: Panel, handles: list[FakeHandle], tmp_path: Path
) -> None:
    panel.show()
    panel.show()
    panel.lines([line(HOSTILE)])
    panel.finish(ended_crawl(tmp_path, failures=[failure(message=HOSTILE)]))
    assert len(handles) == 2
    for handle in handles:
        (shown,) = handle.shown
        assert set(shown) == {"text/html", "text/plain"}
        assert "<script" not in shown["text/html"]
        assert "<img" not in shown["text/html"]
        assert "finished" in shown["text/plain"]
    assert panel.widget.head["state"] == "finished"
    assert not panel.widget.head["blocking"]


def test_a_crawl_that_ends_after_its_cell_gets_a_new_summary(
    panel: Panel, handles: list[FakeHandle], tmp_path: Path
) -> None:
    panel.show()
    crawl = ended_crawl(tmp_path, view("closing"))
    panel.finish(crawl)
    crawl._view = view("stopped")
    panel.ended(crawl.view)
    panel.notice("the feeds were not written")
    texts = [shown["text/plain"].partition(":")[0] for shown in handles[0].shown]
    assert texts == [f"crawl {CRAWL} quotes {state}" for state in ("closing", "stopped", "stopped")]
    assert "the feeds were not written" in handles[0].shown[-1]["text/html"]


def test_a_panel_can_be_shown_again_after_its_end_until_others_have_ended(
    comms: list[FakeComm], handles: list[FakeHandle], tmp_path: Path
) -> None:
    panels, opened = [], []
    for number in range(KEPT_MAX + 1):
        made = Panel()
        opened.append(comm_of(made))
        made.lines([line(f"n {number}")])
        folder = tmp_path / str(number)
        folder.mkdir()
        made.finish(ended_crawl(folder))
        panels.append(made)
    oldest, *others = (panel._repr_mimebundle_()[0] for panel in panels)
    assert "application/vnd.jupyter.widget-view+json" not in oldest
    assert "finished" in oldest["text/plain"]
    assert all("application/vnd.jupyter.widget-view+json" in data for data in others)
    assert [comm.is_open for comm in opened] == [False] + [True] * KEPT_MAX
    assert not panels[0].kept()
    for panel in panels:
        panel.dispose()
    panel_module._ended.clear()


def test_an_open_input_box_can_be_answered(panel: Panel) -> None:
    panel.cancel_input("cancelled")
    assert comm_of(panel).custom() == [{"k": "enter", "v": "cancelled"}]


def test_threads_never_print(panel: Panel, capfd: pytest.CaptureFixture[str]) -> None:
    panel.show()
    with Feeder(panel, some_lines, every_s=FLUSH_S / 10) as feeder:
        wait_until(lambda: feeder.rounds > 50, 30)
    panel.close()
    assert capfd.readouterr() == ("", "")
