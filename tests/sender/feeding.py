"""A crawl with feeds of every kind, without a server: a spool that is filled by hand.

Run as a program it is a sender: it keeps so many outputs, tells the feeds, and waits to be killed.
"""

import bz2
import csv
import gzip
import json
import lzma
import marshal
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.waiting import wait_until
from vscrapy_magic.sender.feeds import Feeds
from vscrapy_magic.sender.spool import Spool
from vscrapy_magic.store.feed_journal import FeedState, read_journal
from vscrapy_magic.store.inspection import FeedOrder, Source
from vscrapy_magic.store.keys import CrawlId
from vscrapy_magic.store.messages import Bundle, CrawlSpec
from vscrapy_magic.store.outputs import Output
from vscrapy_magic.store.values import Codec

CRAWL = CrawlId("0a1b2c3d")
SPEC = CrawlSpec(crawl_id=CRAWL, spider="shop", bundle="00")
FORK = "FEEDING_FORK"  # set: the sender forks a child, which inherits its pipes
IN_AN_OUTPUT = 7  # items; no multiple of a batch

SHOP = """
import scrapy

class Book(scrapy.Item):
    title = scrapy.Field(serializer=str.upper)
    price = scrapy.Field()

class Shop(scrapy.Spider):
    name = "shop"
    custom_settings = {"FEEDS": %s}
"""
GZIP = "scrapy.extensions.postprocessing.GzipPlugin"
BZ2 = "scrapy.extensions.postprocessing.Bz2Plugin"
LZMA = "scrapy.extensions.postprocessing.LZMAPlugin"
ALL_KINDS: dict[str, dict[str, Any]] = {
    "books.json": {"format": "json", "indent": 2},
    "books.jsonl": {"format": "jsonlines"},
    "books.xml": {"format": "xml"},
    "books.csv": {"format": "csv", "fields": ["price", "title"]},
    "books.pickle": {"format": "pickle"},
    "books.marshal": {"format": "marshal"},
    "books.json.gz": {"format": "json", "postprocessing": [GZIP], "gzip_mtime": 0},
    "books.csv.bz2": {"format": "csv", "postprocessing": [BZ2]},
    "books.jsonl.xz": {"format": "jsonlines", "postprocessing": [LZMA]},
    "only.jsonl": {"format": "jsonlines", "item_classes": ["shop.Book"]},
    "new.json": {"format": "json", "overwrite": True},
    "parts/%(batch_id)d-%(batch_time)s.csv": {"format": "csv", "batch_item_count": 5},
    "at-%(time)s.jsonl": {"format": "jsonlines"},
}


def output(number: int) -> Output:
    """One commit: books, and some items that are no books."""
    first = number * IN_AN_OUTPUT
    records = [
        {"type": "dict" if n % 5 == 4 else "shop:Book", "data": {"title": f"t{n}", "price": n}}
        for n in range(first, first + IN_AN_OUTPUT)
    ]
    return Output(
        commit_no=number + 1,
        nonce=f"n{number}",
        total_bytes=0,
        item_count=IN_AN_OUTPUT,
        items=Codec().encode(records),
        failure_count=0,
        failures=b"",
    )


def numbers(outputs: int) -> list[int]:
    """Prices of the items in so many outputs."""
    return list(range(outputs * IN_AN_OUTPUT))


