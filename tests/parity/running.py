"""Runs each feature in plain Scrapy and on 1, 2 and 4 workers, the way a user does."""

import contextlib
import gzip
import json
import marshal
import os
import pickle
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import pytest
from scrapy.utils.serialize import ScrapyJSONEncoder

from tests.clusters import cluster_home
from tests.e2e.stats import all_told
from tests.parity.features import SPIDERS, Feature
from tests.parity.plain import PlainScrapy
from tests.parity.site import Site
from tests.waiting import wait_until
from vscrapy_magic.errors import VscrapyError
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.options import parse_words
from vscrapy_magic.sender.order import project_order
from vscrapy_magic.sender.session import Session
from vscrapy_magic.store.presence import Presence
from vscrapy_magic.store.views import CrawlView

AT_ONCE: Final = 3  # features that are run at the same time
WORKERS_MAX: Final = 4
UP_WITHIN_S: Final = 30.0
IDLE_S: Final = "120"
LOOK_S: Final = 0.1
LOOKS_ALONE: Final = 6  # the view may be a quarter of a second old
STOP_WITHIN_S: Final = 10.0
_CONFIG: Final = "[settings]\ndefault = settings\n"
_SETTINGS: Final = 'BOT_NAME = "parity"\nSPIDER_MODULES = ["spiders"]\n'
_CRAWLED: Final = re.compile(r"^Crawled \(\d+\)")
_ADDRESS: Final = re.compile(r"\b(127\.0\.0\.1|localhost)(:|%3A)\d{4,5}")
_LEVEL: Final = 30


class Ran(msgspec.Struct):
    """What became of a spider.

    Attributes:
        items: as JSON, sorted; addresses of the site are masked.
        hits: how often the site was asked for what.
        warnings: lines of level WARNING and above.
        files: path -> digest, of files that the spider wrote.
        feeds: name -> text, of feeds.
        most: the largest number of requests at once at the site.
        times: when `/tick/` pages were asked for, seconds.
        took_part: workers that downloaded something.
        trouble: why there is nothing to compare.
    """

    items: list[str] = []
    reason: str = ""
    stats: dict[str, str] = {}
    hits: dict[str, int] = {}
    warnings: list[str] = []
    files: dict[str, str] = {}
    feeds: dict[str, str] = {}
    pinned: str = ""
    took_part: int = 1
    most: int = 0
    times: list[float] = []
    exit_code: int = 0
    trouble: str = ""


class Result(msgspec.Struct):
    """A feature in plain Scrapy, and on so many workers."""

    plain: Ran
    ours: dict[str, Ran] = {}


def make_project(folder: Path, theme: str) -> Path:
    """A project with the spiders of one theme."""
    (folder / "spiders").mkdir(parents=True)
    for name in ("__init__.py", f"{theme}.py"):
        shutil.copy(SPIDERS / name, folder / "spiders")
    (folder / "scrapy.cfg").write_text(_CONFIG)
    (folder / "settings.py").write_text(_SETTINGS)
    return folder


@contextmanager
def senders_place(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Session]:
    """A session as a terminal has it, with a local cluster of four workers."""
    for name in [name for name in os.environ if name.startswith(("VSCRAPY", "SCRAPY"))]:
        monkeypatch.delenv(name)
    home = folder / "home"
    home.mkdir()
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(home))
    with (
        cluster_home(monkeypatch, idle_s=IDLE_S),
        Session.connect(kind="terminal", workers=WORKERS_MAX) as session,
    ):
        presence = Presence(session.store)
        wait_until(lambda: len(presence.workers()) >= WORKERS_MAX, UP_WITHIN_S, "workers")
        yield session


