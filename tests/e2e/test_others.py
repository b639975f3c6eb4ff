"""Spiders that nobody here wrote: from cells and from files as with `scrapy runspider`.

Always on four workers from cells, and a part of them from files; with `-m matrix` on two, and all.
"""

import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.cells import Notebook
from tests.e2e.stats import matter, told
from tests.e2e.terminal import Terminal, items, serve
from tests.foreign import REPOSITORY, locked, session_folder
from tests.others.documents import Documents, documents
from tests.others.example import Made
from tests.others.examples import ALL, ITEMS, MODULES, TEMPLATES, XML, examples, templates
from tests.others.left_out import LEFT_OUT, SCRIPTS
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

__all__ = ["documents"]

pytestmark = pytest.mark.timeout(1200)  # the first test runs all crawls
AT_ONCE = 2  # processes of one kind
ALL_S = 600.0
WORKERS, FEWER = 4, 2
FILES_STEP = 6  # every so many of the documents' examples are run from a file always
NAMES = (*(example.name for example in ALL), *TEMPLATES)
CELLS = (*(example.name for example in ALL if example.in_cells), *TEMPLATES)
FILES = (*(example.name for example in ALL if example.as_file), *TEMPLATES)

QUICK_FILES = (*FILES[: -len(TEMPLATES) : FILES_STEP], *TEMPLATES)

# Those that one worker runs, and why.
SHARING = {
    "state on self": "state on self: QuoteSpider.page",
    "middleware with a token": "state on self: TokenMiddleware.token",
    "pipeline that knows duplicates": "state on self: DuplicatesPipeline.ids_seen",
    "pipeline with many exporters": "state on self: PerYearXmlExportPipeline.year_to_exporter",
    "state that is kept": "state on self: FrameSpider.state",
}
SILENT = {
    *("save pages", "save pages of start_urls", "errbacks", "signals", "arrivals"),
    *("SitemapSpider with a filter", "addon with a download handler", "link extractor"),
    *("warning in a callback", "callback that is no method", "settings that are printed"),
    *("logger of the spider", "logger of the user"),
}
# As documented, or because a part of theirs is left out.
FAILING = {
    *("errbacks", "SitemapSpider with a filter", "addon with a download handler"),
    *("files by type", "files with a referrer", "files by name", "files that fail"),
    "start() that skips an address",
}


class Ran(msgspec.Struct):
    """What became of a spider; `pinned` says why one worker ran it."""

    items: list[str]
    stats: dict[str, str]
    pinned: str = ""


class Runs(msgspec.Struct):
    """All spiders in plain Scrapy and from cells; those that were to be run from files."""

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


def words_of(made: Made, feed: str) -> list[str]:
    """A command that runs it; its items go to a file of that name, if it does not say where."""
    output = [] if made.feed else ["-O", f"{feed}:jsonlines"]
    return ["runspider", f"{made.stem}.py", *output, "-L", "INFO", *made.words]


def items_of(folder: Path, made: Made, feed: str) -> list[str]:
    """The items of a feed; of one with a format of its own, its pieces."""
    path = folder / (made.feed or feed)
    if path.suffix == ".jsonl":
        return sorted(items(path).elements())
    pieces = re.split(r"\n|(?=<item>)|(?=</items>)", path.read_text())
    path.unlink()
    return sorted(piece.rstrip(",") for piece in pieces)


def in_plain_scrapy(terminal: Terminal, folder: Path, spiders: list[Made]) -> dict[str, Ran]:
    logs = folder / "plain"
    logs.mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", "tests.others.plain", str(logs)],
        input=json.dumps([words_of(made, f"plain-{made.stem}.jsonl") for made in spiders]),
        cwd=folder,
        env=terminal.environment | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=ALL_S,
    )
    found = {}
    for number, (made, code) in enumerate(zip(spiders, json.loads(ended.stdout), strict=True)):
        log = (logs / f"{number}.log").read_text()
        assert code == 0, (made.name, log[-3000:])
        found[made.name] = Ran(items_of(folder, made, f"plain-{made.stem}.jsonl"), told(log))
    return found


def from_file(terminal: Terminal, folder: Path, made: Made) -> Ran:
    feed = f"ours-{made.stem}.jsonl"
    ended = terminal.run(folder, *words_of(made, feed))
    assert ended.returncode == 0, (made.name, ended.stderr[-3000:])
    return Ran(items_of(folder, made, feed), told(ended.stderr))


def order(store: Store, folder: Path, made: Made, workers: int) -> tuple[CrawlId, str]:
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
        workers=1 if shipped.pinned else workers,
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


