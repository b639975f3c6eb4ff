"""Owns `%vfetch` and `%vview`: a page as a worker gets it, to work with and to look at.

Runs in the kernel's main thread. A page that is shown is foreign: it is put into a frame that runs
no script and loads nothing.
"""

import html
import signal
from typing import Any, Final

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.notebook.kernel import Kernel, spiders_in
from vscrapy_magic.notebook.patching import edited_order
from vscrapy_magic.sender.advice import advice
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.fetching import fetch, plain_order
from vscrapy_magic.sender.interrupts import Interrupts
from vscrapy_magic.sender.order import Order

_TICK_S: Final = 0.05
_VARIABLE: Final = "response"
_LINES_SHOWN: Final = 5
_HEIGHT: Final = "480px"
# Neither scripts nor anything from elsewhere; what the page brings itself may be seen.
_NOTHING_FROM_ELSEWHERE: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:"
)
_LOOKS_FROM_ELSEWHERE: Final = (
    "default-src 'none'; style-src 'unsafe-inline' *; img-src *; font-src *"
)


def fetch_page(
    kernel: Kernel, url: str, *, worker: str = "", spider: str = "", crawl_id: str = ""
) -> str:
    """Fetch a page through a worker; it is `response` in the notebook then.

    Args:
        spider: whose settings and middlewares are used; empty: the last crawl's, if it is here.
        crawl_id: a running crawl whose cookies go along.

    Returns:
        What came, in a line.

    Raises:
        ConfigError: it could not be fetched; the message says why.
    """
    order = _order(kernel, spider)
    crawl = fetch(kernel.session, url, order, worker=worker, cookies_of=crawl_id)
    with Interrupts(signal.SIGINT) as interrupts:
        while not crawl.wait(_TICK_S).over or not crawl.is_over:
            if interrupts.count:
                crawl.stop(now=True)
                raise ConfigError(f"{url} was not fetched: interrupted")
    if not len(crawl.items):
        raise ConfigError(f"{url} was not fetched by {_by(crawl)}: {_why(crawl)}")
    from vscrapy_magic.runtime.captured import fetched_response

    response = fetched_response(crawl.items[0])
    kernel.shell.user_ns[_VARIABLE] = response
    kind = (response.headers.get("Content-Type") or b"").decode(errors="replace")
    size = f"{len(response.body):,} bytes {kind}".rstrip()
    moved = f" (for {url})" if response.url != url else ""
    return (
        f"{_VARIABLE} = <{response.status} {response.url}>{moved}, {size}, "
        f"from {_by(crawl)} with the settings of {order.spider}; %vview shows it"
    )


def _order(kernel: Kernel, spider: str) -> Order:
    last = kernel.last
    name = spider or (last.spider if last is not None else "")
    if not name or (not spider and name not in spiders_in(kernel.shell.user_ns)):
        return plain_order()
    is_last = last is not None and last.spider == name
    return edited_order(kernel, last if is_last else None, name)


def _by(crawl: Crawl) -> str:
    return ", ".join(crawl.workers) or "any worker"


def _why(crawl: Crawl) -> str:
    if len(crawl.failures):
        record = crawl.failures[0].record
        said = advice(record)
        return f"{record.type}: {record.message}{f' - {said}' if said else ''}"
    lines = [line.text for line in crawl.logs(level="WARNING", last=_LINES_SHOWN)]
    return crawl.view.why or "; ".join(lines) or f"the crawl is {crawl.state}"


class Page:
    """A response as a page, in a frame that is cut off from everything.

    Args:
        loading: let images and styles come from elsewhere; the site sees that somebody looks.
    """

    def __init__(self, response: Any, *, loading: bool = False) -> None:
        self._response = response
        self._loading = loading

    def __repr__(self) -> str:
        response = self._response
        text = getattr(response, "text", None)
        shown = text if isinstance(text, str) else repr(response.body[:1000])
        return f"<{response.status} {response.url}>\n{shown}"

    def _repr_html_(self) -> str:
        response = self._response
        try:
            text = response.text
        except AttributeError:  # no text: a picture, a PDF
            return f"<pre>{html.escape(repr(self))}</pre>"
        rules = _LOOKS_FROM_ELSEWHERE if self._loading else _NOTHING_FROM_ELSEWHERE
        begin = (
            f'<meta http-equiv="Content-Security-Policy" content="{html.escape(rules)}">'
            f'<base href="{html.escape(response.url)}" target="_blank">'
        )
        return (
            f"<div>{response.status} {html.escape(response.url)}</div>"
            f'<iframe sandbox="" referrerpolicy="no-referrer" srcdoc="{html.escape(begin + text)}" '
            f'style="width:100%;height:{_HEIGHT};border:1px solid rgba(128,128,128,.4);'
            'background:#fff"></iframe>'
        )


def page(kernel: Kernel, number: str = "", *, crawl_id: str = "", loading: bool = False) -> Page:
    """The page of a failure; without a number what was fetched last.

    Raises:
        ConfigError: there is none.
    """
    if not number:
        response = kernel.shell.user_ns.get(_VARIABLE)
        if response is None or not hasattr(response, "body"):
            raise ConfigError("nothing was fetched yet: %vfetch URL, or name a failure: %vview 3")
        return Page(response, loading=loading)
    from vscrapy_magic.runtime.captured import plain_response
    from vscrapy_magic.runtime.replaying import chosen

    if not number.isdecimal():
        raise ConfigError(f"{number!r} is no number of a failure; see %verrors")
    place, record = chosen(kernel.crawl(crawl_id), int(number))
    found = plain_response(record)
    if found is None:
        raise ConfigError(f"failure {place} came without a response")
    return Page(found, loading=loading)
