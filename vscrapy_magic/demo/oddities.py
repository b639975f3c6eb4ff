"""Owns the pages that misbehave on purpose: slow, flaky, broken, big, oddly encoded; and the echo.

Runs in the demo site's process.
"""

from vscrapy_magic.demo import pages
from vscrapy_magic.demo.answers import JSON, PLAIN, Handler, NotFoundError, number_in
from vscrapy_magic.demo.connection import Reply, Request
from vscrapy_magic.demo.feeds import json_bytes
from vscrapy_magic.demo.tally import Tally

MAX_SLOW_MS = 60_000
DEFAULT_SLOW_MS = 300
MAX_BIG_BYTES = 64 * 1024 * 1024
DEFAULT_BIG_BYTES = 1024 * 1024
MAX_FAILURES = 1000
STRANGE = "Größe, señor, façade, Ærø: £5 for a naïve café."  # every letter is in latin-1

LINKS = (
    *(f"/old-book/{n}?ref=old" for n in range(1, 6)),
    *(f"/meta-refresh/{n}?ref=moved" for n in range(1, 6)),
    *(f"/flaky/{n}" for n in range(1, 6)),
    *(f"/broken/{n}" for n in range(1, 4)),
    *(f"/missing/{n}" for n in range(1, 4)),
    *(f"/slow/{n}?ms=150" for n in range(1, 4)),
    "/private/ledger",
    "/encoding/utf-8",
    "/encoding/latin-1",
    "/encoding/latin-1-meta",
    "/encoding/sm%C3%B6rg%C3%A5sbord",
    "/big?bytes=200000",
    "http://elsewhere.invalid/book/1",
)


def _encoding(request: Request) -> Reply:
    """The same sentence in the encoding that the path names."""
    match request.segments[1:]:
        case ("utf-8" | "smörgåsbord",):
            return Reply(pages.message("Größe", STRANGE))
        case ("latin-1",):
            content_type = "text/html; charset=iso-8859-1"
        case ("latin-1-meta",):
            content_type = "text/html"  # only the page itself says how to read it
        case _:
            raise NotFoundError
    html = (
        '<!DOCTYPE html>\n<html><head><meta http-equiv="Content-Type" '
        'content="text/html; charset=iso-8859-1"><title>Größe</title></head>\n'
        f"<body><h1>Größe</h1>\n<p>{STRANGE}</p></body></html>\n"
    )
    return Reply(html.encode("latin-1"), content_type=content_type)


def _static(request: Request) -> Reply:
    if request.segments[1:] != ("site.css",):
        raise NotFoundError
    return Reply(pages.STYLE.encode(), content_type="text/css; charset=utf-8")


def _slow(request: Request) -> Reply:
    delay_ms = number_in(request.query.get("ms", str(DEFAULT_SLOW_MS)), MAX_SLOW_MS, first=0)
    body = pages.message("Slow", f"This page took its {delay_ms} ms.")
    return Reply(body, delay_s=delay_ms / 1000)


def _big(request: Request) -> Reply:
    """Exactly so many bytes of HTML (but never fewer than its tags take)."""
    wanted = number_in(request.query.get("bytes", str(DEFAULT_BIG_BYTES)), MAX_BIG_BYTES, first=0)
    before, after = b"<html><body><pre>\n", b"</pre></body></html>\n"
    line = b"A patient spider reads even the longest page, line by line by line.\n"
    middle = max(wanted - len(before) - len(after), 0)
    return Reply(before + (line * (middle // len(line) + 1))[:middle] + after)


def _echo(request: Request) -> Reply:
    """What came, as JSON; of headers that came twice the last one."""
    came = {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": dict(request.headers),
        "body": request.body.decode("utf-8", "replace"),
    }
    return Reply(json_bytes(came), content_type=JSON)


def _broken(request: Request) -> Reply:
    return Reply(pages.message("Broken", f"{request.path} never works."), 500)


class Oddities:
    """Handlers of the odd pages; the flaky ones count their failures in the tally."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    @property
    def fixed(self) -> dict[str, Handler]:
        """Handlers of GET whose answers depend on target and Host alone, by first segment."""
        return {
            "oddities": lambda _request: Reply(pages.oddities(LINKS)),
            "encoding": _encoding,
            "static": _static,
            "private": lambda _request: Reply(pages.message("Private", "For the staff only.")),
        }

    @property
    def live(self) -> dict[str, Handler]:
        return {
            "slow": _slow,
            "flaky": self._flaky,
            "broken": _broken,
            "big": _big,
            "echo": _echo,
        }

    def _flaky(self, request: Request) -> Reply:
        """Fails on the first hits, `?fails=k` of them (without it one or two), then works."""
        match request.segments:
            case (_, text):
                number = number_in(text, 10**9)
            case _:
                raise NotFoundError
        wanted = request.query.get("fails", str(2 - number % 2))
        if self._tally.fail(request.target, number_in(wanted, MAX_FAILURES, first=0)):
            return Reply(b"try again\n", 500, PLAIN)
        return Reply(pages.message("Flaky", f"{request.path} works now."))
