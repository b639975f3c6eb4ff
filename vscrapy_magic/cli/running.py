"""Owns what is done to a running crawl: `vscrapy stop`, `set` and `push`."""

import sys
from collections.abc import Sequence

from vscrapy_magic.cli.target import address, find_crawl, need, open_store, parser
from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.options import pairs, whole
from vscrapy_magic.store.control import CHANGEABLE, WORKER_SETTINGS, Control
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.keys import WorkerName


def stop(words: Sequence[str]) -> int:
    """Stop crawls: they finish what is in flight; or kill them."""
    parse = parser(
        "vscrapy stop", "Stop a crawl: it finishes what is in flight.", "vscrapy stop 1a2b"
    )
    parse.add_argument("crawls", metavar="ID", nargs="*", help="or the beginning of one")
    parse.add_argument("--now", action="store_true", help="end at once, without finishing")
    parse.add_argument("--all", action="store_true", help="every crawl that runs")
    options = parse.parse_all(words)
    if bool(options.crawls) == options.all:
        raise ConfigError("stop: which crawl? `vscrapy stop ID`, or --all for every one")
    with open_store(options) as opened:
        store = need(opened)
        crawls = Crawls(store)
        if options.all:
            ids = [view.crawl_id for view in crawls.wanted()]
        else:
            ids = [find_crawl(text, store) for text in options.crawls]
        for crawl_id in ids:
            state = crawls.kill(crawl_id) if options.now else crawls.stop(crawl_id)
            sys.stdout.write(f"crawl {crawl_id}: {state}\n")
        if not ids:
            sys.stdout.write(f"no crawl runs on {address(store)}\n")
    return 0


def change(words: Sequence[str]) -> int:
    """Change settings of a running crawl, or of a worker."""
    parse = parser(
        "vscrapy set",
        f"Change a running crawl. Can be changed: {', '.join(CHANGEABLE)}; "
        f"of a worker: {', '.join(WORKER_SETTINGS)}.",
        "vscrapy set 1a2b LOG_LEVEL=DEBUG DOWNLOAD_DELAY=0.5",
    )
    parse.add_argument("crawl", metavar="ID", nargs="?", default="")
    parse.add_argument("values", metavar="NAME=VALUE", nargs="*")
    parse.add_argument("-w", "--worker", default="", help="change this worker, as in slots=4")
    options = parse.parse_all(words)
    given = [word for word in (options.crawl, *options.values) if word]
    if not options.worker:
        given = given[1:]
        if not given or "=" in options.crawl:
            raise ConfigError(f"set: which crawl, and what? {parse.epilog}")
    values = pairs(given, "set")
    with open_store(options) as opened:
        store = need(opened)
        if options.worker:
            Control(store).set_worker(WorkerName(options.worker), values)
            what = f"worker {options.worker}"
        else:
            crawl_id = find_crawl(options.crawl, store)
            Control(store).set(crawl_id, values)
            what = f"crawl {crawl_id}"
    shown = ", ".join(f"{name}={value}" for name, value in values.items())
    sys.stdout.write(f"{what}: {shown}\n")
    return 0


def push(words: Sequence[str]) -> int:
    """Add URLs to a running crawl."""
    parse = parser(
        "vscrapy push",
        "Add URLs to a running crawl, as its start URLs.",
        "vscrapy push 1a2b https://example.com/page --callback parse_page",
    )
    parse.add_argument("crawl", metavar="ID")
    parse.add_argument("urls", metavar="URL", nargs="+")
    parse.add_argument("--callback", default="", help="a method of the spider (parse)")
    parse.add_argument("--priority", type=whole, default=0, help="of the requests (0)")
    options = parse.parse_all(words)
    with open_store(options) as opened:
        store = need(opened)
        crawl_id = find_crawl(options.crawl, store)
        count = Crawls(store).push(
            crawl_id, options.urls, callback=options.callback, priority=options.priority
        )
    sys.stdout.write(f"crawl {crawl_id}: {count} queued\n")
    return 0
