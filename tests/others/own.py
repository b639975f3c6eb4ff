"""Runs Scrapy's own test spiders on workers, by `session.crawl`; a process of its own.

`tests` is Scrapy's here, not ours. Reads orders (JSON) from standard input: module, arguments,
settings, number of workers; writes what became of each.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import vscrapy_magic as vs

WAIT_S = 200.0
LAST_WORDS_S = 10.0


def lines_of(crawl: Any) -> list[Any]:
    """All that was said; a child's last words come a moment after the end of its crawl."""
    deadline = time.monotonic() + LAST_WORDS_S
    while True:
        lines: list[Any] = crawl.logs()
        begun = sum(line.text.startswith("a child starts") for line in lines)
        ended = sum(line.text.startswith("the child ") for line in lines)
        if 0 < begun <= ended or time.monotonic() > deadline:
            return lines
        time.sleep(0.1)


def result(crawl: Any) -> dict[str, Any]:
    view = crawl.wait(WAIT_S)
    lines = [(line.logger, line.text.partition("\n")[0]) for line in lines_of(crawl)]
    stats = {name: str(value) for name, value in crawl.stats.items()}
    return {
        "state": str(view.state),
        "why": view.why,
        "reason": crawl.finish_reason,
        "items": [json.dumps(dict(item), sort_keys=True, default=str) for item in crawl.items],
        "stats": stats | {"finish_reason": crawl.finish_reason},
        "lines": sorted(text for logger, text in lines if logger == crawl.spider),
        "errors": [text for _, text in lines if "Error" in text][:5],
    }


def main() -> None:
    sys.path[0] = str(Path.cwd())
    orders = json.load(sys.stdin)
    with vs.connect(os.environ["VSCRAPY_REDIS_URL"]) as session:
        placed = []
        for module, args, settings, workers in orders:
            kind = importlib.import_module(module).Framed
            own = {"LOG_LEVEL": "INFO", **settings}
            placed.append(session.crawl(kind, args=args, settings=own, workers=workers))
        json.dump([result(crawl) for crawl in placed], sys.stdout)


if __name__ == "__main__":
    main()