class Runner:
    """Runs features; `close` is the caller's matter.

    Args:
        folder: for what plain Scrapy writes.
    """

    def __init__(self, session: Session, scrapy: PlainScrapy, folder: Path) -> None:
        self._session = session
        self._scrapy = scrapy
        self._folder = folder
        self._ports: dict[str, int] = {}

    def run_all(
        self,
        features: Iterable[Feature],
        workers: Iterable[int],
        ran: Callable[[Feature, Result], None] = lambda *_: None,
    ) -> dict[str, Result]:
        """What became of each that can be run here; `ran` hears of each as soon as it is known."""

        def run(feature: Feature) -> Result:
            result = self.run(feature, counts)
            ran(feature, result)
            return result

        counts = tuple(workers)
        chosen = [feature for feature in features if not feature.missing]
        results: dict[str, Result] = {}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for theme, group in groupby(chosen, key=lambda feature: feature.theme):
                of_theme = list(group)
                with self.in_project(theme):
                    found = list(pool.map(run, of_theme))
                names = [feature.name for feature in of_theme]
                results |= dict(zip(names, found, strict=True))
        return results

    @contextmanager
    def in_project(self, theme: str) -> Iterator[None]:
        """The sender's working folder is the project of a theme: of this process, all threads."""
        folder = self._folder / f"project-{theme}"
        with contextlib.chdir(folder if folder.exists() else make_project(folder, theme)):
            yield

    def run(self, feature: Feature, workers: Iterable[int]) -> Result:
        with Site() as site:
            self._ports[feature.name] = site.port  # the same for all runs: paths are made of URLs
        result = Result(self.in_plain_scrapy(feature))
        for count in workers:
            ran = self.on_workers(feature, count)
            if ran.pinned:
                # What its user gets who does not say how many: one worker.
                result.ours = dict.fromkeys(map(str, workers), ran)
                break
            result.ours[str(count)] = ran
        return result

    def in_plain_scrapy(self, feature: Feature) -> Ran:
        folder = Path(tempfile.mkdtemp(prefix=f"{feature.name}-", dir=self._folder))
        make_project(folder, feature.theme)
        feed = folder / "items.jsonl"
        with Site(self._ports.get(feature.name, 0)) as site:
            site.gate.set()
            words = [*_words(feature, site), "-L", "INFO"]
            if not feature.facts.feeds:
                words += ["-O", f"{feed}:jsonlines"]  # that takes the place of other feeds
            code, log = self._scrapy.run(folder, words, feature.facts.timeout_s)
            hits, most, times = site.hits, site.most, site.ticks()
        stats = all_told(log)
        ran = Ran(
            items=_read_items(feed),
            reason=stats.pop("finish_reason", ""),
            stats=stats,
            hits=_masked_counts(hits),
            most=most,
            times=times,
            warnings=_warnings_in(log),
            files=_files_of(folder) if feature.facts.files else {},
            feeds=_feeds_of(folder, feature),
            exit_code=code,
            trouble="" if stats else f"exit code {code}: {log[-3000:]}",
        )
        shutil.rmtree(folder)
        return ran

    def on_workers(self, feature: Feature, count: int) -> Ran:
        facts = feature.facts
        for name in facts.fresh:
            shutil.rmtree(name, ignore_errors=True)
        with Site(self._ports.get(feature.name, 0)) as site:
            if count == 1 or not facts.gate:
                site.gate.set()
            words = [*_words(feature, site)[1:], "-L", "DEBUG"]
            try:
                order = project_order(parse_words(words, "vscrapy crawl"))
                if not order.shipped.pinned:
                    order = msgspec.structs.replace(order, workers=count)
                crawl = self._session.place(order)
            except VscrapyError as exc:
                return Ran(trouble=str(exc))
            view = _followed(crawl, site, count, facts.timeout_s)
            if not view.over:
                crawl.stop(now=True)
                crawl.wait(STOP_WITHIN_S)
            hits, most, times = site.hits, site.most, site.ticks()
        lines = crawl.logs()
        stats = {name: str(value) for name, value in crawl.stats.items()}
        return Ran(
            items=sorted(map(_as_text, crawl.items)),
            reason=stats.pop("finish_reason", ""),
            stats=stats,
            hits=_masked_counts(hits),
            most=most,
            times=times,
            warnings=[
                *order.notes,
                *(_masked(line.text) for line in lines if line.level >= _LEVEL),
            ],
            files=_digests(crawl.files) if facts.files else {},
            feeds=_feeds_of(Path.cwd(), feature),
            pinned=order.shipped.pinned,
            took_part=len({line.worker for line in lines if _CRAWLED.match(line.text)}),
            trouble="" if view.over else "it did not end by itself",
        )


