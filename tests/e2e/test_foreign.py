"""What was written in a notebook runs on a worker of another Python, in an empty folder."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from tests.cells import Notebook
from tests.e2e.snippets import SHELL, SNIPPETS, Snippet
from tests.foreign import REPOSITORY, foreign_python, locked, session_folder
from tests.placing import place
from tests.waiting import wait_until
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.runtime.loader import encode_settings
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls, new_crawl_id
from vscrapy_magic.store.failures import read_failures
from vscrapy_magic.store.keys import CrawlId
from vscrapy_magic.store.messages import Bundle, CrawlSpec, decode, encode
from vscrapy_magic.store.outputs import Outputs
from vscrapy_magic.store.server import EmbeddedServer
from vscrapy_magic.store.values import PlainCodec

__all__ = ["foreign_python"]

pytestmark = pytest.mark.timeout(400)  # the first test makes the environment and runs all crawls
ALL_S = 240.0


class Ran(msgspec.Struct):
    state: str
    items: list[dict[str, object]]
    failures: list[str]
    why: str


def write(files: dict[str, str], folder: Path) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def notebook(snippet: Snippet, folder: Path) -> Notebook:
    """The snippet's cells, run here."""
    write(snippet.files, folder)
    made = Notebook(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        for cell in snippet.cells:
            made.run(cell)
    finally:
        os.chdir(before)
    return made


def shell_bundles(folder: Path) -> list[Bundle]:
    """Those of `SHELL`, shipped by IPython itself."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.e2e.ipython_cells"],
        input=msgspec.json.encode([snippet.cells for snippet in SHELL]),
        stdout=subprocess.PIPE,
        check=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "IPYTHONDIR": str(folder / "ipython")},
    )
    encoded = msgspec.msgpack.decode(ended.stdout, type=list[bytes])
    return [decode(each, Bundle) for each in encoded]


def bundles(folder: Path) -> dict[str, Bundle]:
    """All snippets, shipped."""
    found = {}
    for number, snippet in enumerate(SNIPPETS):
        own = folder / str(number)
        own.mkdir()
        found[snippet.name] = notebook(snippet, own).ship(snippet.spider).bundle
    shell = zip(SHELL, shell_bundles(folder), strict=True)
    return found | {snippet.name: bundle for snippet, bundle in shell}


def order(store: Store, bundle: Bundle, site: str) -> CrawlId:
    digest = hashlib.sha256(encode(bundle)).hexdigest()
    spec = CrawlSpec(
        crawl_id=new_crawl_id(),
        spider="q",
        bundle=digest,
        args={"site": site},
        settings=encode_settings({"LOG_LEVEL": "INFO"}),
        workers=1,
    )
    return place(store, spec, bundle).crawl_id


def result(store: Store, crawls: Crawls, crawl_id: CrawlId) -> Ran:
    view = crawls.view(crawl_id)
    codec = PlainCodec()
    items: list[dict[str, object]] = []
    failures: list[str] = []
    for output in Outputs(store, crawl_id).read():
        items += [record["data"] for record in codec.decode(output.items or b"\x90")]
        failures += [record.place for record in read_failures(output.failures)]
    return Ran(str(view.state), items, failures, view.why)


def run_all(python: Path, server: EmbeddedServer, folder: Path) -> dict[str, Ran]:
    """What one worker of the foreign environment makes of all snippets."""
    empty = folder / "empty"
    empty.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VSCRAPY"))}
    with (
        Store.connect(server.url) as store,
        DemoSite() as site,
        (folder / "worker.log").open("w") as log,
        subprocess.Popen(
            [python, "-m", "vscrapy_magic.worker", server.url, "--slots", "4"],
            cwd=empty,
            env=environment,
            stderr=log,
        ) as worker,
    ):
        try:
            crawls = Crawls(store)
            placed = {n: order(store, b, site.url) for n, b in bundles(folder).items()}
            wait_until(
                lambda: all(crawls.view(crawl_id).over for crawl_id in placed.values()),
                ALL_S,
                "end of all crawls",
            )
            return {name: result(store, crawls, crawl_id) for name, crawl_id in placed.items()}
        finally:
            worker.terminate()
            assert not [*empty.iterdir()]


@pytest.fixture(scope="module")
def ran(
    foreign_python: Path, server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Ran]:
    """What became of each snippet; run once per session, whichever process comes first."""
    shared = session_folder(tmp_path_factory)
    kept = shared / "foreign-results.json"
    with locked(shared / "foreign-results.lock"):
        if not kept.exists():
            made = run_all(foreign_python, server, tmp_path_factory.mktemp("snippets"))
            kept.write_bytes(msgspec.json.encode(made))
    return msgspec.json.decode(kept.read_bytes(), type=dict[str, Ran])


@pytest.mark.parametrize("snippet", [*SNIPPETS, *SHELL], ids=lambda snippet: snippet.name)
def test_a_notebook_spider_gives_its_items(ran: dict[str, Ran], snippet: Snippet) -> None:
    found = ran[snippet.name]
    if snippet.fails:
        assert found.failures == [snippet.fails]
        return
    assert found.state == "finished", found
    assert Counter(map(repr, found.items)) == Counter(map(repr, snippet.items)), found
    assert not found.failures
