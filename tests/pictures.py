"""The pictures of the README, of a real JupyterLab: `python -m tests.pictures [FOLDER]`.

Writes `docs/failing.png`, `docs/vdebug.png` and `docs/vreplay.png` (or those into FOLDER). Needs
what the tests of the panel need: a Chromium.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from tests import browser
from tests.browser import Lab, Notebook
from tests.e2e.terminal import serve
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.server import EmbeddedServer

ROOT = Path(__file__).parents[1]
WIDTH_PX, HEIGHT_PX = 1380, 1000
DEBUGGER_PX = 940  # of the width; the rest is empty
PAGE_MS = 500
AIR_PX = 4  # around what is cut out
SPIDER = """\
import scrapy

class Stock(scrapy.Spider):
    name = "stock"

    async def start(self):
        for number in range(100, 150):
            yield scrapy.Request(f"{self.site}/book/{number}")

    def parse(self, response):
        left = response.css("p.availability::text").re_first(r"\\d+")
        yield {"title": response.css("h1::text").get(), "left": int(left)}
"""
EDITED = SPIDER.replace('re_first(r"\\d+")', 're_first(r"\\d+", default="0")')
# Scrolls a pane to the line of an exception that is in the cell; whether it and what follows is in
# sight, and nothing of where Scrapy is installed.
IN_SIGHT = """async () => {
  for (const body of document.querySelectorAll(".vscrapy-pane-body")) {
    const rows = () => [...body.querySelectorAll(".vscrapy-row")];
    const first = rows().find((row) => row.textContent.includes("Cell In["));
    if (first) {
      body.scrollTop += first.getBoundingClientRect().top - body.getBoundingClientRect().top;
      await new Promise((done) => setTimeout(done, 200));
    }
  }
  let all = "";
  let whole = false;
  for (const body of document.querySelectorAll(".vscrapy-pane-body")) {
    const sight = body.getBoundingClientRect();
    for (const row of body.querySelectorAll(".vscrapy-row")) {
      const box = row.getBoundingClientRect();
      if (box.bottom > sight.top + 1 && box.top < sight.bottom) all += row.textContent;
      whole ||= row.textContent.includes("Cell In[") && Math.abs(box.top - sight.top) < 2;
    }
  }
  return whole && all.includes("TypeError") && !all.includes("packages");
}"""


def wide(notebook: Notebook) -> None:
    """The notebook has the page for itself."""
    notebook.page.set_viewport_size({"width": WIDTH_PX, "height": HEIGHT_PX})
    notebook.js("() => window.jupyterapp.shell.collapseLeft()")


def take(notebook: Notebook, index: int, path: Path, width_px: int = WIDTH_PX) -> None:
    """Cut a cell with its output out of the page, without tools of its toolbar."""
    notebook.page.add_style_tag(
        content=".jp-cell-toolbar, .jp-Collapser, .jp-CellFooter { display: none !important; }"
        ".jp-Cell { border: none !important; }"
    )
    cell = notebook.cell(index)
    cell.scroll_into_view_if_needed()
    box: Any = cell.bounding_box()
    output: Any = cell.locator(".jp-Cell-outputArea").first.bounding_box()
    clip = {
        "x": box["x"] + AIR_PX,
        "y": max(0, box["y"]) + AIR_PX,
        "width": min(width_px, box["width"]) - AIR_PX,
        "height": output["y"] + output["height"] - box["y"],
    }
    notebook.page.mouse.move(0, 0)
    notebook.page.screenshot(path=path, clip=clip)


def failing(notebook: Notebook, path: Path) -> None:
    """A crawl that goes on while a worker tells of a page that failed."""
    notebook.run(1, wait=False)
    panel = notebook.cell(1).locator(".vscrapy-panel")
    notebook.until(lambda: "1 failure" in panel.inner_text(), "no failure")
    panel.get_by_role("button", name="Follow").click()  # no longer: the pane is to stay there
    notebook.until(lambda: notebook.js(IN_SIGHT), "no failure in sight")
    take(notebook, 1, path)
    notebook.wait_done(1)


def debugging(notebook: Notebook, path: Path) -> None:
    """The prompt in the frame that failed, with the response that a worker had got."""
    box = notebook.page.locator(".jp-Stdin-input:not([disabled])")
    notebook.run(2, wait=False)
    for line in ("response", 'response.css("p.availability::text").getall()'):
        notebook.until(lambda: box.count() == 1, "no prompt")
        notebook.answer(line)
        notebook.wait_text(f"ipdb>  {line}", 2)
    notebook.until(lambda: box.count() == 1, "no prompt")
    take(notebook, 2, path, DEBUGGER_PX)
    notebook.answer("q")
    notebook.wait_done(2)


def replaying(notebook: Notebook, path: Path) -> None:
    """What the edited spider does with every page that failed."""
    notebook.run(3)
    notebook.run(4)
    take(notebook, 4, path)


def main() -> int:
    if why := browser.missing():
        sys.exit(why)
    into = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs"
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as name,
        EmbeddedServer(Path(name) / "server") as server,
        Store.connect(server.url) as store,
        serve(store),
        DemoSite(delay_ms=PAGE_MS) as site,
        Lab(
            Path(name) / "lab",
            {
                "PYTHONPATH": str(ROOT),
                "VSCRAPY_REDIS_URL": server.url,
                "VSCRAPY_SPOOL": str(Path(name) / "spool"),
            },
        ) as lab,
    ):
        order = f"%%vcrawl stock -a site={site.url} -s CONCURRENT_REQUESTS=1 --as crawl"
        cells = ["%load_ext vscrapy_magic", f"{order}\n{SPIDER.rstrip()}", "%vdebug 1", EDITED]
        with lab.notebook([*cells, "%vreplay all"]) as notebook:
            wide(notebook)
            notebook.run(0)
            failing(notebook, into / "failing.png")
            debugging(notebook, into / "vdebug.png")
            replaying(notebook, into / "vreplay.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
