"""What a crawl counted, as its log tells it: those stats that say whether two crawls were equal."""

import re
from collections.abc import Mapping

_TOLD = re.compile(r"^(?:.*?)[{ ]'([\w/.\-: ]+)': ('[^']*'|\d+)[,}]", re.MULTILINE)
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
