"""Owns what all handlers share: media types, redirects, and numbers read from a URL.

Runs in the demo site's process.
"""

from collections.abc import Callable

from vscrapy_magic.demo import pages
from vscrapy_magic.demo.connection import Reply, Request

JSON = "application/json"
PLAIN = "text/plain; charset=utf-8"
XML = "application/xml; charset=utf-8"
MAX_DIGITS = 9  # of a number in a URL

Handler = Callable[[Request], Reply]


class NotFoundError(Exception):
    """The path leads nowhere: becomes a 404."""


def number_in(text: str, last: int, *, first: int = 1) -> int:
    """The number that `text` spells.

    Raises:
        NotFoundError: it spells none, or none between `first` and `last`.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise NotFoundError
    number = int(text)
    if not first <= number <= last:
        raise NotFoundError
    return number


def page_count(items: int, per_page: int) -> int:
    return max(1, -(-items // per_page))


def redirect(target: str, *, status: int = 302, cookie: str | None = None) -> Reply:
    headers = [("Location", target)]
    if cookie is not None:
        headers.append(("Set-Cookie", cookie))
    return Reply(pages.message("Moved", target), status, headers=tuple(headers))


def not_found(request: Request) -> Reply:
    return Reply(pages.message("Not found", request.path), 404)


def not_allowed(request: Request, allowed: str) -> Reply:
    return Reply(pages.message("Not allowed", request.method), 405, headers=(("Allow", allowed),))


def base_of(request: Request) -> str:
    """The site's address as this client wrote it, without a slash at the end."""
    return f"http://{request.header('host') or 'localhost'}"