class Shop:
    """One crawl in a folder of its own: the user's folder, and a spool."""

    def __init__(self, folder: Path, feeds: dict[str, dict[str, Any]], source: str = SHOP) -> None:
        self.folder = folder / "user"
        self.root = folder / "spool"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.root.mkdir(mode=0o700, exist_ok=True)
        (self.folder / "shop.py").write_text(source % repr(feeds))

    @property
    def journal(self) -> FeedState:
        return read_journal(self.root / CRAWL / "feeds" / "journal")

    def order(self, **fields: Any) -> FeedOrder:
        source = Source(entry=str(self.folder / "shop.py"), spider="shop", **fields)
        return FeedOrder(source=source, cwd=str(self.folder))

    def new(self, spool: Spool, **fields: Any) -> Feeds:
        content = (self.folder / "shop.py").read_bytes()
        bundle = Bundle(files={"shop.py": content}, entry="shop.py")
        return Feeds.keep(self.order(**fields), bundle, spool.folder)

    def write(self, outputs: Sequence[int], *, new: bool = True, **fields: Any) -> Feeds:
        """Collect outputs to the end, in one sender."""
        with Spool(self.root, CRAWL, SPEC) as spool:
            feeds = self.new(spool, **fields) if new else Feeds.find(spool.folder)
            assert feeds is not None
            feeds.deliver(spool.keep([output(n) for n in outputs]))
            feeds.finish(len(spool))
        return feeds

    def start(self, outputs: int, **environment: str) -> subprocess.Popen[str]:
        """A sender that has kept so many outputs, and now waits."""
        command = [sys.executable, "-m", "tests.sender.feeding", str(self.folder.parent)]
        return subprocess.Popen(
            [*command, str(outputs)],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )

    def files(self) -> dict[str, bytes]:
        """All that was written, by path; times in names are left out."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path.suffix not in {".py", ".pyc"}:
                name = str(path.relative_to(self.folder))
                found[_no_time(name)] = path.read_bytes()
        return found

    def names(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*.*")}


def _no_time(name: str) -> str:
    head, separator, _ = name.rpartition("-20")
    return f"{head}-TIME{Path(name).suffix}" if separator else name


def writers(process: psutil.Process) -> list[psutil.Process]:
    """Processes that write feeds, below this one."""
    return [
        each
        for each in process.children(recursive=True)
        if each.status() != psutil.STATUS_ZOMBIE and "vscrapy_magic.runtime.feeds" in each.cmdline()
    ]


def kill(process: "subprocess.Popen[str]", *, writer: bool) -> None:
    """End a sender by SIGKILL, and its writer with it, or wait until that has finished."""
    found = writers(psutil.Process(process.pid))
    for each in found if writer else []:
        each.send_signal(signal.SIGKILL)
    process.kill()
    process.communicate()
    for each in found:
        wait_until(lambda each=each: _is_gone(each), 20, "the end of the writer")


def _is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _pickles(data: bytes) -> Iterator[Any]:
    import io

    file = io.BytesIO(data)
    while file.tell() < len(data):
        yield pickle.load(file)


def _marshals(data: bytes) -> Iterator[Any]:
    import io

    file = io.BytesIO(data)
    while file.tell() < len(data):
        yield marshal.load(file)


def _xml(data: bytes) -> Iterator[Any]:
    from xml.etree import ElementTree

    for item in ElementTree.fromstring(data):
        yield {"price": item.findtext("price")}


def _csv(data: bytes) -> list[dict[str, Any]]:
    return list(csv.DictReader(data.decode().splitlines()))


def _lines(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.splitlines()]


READERS: dict[str, Callable[[bytes], Any]] = {
    "books.json": json.loads,
    "new.json": json.loads,
    "books.jsonl": _lines,
    "only.jsonl": _lines,
    "books.xml": _xml,
    "books.csv": _csv,
    "books.pickle": _pickles,
    "books.marshal": _marshals,
    "books.json.gz": lambda data: json.loads(gzip.decompress(data)),
    "books.csv.bz2": lambda data: _csv(bz2.decompress(data)),
    "books.jsonl.xz": lambda data: _lines(lzma.decompress(data)),
}


def prices(files: dict[str, bytes], name: str) -> list[int]:
    """What a feed holds; fails when it is not whole."""
    return [int(item["price"]) for item in READERS[name](files[name])]


def main() -> None:
    """Be a sender."""
    shop, count = Shop.__new__(Shop), int(sys.argv[2])
    shop.folder, shop.root = Path(sys.argv[1]) / "user", Path(sys.argv[1]) / "spool"
    with Spool(shop.root, CRAWL, SPEC) as spool:
        feeds = Feeds.find(spool.folder) or shop.new(spool)
        for number in range(count):
            feeds.deliver(spool.keep([output(number)]))
        forked = os.fork() if FORK in os.environ else 0
        if forked or FORK not in os.environ:
            print(forked or "kept", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
