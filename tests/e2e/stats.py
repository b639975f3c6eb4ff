"""What a crawl counted, as its log tells it: those stats that say whether two crawls were equal."""

import ast
import re
from collections.abc import Mapping

_TOLD = re.compile(r"^(?:.*?)[{ ]'([\w/.\-: ]+)': ('[^']*'|\d+)[,}]", re.MULTILINE)
_TIME = re.compile(r"datetime\.datetime\([^)]*\)")
_MATTER = re.compile(
    r"finish_reason|item_(scraped|dropped)_count|spider_exceptions/.*|dupefilter/filtered|"
    r"offsite/filtered|downloader/response_status_count/.*|downloader/request_method_count/.*|"
    r"httperror/response_ignored_count|retry/count|scheduler/dequeued|scheduler/enqueued|"
    r"log_count/ERROR"
)


def matter(stats: Mapping[str, object]) -> dict[str, str]:
    """Stats that matter, as text."""
    return {name: str(value) for name, value in stats.items() if _MATTER.fullmatch(name)}


def told(log: str) -> dict[str, str]:
    """Stats that matter, out of the lines after `Dumping Scrapy stats:`."""
    _, found, dump = log.rpartition("Dumping Scrapy stats:")
    assert found, log[-3000:]
    return matter({name: value.strip("'") for name, value in _TOLD.findall(dump)})


def all_told(log: str) -> dict[str, str]:
    """All stats out of the lines after `Dumping Scrapy stats:`, as text; empty when there are none.

    Times are left out: they are written as no literal.
    """
    _, found, dump = log.rpartition("Dumping Scrapy stats:")
    if not found:
        return {}
    text = re.match(r"\s*(\{.*?\})\n\d{4}-", dump + "\n0000-", re.DOTALL)
    assert text, dump
    stats = ast.literal_eval(_TIME.sub("None", text[1]))
    return {name: str(value) for name, value in stats.items() if value is not None}