def from_cells(store: Store, folder: Path, spiders: list[Made], workers: int) -> dict[str, Ran]:
    crawls = Crawls(store)
    placed = {made.name: order(store, folder, made, workers) for made in spiders}
    wait_until(
        lambda: all(crawls.view(crawl_id).over for crawl_id, _ in placed.values()),
        *(ALL_S, "end of all crawls"),
    )
    return {name: result(store, *crawl) for name, crawl in placed.items()}


def write_modules(documents: Documents, folder: Path) -> None:
    """The modules of a project that documented examples import from."""
    project = folder / "myproject"
    (project / "utils").mkdir(parents=True)
    for package in (project, project / "utils"):
        (package / "__init__.py").touch()
    (project / "items.py").write_text(ITEMS)
    for name, (document, pattern) in MODULES.items():
        (project / name).write_text(documents.example(document, pattern))
    (project / "utils" / "xml.py").write_text(XML)


def run_all(
    server: EmbeddedServer,
    folder: Path,
    documents: Documents,
    *,
    workers: int,
    names: Sequence[str],
) -> Runs:
    terminal = Terminal(folder / "home", server.url)
    write_modules(documents, folder)
    with DemoSite() as demo, pages() as example:
        sites = {"demo": demo.url, "pages": example}
        spiders = [*examples(documents, sites), *templates(folder, sites)]
        for made in spiders:
            (folder / f"{made.stem}.py").write_text(made.text)
        plain = in_plain_scrapy(terminal, folder, spiders)
        with Store.connect(server.url) as store, serve(store, WORKERS):
            celled = [made for made in spiders if made.in_cells]
            cells = from_cells(store, folder, celled, workers)
            shipped = [made for made in spiders if made.name in names]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                files = list(pool.map(lambda made: from_file(terminal, folder, made), shipped))
    return Runs(plain, cells, {made.name: ran for made, ran in zip(shipped, files, strict=True)})


Run = Callable[..., Runs]


@pytest.fixture(scope="module")
def run_once(
    server: EmbeddedServer, documents: Documents, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Says what became of each spider; run once per session, whichever process comes first."""
    shared = session_folder(tmp_path_factory)

    def run(name: str, *, workers: int, names: Sequence[str]) -> Runs:
        kept = shared / f"others-{name}.json"
        with locked(shared / f"others-{name}.lock"):
            if not kept.exists():
                folder = tmp_path_factory.mktemp("others")
                made = run_all(server, folder, documents, workers=workers, names=names)
                kept.write_bytes(msgspec.json.encode(made))
        return msgspec.json.decode(kept.read_bytes(), type=Runs)

    return run


@pytest.fixture(scope="module")
def ran(run_once: Run) -> Runs:
    return run_once("quick", workers=WORKERS, names=QUICK_FILES)


@pytest.fixture(scope="module")
def ran_more(run_once: Run) -> Runs:
    return run_once("all", workers=FEWER, names=FILES)


def check(mine: Ran, plain: Ran) -> None:
    assert Counter(mine.items) == Counter(plain.items)
    assert mine.stats == plain.stats


@pytest.mark.parametrize("name", CELLS)
def test_from_cells_as_in_plain_scrapy(ran: Runs, name: str) -> None:
    check(ran.cells[name], ran.plain[name])


@pytest.mark.parametrize("name", QUICK_FILES)
def test_from_a_file_as_in_plain_scrapy(ran: Runs, name: str) -> None:
    check(ran.files[name], ran.plain[name])


@pytest.mark.matrix
@pytest.mark.parametrize("name", CELLS)
def test_from_cells_on_fewer_workers_as_in_plain_scrapy(ran_more: Runs, name: str) -> None:
    check(ran_more.cells[name], ran_more.plain[name])


@pytest.mark.matrix
@pytest.mark.parametrize("name", FILES)
def test_each_from_a_file_as_in_plain_scrapy(ran_more: Runs, name: str) -> None:
    check(ran_more.files[name], ran_more.plain[name])


def test_only_those_that_share_state_are_kept_on_one_worker(ran: Runs) -> None:
    pinned = {name: found.pinned.partition(",")[0] for name, found in ran.cells.items()}
    assert {name: why for name, why in pinned.items() if why} == SHARING


def test_each_of_them_does_what_it_is_for(ran: Runs) -> None:
    silent = {name for name, found in ran.plain.items() if not found.items}
    assert silent == SILENT
    failing = {name for name, found in ran.plain.items() if "log_count/ERROR" in found.stats}
    assert failing == FAILING


def test_code_that_is_new_in_a_release_is_noticed(documents: Documents) -> None:
    """Each block that defines something is run, or it stands in `left_out.py` with a reason."""
    known = {
        (each.document, documents.example(each.document, each.pattern))
        for each in ALL
        if not each.oldest
    }
    known |= {(name, documents.example(name, pattern)) for name, pattern, _ in LEFT_OUT}
    new = [(name, block) for name, block in documents.code() if name not in SCRIPTS]
    assert not [each for each in new if each not in known]