def _followed(crawl: Crawl, site: Site, workers: int, timeout_s: float) -> CrawlView:
    """The crawl at its end, or after so long.

    Opens the site's gate when its workers are there, or nothing is queued that they could come for.
    """
    until, alone = time.monotonic() + timeout_s, 0
    while not crawl.is_over and time.monotonic() < until:
        view = crawl.wait(LOOK_S)
        alone = alone + 1 if view.totals.leased and not view.totals.queued else 0
        if len(view.members) >= workers or alone > LOOKS_ALONE:
            site.gate.set()
    return crawl.view


def _as_text(item: Any) -> str:
    return _masked(json.dumps(item, sort_keys=True, cls=ScrapyJSONEncoder))


def _words(feature: Feature, site: Site) -> list[str]:
    words = ["crawl", feature.name, "-a", f"site={site.url}"]
    for name, value in feature.facts.args:
        words += ["-a", f"{name}={value}"]
    return [*words, *feature.facts.words]


def _masked(text: str) -> str:
    """A text without what is another one in each run: the port of the site."""
    return _ADDRESS.sub(r"\1\g<2>0", text)


def _masked_counts(hits: Counter[str]) -> dict[str, int]:
    masked: Counter[str] = Counter()
    for target, count in hits.items():
        masked[_masked(target)] += count
    return dict(sorted(masked.items()))


def _read_items(feed: Path) -> list[str]:
    lines = feed.read_text().splitlines() if feed.exists() else []
    return sorted(_masked(json.dumps(json.loads(line), sort_keys=True)) for line in lines)


def _warnings_in(log: str) -> list[str]:
    found = re.findall(
        r"^[\d\- :]+ \[[^\]]+\] (?:WARNING|ERROR|CRITICAL): (.*)$", log, re.MULTILINE
    )
    return [_masked(text) for text in found]


def _files_of(folder: Path) -> dict[str, str]:
    own = {"items.jsonl", "scrapy.cfg", "settings.py"}
    found = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in own and "__pycache__" not in path.parts
    }
    return _digests({f"-/{name}": path for name, path in found.items() if "spiders" not in name})


def _digests(files: Any) -> dict[str, str]:
    """Path without the worker -> digest."""
    from hashlib import sha1

    return {
        name.partition("/")[2]: sha1(path.read_bytes()).hexdigest()
        for name, path in sorted(files.items())
    }


def _feeds_of(folder: Path, feature: Feature) -> dict[str, str]:
    feeds = {}
    for pattern in feature.facts.feeds:
        for path in sorted(folder.glob(pattern)):
            feeds[path.name] = _masked(_feed_text(path))
            path.unlink()
    return feeds


def _feed_text(path: Path) -> str:
    """A feed as text; a line for each item of those that are none."""
    with path.open("rb") as file:
        if path.suffix in _BINARY:
            return "".join(f"{item!r}\n" for item in _BINARY[path.suffix](file))
        data = file.read()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("latin-1")


def _loaded(load: Callable[[BinaryIO], Any]) -> Callable[[BinaryIO], Iterator[Any]]:
    def items(file: BinaryIO) -> Iterator[Any]:
        with contextlib.suppress(EOFError):
            while True:
                item = load(file)
                yield sorted(dict(item).items())

    return items


_BINARY = {".pickle": _loaded(pickle.load), ".marshal": _loaded(marshal.load)}
