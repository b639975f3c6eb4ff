"""A user's terminal: `vscrapy` as a process, in a home of its own, with workers that serve it."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.waiting import wait_until
from tests.worker.crew import Workers
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.presence import Presence

RUN_S = 90


class Terminal:
    """Commands of one user in one folder, against one server.

    Args:
        home: of the user: configuration, cache, spool.
    """

    def __init__(self, home: Path, url: str = "") -> None:
        self.home = home
        names = {k: v for k, v in os.environ.items() if not k.startswith(("VSCRAPY", "SCRAPY"))}
        self.environment = names | {
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "COLUMNS": "80",
        }
        if url:
            self.environment["VSCRAPY_REDIS_URL"] = url

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "vscrapy_magic.cli", *words]

    def run(self, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_S,
        )

    def start(self, folder: Path, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words),
            cwd=folder,
            env=self.environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )

    def scrapy(self, folder: Path, *words: str) -> None:
        """The same in plain Scrapy, which must succeed."""
        subprocess.run(
            [sys.executable, "-m", "scrapy", *words, "-L", "ERROR"],
            cwd=folder,
            env=self.environment,
            check=True,
            capture_output=True,
            timeout=RUN_S,
        )


def serve(store: Store, count: int = 2) -> Workers:
    """So many workers `local-1`, `local-2`, ... on the store, ready to take crawls."""
    workers = Workers(store.url, "-n", str(count), "--name", "local")
    wait_until(lambda: len(Presence(store).workers()) == count, 30, "workers")
    return workers


def items(feed: Path) -> Counter[str]:
    """Items of a feed of JSON lines, to be compared as a multiset."""
    lines = feed.read_text().splitlines()
    return Counter(json.dumps(json.loads(line), sort_keys=True) for line in lines)


def local_items(terminal: Terminal, folder: Path, spider: Path, site: DemoSite) -> Counter[str]:
    """Items of a spider's file in plain Scrapy."""
    feed = folder / "local.jsonl"
    terminal.scrapy(
        folder, "runspider", str(spider), "-a", f"site={site.url}", "-O", f"{feed}:jsonlines"
    )
    site.reset()
    return items(feed)
