"""What is compared: every spider in `spiders/`, and what is to be known of some of them.

A spider is a feature: its docstring says what a user of Scrapy has in it. The folder is a package
of spiders as a project has it; nothing in there knows that it is tested.
"""

import ast
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SPIDERS: Final = Path(__file__).parent / "spiders"
WORKERS: Final = (1, 2, 4)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is special about a feature.

    Attributes:
        args: spider arguments.
        words: other options of the command line.
        pinned: how the reason begins why only one worker may run it; empty: any number may.
        differs: stats that may differ (a pattern), see docs/differences.md.
        loose: how far the crawl gets differs from run to run also in plain Scrapy: its reason is
            the same, its items are some of `floor` or more.
        order: items are compared in their order (those that are pinned to one worker).
        feeds: files that are written where the user is, instead of items.
        files: files that the spider writes come back.
        fresh: folders that are removed before each run.
        hits: the site is asked for the same.
        most: at most so many requests at once at the site.
        said: a WARNING that our user reads.
        needs: modules that are not installed everywhere.
        gate: whether the site waits for all workers, so that each gets something.
        quick: part of the normal run of tests.
        timeout_s: of one run.
    """

    args: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] = ()
    pinned: str = ""
    differs: str = ""
    loose: bool = False
    floor: int = 0
    feeds: tuple[str, ...] = ()
    files: bool = False
    fresh: tuple[str, ...] = ()
    hits: bool = True
    most: int = 0
    said: str = ""
    needs: tuple[str, ...] = ()
    gate: bool = True
    quick: bool = False
    timeout_s: float = 60.0


@dataclass(frozen=True)
class Feature:
    """One spider.

    Attributes:
        theme: the module that it is in.
        says: the first line of its docstring.
    """

    name: str
    theme: str
    says: str
    facts: Facts

    @property
    def missing(self) -> list[str]:
        """Modules that it needs and that are not here."""
        return [name for name in self.facts.needs if importlib.util.find_spec(name) is None]


QUICK: Final = Facts(quick=True)
FACTS: Final[dict[str, Facts]] = {
    # kinds
    # Several ways lead to its pages: how deep one is found depends on which came first.
    "start_urls": Facts(quick=True, differs="request_depth_max"),
    "rules": QUICK,
    "sitemap": QUICK,
    "from_crawler": Facts(args=(("word", "grün"),)),
    # requests
    "meta": QUICK,
    "item_in_meta": QUICK,
    "lambdas": Facts(quick=True, said="stays on this worker"),
    "filter": QUICK,
    # cookies
    "login": QUICK,
    "jars": QUICK,
    # failing
    "retry": Facts(gate=False),
    "redirects": QUICK,
    "robots": QUICK,
    "raising": QUICK,
    # bodies
    "packed": Facts(needs=("brotli",)),
    "big": Facts(timeout_s=120),
    # closing
    "close_items": Facts(loose=True, floor=30, quick=True),
    "close_pages": Facts(loose=True, floor=25),
    "close_errors": Facts(loose=True, floor=5),
    "close_timeout": Facts(loose=True, floor=1, gate=False),
    "close_no_item": Facts(loose=True, floor=0, gate=False),
    "close_pages_no_item": Facts(loose=True),
    "close_in_callback": Facts(loose=True, floor=5),
    "close_in_errback": Facts(loose=True, floor=1),
    "close_by_engine": Facts(loose=True, floor=5),
    "close_in_signal": Facts(loose=True, floor=5),
    "close_in_middleware": Facts(loose=True, floor=5),
    "idle": QUICK,
    # differences
    "no_effect": Facts(said="STATS_CLASS has no effect", differs="scheduler/.*"),
    "opened": Facts(differs="per_worker/.*"),
    # items
    "mixed_items": QUICK,
    "scrapy_items": Facts(words=("-O", "s-items.jl:jsonlines"), feeds=("s-*",)),
    "pydantic_items": Facts(needs=("pydantic",)),
    # pipelines
    "pipelines": QUICK,
    "drop": QUICK,
    "close_in_pipeline": Facts(loose=True, floor=5),
    # state
    "seen_pipeline": Facts(pinned="state on self: NoDuplicates.seen"),
    "token": Facts(pinned="state on self: TokenSpider.token", quick=True),
    "counter": Facts(pinned="state on self: CounterSpider.count"),
    "global_state": Facts(pinned="module global WORDS"),
    "own_dupefilter": Facts(pinned="request_seen of ByPath"),
    # middlewares, extensions
    "downloader_middlewares": QUICK,
    "spider_middlewares": QUICK,
    "signals": QUICK,
    "stats": QUICK,
    "addon": Facts(words=("-s", 'ADDONS={"spiders.extensions.Addon": 1}')),
    # limits
    "per_domain": Facts(most=3, quick=True),
    "one_at_a_time": Facts(most=1),
    # media, caches
    "http_cache": Facts(fresh=(".scrapy/cache",), quick=True),
    "http_cache_rfc": Facts(fresh=(".scrapy/cache-rfc",)),
    "files": Facts(files=True, quick=True),
    "own_files": Facts(files=True),
    "writes": Facts(files=True),
    "images": Facts(files=True, needs=("PIL",)),
    # feeds
    "formats": Facts(feeds=("f-*",), quick=True),
    "feed_options": Facts(feeds=("o-*",), args=(("word", "w"),)),
    "own_exporter": Facts(feeds=("e-*",)),
    "gzip_feed": Facts(feeds=("g-*",)),
}


def features() -> list[Feature]:
    """All of them, by theme."""
    found = []
    for path in sorted(SPIDERS.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and (name := _name_of(node)):
                says = (ast.get_docstring(node) or "").partition("\n")[0]
                assert says, f"{path.name}: {node.name} says nothing"
                found.append(Feature(name, path.stem, says, FACTS.get(name, Facts())))
    unknown = FACTS.keys() - {feature.name for feature in found}
    assert not unknown, f"there are no spiders {unknown}"
    return found


def _name_of(node: ast.ClassDef) -> str:
    for child in node.body:
        if isinstance(child, ast.Assign) and ast.unparse(child.targets[0]) == "name":
            return str(child.value.value) if isinstance(child.value, ast.Constant) else ""
    return ""
