"""Spiders that nobody here wrote: from cells and from files as with `scrapy runspider`."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import scrapy

from tests.cells import Notebook
from tests.e2e.stats import matter, told
from tests.e2e.terminal import RUN_S, Terminal, items, serve
from tests.foreign import REPOSITORY, locked, session_folder
from tests.others.documents import Documents
from tests.others.examples import EXAMPLES, ITEMS, TEMPLATES, Made, examples, templates
from tests.placing import place
from tests.waiting import wait_until
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.runtime.loader import encode_settings
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls, new_crawl_id
from vscrapy_magic.store.keys import CrawlId
from vscrapy_magic.store.messages import CrawlSpec, encode
from vscrapy_magic.store.outputs import Outputs
from vscrapy_magic.store.server import EmbeddedServer
from vscrapy_magic.store.values import PlainCodec, read_stat

pytestmark = pytest.mark.timeout(400)  # the first test runs all crawls
AT_ONCE = 2  # processes of one kind
ALL_S = 120.0
NAMES = (*(example.name for example in EXAMPLES), *TEMPLATES)
FILES = (*(example.name for example in EXAMPLES if example.as_file), *TEMPLATES)


class Ran(msgspec.Struct):
    """What became of a spider; `pinned` says why one worker ran it."""

    items: list[str]
    stats: dict[str, str]
    pinned: str = ""


class Runs(msgspec.Struct):
    """All spiders: in plain Scrapy, from cells, from files."""

    plain: dict[str, Ran]
    cells: dict[str, Ran]
    files: dict[str, Ran]


@contextmanager
def pages() -> Iterator[str]:
    """The site that documented examples call example.com; its address."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.others.site"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


def in_plain_scrapy(terminal: Terminal, folder: Path, made: Made) -> Ran:
    feed = f"plain-{made.stem}.jsonl"
    words = ["runspider", f"{made.stem}.py", "-O", f"{feed}:jsonlines", "-L", "INFO", *made.words]
    ended = subprocess.run(
        [sys.executable, "-m", "scrapy", *words],
        cwd=folder,
        env=terminal.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_S,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return Ran(sorted(items(folder / feed).elements()), told(ended.stderr))


def from_file(terminal: Terminal, folder: Path, made: Made) -> Ran:
    feed = f"ours-{made.stem}.jsonl"
    words = ["runspider", f"{made.stem}.py", "-O", f"{feed}:jsonlines", "-L", "INFO", *made.words]
    ended = terminal.run(folder, *words)
    assert ended.returncode == 0, (made.name, ended.stderr[-3000:])
    return Ran(sorted(items(folder / feed).elements()), told(ended.stderr))


def order(store: Store, folder: Path, made: Made) -> tuple[CrawlId, str]:
    """A crawl of a spider that was written in cells: its imports in one, the rest in another."""
    notebook = Notebook(folder)
    imports, _, rest = made.text.partition("\n\n\n")
    notebook.run(imports)
    notebook.run(rest)
    shipped = notebook.ship(made.kind)
    digest = hashlib.sha256(encode(shipped.bundle)).hexdigest()
    spec = CrawlSpec(
        crawl_id=new_crawl_id(),
        spider=notebook.namespace[made.kind].name,
        bundle=digest,
        args=made.args,
        settings=encode_settings({"LOG_LEVEL": "INFO"}),
        workers=1 if shipped.pinned else 2,
    )
    return place(store, spec, shipped.bundle).crawl_id, shipped.pinned


def result(store: Store, crawl_id: CrawlId, pinned: str) -> Ran:
    codec, outputs = PlainCodec(), Outputs(store, crawl_id)
    found: list[str] = []
    for output in outputs.read():
        records = codec.decode(output.items or b"\x90")
        found += [json.dumps(record["data"], sort_keys=True) for record in records]
    crawls = Crawls(store)
    stats = {name: read_stat(value) for name, value in crawls.stats(crawl_id).items()}
    stats["finish_reason"] = crawls.view(crawl_id).close_reason
    return Ran(sorted(found), matter(stats), pinned)


def from_cells(store: Store, folder: Path, spiders: list[Made]) -> dict[str, Ran]:
    crawls = Crawls(store)
    placed = {made.name: order(store, folder, made) for made in spiders}
    wait_until(
        lambda: all(crawls.view(crawl_id).over for crawl_id, _ in placed.values()),
        *(ALL_S, "end of all crawls"),
    )
    return {name: result(store, *crawl) for name, crawl in placed.items()}


def run_all(server: EmbeddedServer, folder: Path, documents: Documents) -> Runs:
    terminal = Terminal(folder / "home", server.url)
    (folder / "myproject").mkdir()
    (folder / "myproject" / "__init__.py").touch()
    (folder / "myproject" / "items.py").write_text(ITEMS)
    with DemoSite() as demo, pages() as example:
        sites = {"demo": demo.url, "pages": example}
        spiders = [*examples(documents, sites), *templates(folder, sites)]
        for made in spiders:
            (folder / f"{made.stem}.py").write_text(made.text)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            plain = list(pool.map(lambda made: in_plain_scrapy(terminal, folder, made), spiders))
            with Store.connect(server.url) as store, serve(store):
                cells = from_cells(store, folder, spiders)
                shipped = [made for made in spiders if made.name in FILES]
                files = list(pool.map(lambda made: from_file(terminal, folder, made), shipped))
    return Runs(
        {made.name: ran for made, ran in zip(spiders, plain, strict=True)},
        cells,
        {made.name: ran for made, ran in zip(shipped, files, strict=True)},
    )


@pytest.fixture(scope="module")
def ran(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """What became of each spider; run once per session, whichever process comes first."""
    shared = session_folder(tmp_path_factory)
    kept = shared / "others-results.json"
    with locked(shared / "others-results.lock"):
        if not kept.exists():
            documents = Documents(scrapy.__version__, shared / "documents")
            made = run_all(server, tmp_path_factory.mktemp("others"), documents)
            kept.write_bytes(msgspec.json.encode(made))
    return msgspec.json.decode(kept.read_bytes(), type=Runs)


@pytest.mark.parametrize("name", NAMES)
def test_from_cells_as_in_plain_scrapy(ran: Runs, name: str) -> None:
    mine, plain = ran.cells[name], ran.plain[name]
    assert Counter(mine.items) == Counter(plain.items)
    assert mine.stats == plain.stats


@pytest.mark.parametrize("name", FILES)
def test_from_a_file_as_in_plain_scrapy(ran: Runs, name: str) -> None:
    mine, plain = ran.files[name], ran.plain[name]
    assert Counter(mine.items) == Counter(plain.items)
    assert mine.stats == plain.stats


def test_only_the_one_that_counts_on_self_is_kept_on_one_worker(ran: Runs) -> None:
    pinned = {name: found.pinned for name, found in ran.cells.items() if found.pinned}
    assert list(pinned) == ["state on self"]
    assert pinned["state on self"].startswith("state on self: QuoteSpider.page")


def test_each_of_them_does_what_it_is_for(ran: Runs) -> None:
    silent = {name for name, found in ran.plain.items() if not found.items}
    assert silent == {
        *("save pages", "save pages of start_urls", "errbacks", "signals"),
        "SitemapSpider with a filter",
    }
    failing = {name for name, found in ran.plain.items() if "log_count/ERROR" in found.stats}
    assert failing == {"errbacks", "SitemapSpider with a filter"}  # that one has no parse()
