"""The panel in a real JupyterLab in a real browser: live while its cell blocks, then static."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import browser
from tests.browser import Lab, Notebook
from tests.notebook.feeding import HOSTILE, WORKERS
from tests.waiting import wait_until
from vscrapy_magic.notebook.rings import ROWS_MAX

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(browser.missing()), reason=browser.missing()),
]

IMPORTS = """
import threading, time
from pathlib import Path
from tests.notebook.feeding import *
panel = Panel()
"""
# Blocks as a crawl's cell does, until a file is there; the file is the end of the crawl.
BLOCK = """
Path("end").unlink(missing_ok=True)
panel.view(view())
panel.show()
with Feeder(panel, {lines}, every_s=0.05) as feeder:
    while not Path("end").exists():
        time.sleep(0.05)
{at_end}
"""
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with Lab(tmp_path_factory.mktemp("lab"), {"PYTHONPATH": str(REPOSITORY)}) as running:
        yield running
    wait_until(
        lambda: not {c.pid for c in psutil.Process().children(recursive=True)} - before,
        10,
        "processes of the browser or the server left behind",
    )


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """The browser starts and ends processes as it likes; `lab` looks when it has ended."""


def block(lines: str = "some_lines", at_end: str = "finish(panel, [failure()])") -> str:
    return BLOCK.format(lines=lines, at_end=at_end)


def end(lab: Lab) -> None:
    (lab.root / "end").touch()


def pane(notebook: Notebook, name: str) -> Any:
    return notebook.page.get_by_label(f"worker {name}", exact=True)


def counts(notebook: Notebook, name: str) -> str:
    return str(pane(notebook, name).locator(".vscrapy-pane-counts").inner_text())


def line_count(notebook: Notebook, name: str) -> int:
    return int(counts(notebook, name).split(" ")[0].replace(",", ""))


def clean(notebook: Notebook) -> None:
    assert notebook.js("() => window.pwned ?? null") is None
    assert notebook.errors == []


def test_panes_fill_while_the_cell_blocks_and_become_a_summary(lab: Lab) -> None:
    with lab.notebook([IMPORTS, block(), "display(panel)"]) as notebook:
        notebook.run(0)
        notebook.run(1, wait=False)
        notebook.until(lambda: pane(notebook, "host-10").count(), "no panes")
        for name in WORKERS:
            before = line_count(notebook, name)
            notebook.until(
                lambda name=name, before=before: line_count(notebook, name) > before + 10
            )
            assert "Crawled (200)" in pane(notebook, name).inner_text()
        names = notebook.cell(1).locator(".vscrapy-pane-name").all_inner_texts()
        assert names == ["host-1", "host-2", "host-10", "other-1"]
        notebook.wait_text("running: 4 workers", 1)
        assert notebook.prompt(1) == "*"

        end(lab)
        notebook.wait_done(1)
        notebook.wait_text("finished: 120 pages, 96 items", 1)
        assert notebook.cell(1).locator(".vscrapy-panel").count() == 0
        (output,) = notebook.save()["cells"][1]["outputs"]
        assert set(output["data"]) == {"text/html", "text/plain"}
        html = "".join(output["data"]["text/html"])
        assert all(f"{name} <span" in html for name in WORKERS)
        assert "%verrors 1" in html
        assert "<script" not in html

        notebook.run(2)  # the live one again: all lines are there
        notebook.until(lambda: pane(notebook, "host-1").count())
        assert line_count(notebook, "host-1") > 10
        assert "Crawled (200)" in pane(notebook, "host-1").inner_text()
        assert notebook.page.get_by_role("button", name="Stop").count() == 0
        clean(notebook)


def test_the_stop_button_interrupts_the_blocked_cell(lab: Lab) -> None:
    with lab.notebook([IMPORTS, block(), "print('idle again')"]) as notebook:
        notebook.run(0)
        notebook.run(1, wait=False)
        notebook.wait_text("running: 4 workers", 1)
        notebook.page.get_by_role("button", name="Stop").click()
        notebook.wait_text("KeyboardInterrupt", 1, 10)
        notebook.wait_done(1)
        notebook.until(lambda: notebook.page.get_by_role("button", name="Kill").is_enabled())
        notebook.run(2)
        notebook.wait_text("idle again", 2)


def test_the_stop_button_calls_back_when_nothing_blocks(lab: Lab) -> None:
    pressed = (
        "pressed = []\n"
        "panel = Panel(blocking=False, on_stop=pressed.append)\n"
        "panel.view(view())\n"
        "panel.show()"
    )
    with lab.notebook([IMPORTS, pressed, "import os; print(os.getpid(), pressed)"]) as notebook:
        notebook.run(0)
        notebook.run(1)
        notebook.page.get_by_role("button", name="Stop").dblclick()
        notebook.until(lambda: notebook.page.get_by_role("button", name="Kill").is_enabled())
        notebook.run(2)
        notebook.wait_text("[False]", 2)
        notebook.page.get_by_role("button", name="Kill").click()
        notebook.run(2)
        notebook.wait_text("[False, True]", 2)
        kernel = psutil.Process(int(notebook.text(2).split()[0]))
        kernel.suspend()
        notebook.wait_text("no news from the kernel", 1, 20)
        assert notebook.page.get_by_role("button", name="Kill").is_disabled()
        kernel.resume()
        notebook.until(lambda: "no news" not in notebook.text(1))
        clean(notebook)


def test_a_page_that_is_loaded_again_has_all_lines(lab: Lab) -> None:
    with lab.notebook([IMPORTS, block()]) as notebook:
        notebook.run(0)
        notebook.run(1, wait=False)
        notebook.until(lambda: pane(notebook, "host-1").count())
        notebook.until(lambda: line_count(notebook, "host-1") > 50)
        notebook.save()
        notebook.open(kernel=False)
        end(lab)
        notebook.until(lambda: notebook.kernel_state() == "idle", "the kernel is not idle")
        notebook.until(lambda: pane(notebook, "host-1").count(), "the panel did not come back")
        body = pane(notebook, "host-1").get_by_role("log")
        notebook.until(lambda: "page/" in body.inner_text(), "no lines came back")
        body.evaluate("body => { body.scrollTop = 0; }")
        notebook.until(lambda: re.search(r"page/1>", body.inner_text()), "the first line is gone")
        assert "not shown" not in body.inner_text()
        assert line_count(notebook, "host-1") > 50


def test_what_workers_and_sites_send_stays_text(lab: Lab) -> None:
    hostile = (
        f"HOSTILE_NAME = {HOSTILE!r}\n"
        "def hostile(number):\n"
        "    return [line(HOSTILE, 40, HOSTILE_NAME, logger=HOSTILE)]\n"
        "Path('end').unlink(missing_ok=True)\n"
        "panel.notice(HOSTILE)\n"
        "panel.view(view(spider=HOSTILE, why=HOSTILE, limited_by=HOSTILE,"
        " members=members(HOSTILE)))\n"
        "panel.show()\n"
        "with Feeder(panel, hostile):\n"
        "    while not Path('end').exists(): time.sleep(0.05)\n"
        "panel.mark(HOSTILE, HOSTILE)\n"
        "Path('ended').mkdir()\n"
        "panel.finish(ended_crawl(Path('ended').resolve(), view('failed', spider=HOSTILE,"
        " why=HOSTILE, close_reason=HOSTILE), [failure(HOSTILE, HOSTILE, HOSTILE)]))\n"
    )
    with lab.notebook([IMPORTS, hostile]) as notebook:
        notebook.run(0)
        notebook.run(1, wait=False)
        panel = notebook.cell(1).locator(".vscrapy-panel")
        notebook.until(lambda: panel.get_by_text("<script>window.pwned").count() >= 4)
        assert panel.locator("script, img, a, iframe").count() == 0
        clean(notebook)
        end(lab)
        notebook.wait_done(1)
        notebook.wait_text("failed", 1)
        notebook.wait_text("<img src=x", 1)
        clean(notebook)
        saved = notebook.save()
        assert "<script" not in json.dumps(saved["cells"][1]["outputs"][0]["data"]["text/html"])
        notebook.open()
        notebook.wait_text("<img src=x", 1)
        clean(notebook)


def test_of_many_lines_all_are_shown_or_counted(lab: Lab) -> None:
    # 2,000 lines a second of 4 workers, longer than the rings are.
    many = (
        "def many(number):\n"
        "    return [line(f'{number} {n}', worker=w) for w in WORKERS for n in range(25)]\n"
    )
    last = "panel.lines([line('the last one', worker=w) for w in WORKERS])"
    feed = block("many", last)
    with lab.notebook([IMPORTS + many, feed]) as notebook:
        notebook.run(0)
        notebook.run(1, wait=False)
        notebook.until(lambda: pane(notebook, "host-1").count())
        notebook.until(lambda: line_count(notebook, "host-1") > ROWS_MAX + 600)
        end(lab)
        for name in WORKERS:
            body = pane(notebook, name).get_by_role("log")
            notebook.until(lambda body=body: "the last one" in body.inner_text())
            height = body.locator(".vscrapy-pane-space").evaluate("space => space.offsetHeight")
            body.evaluate("body => { body.scrollTop = 0; }")
            notebook.until(lambda body=body: "not shown" in body.inner_text())
            found = re.search(r"\.\.\. ([\d,]+) lines not shown", body.inner_text())
            assert found is not None
            hidden = int(found.group(1).replace(",", ""))
            shown = height // 16 - 1  # one row says how many are hidden
            notebook.until(
                lambda name=name, total=hidden + shown: line_count(notebook, name) == total,
                f"{shown} shown and {hidden} hidden of {counts(notebook, name)}",
                5,
            )
            assert shown >= ROWS_MAX
        clean(notebook)


def test_lines_are_filtered_followed_and_folded_with_the_keyboard(lab: Lab) -> None:
    with lab.notebook([IMPORTS, block()]) as notebook:
        notebook.run(0)
        notebook.run(1, wait=False)
        notebook.until(lambda: pane(notebook, "host-1").count())
        notebook.until(lambda: "1 error" in counts(notebook, "host-2"))
        body = pane(notebook, "host-2").get_by_role("log")

        search = notebook.page.get_by_label("show only lines with this text")
        search.press_sequentially("traceback")
        notebook.until(lambda: "Crawled" not in body.inner_text(), "the filter does nothing")
        shown = body.inner_text()
        assert "Spider error" in shown  # all rows of the line of which one matches
        assert "ValueError: no price" in shown
        search.fill("")
        search.press_sequentially("ddii00")  # shortcuts of the notebook: delete, interrupt, restart
        notebook.until(lambda: body.inner_text().strip() == "")
        assert notebook.cell(1).count() == 1
        assert notebook.prompt(1) == "*"
        search.fill("")

        notebook.page.get_by_label("show lines of this level and above").select_option("WARNING")
        notebook.until(lambda: "Crawled" not in body.inner_text())
        assert "Spider error" in body.inner_text()
        notebook.page.get_by_label("show lines of this level and above").select_option("all")
        notebook.until(lambda: "Crawled" in body.inner_text())

        follow = notebook.page.get_by_role("button", name="Follow")
        assert follow.get_attribute("aria-pressed") == "true"
        body.press("Home")
        notebook.until(lambda: re.search(r"page/1>", body.inner_text()), "Home does nothing")
        notebook.until(lambda: follow.get_attribute("aria-pressed") == "false")
        before = line_count(notebook, "host-2")
        notebook.until(lambda: line_count(notebook, "host-2") > before + 10)
        assert re.search(r"page/1>", body.inner_text())  # what is read stays in sight
        follow.press("Enter")
        notebook.until(lambda: not re.search(r"page/1>", body.inner_text()), "it does not follow")

        head = pane(notebook, "host-2").get_by_role("button")
        head.press("Enter")
        notebook.until(lambda: not body.is_visible(), "the pane does not fold")
        assert head.get_attribute("aria-expanded") == "false"
        end(lab)
        notebook.wait_done(1)
        clean(notebook)


def test_an_open_input_box_is_cancelled_through_the_panel(lab: Lab) -> None:
    ask = (
        "panel.view(view())\n"
        "panel.show()\n"
        "threading.Timer(1, panel.cancel_input, ['cancelled by the worker']).start()\n"
        "print('answer:', input('(pdb) '))"
    )
    with lab.notebook([IMPORTS, ask]) as notebook:
        notebook.run(0)
        notebook.run(1, wait=False)
        notebook.wait_text("answer: cancelled by the worker", 1, 20)
        notebook.wait_done(1)
        boxes = notebook.page.locator(".jp-Stdin-input:not([disabled])")
        notebook.until(lambda: boxes.count() == 0, "the box is still there", 5)
