"""Owns the crawl's cookies in a child, and facts that travel with them.

Runs in the event loop of a child. Every change of a cookie is an output of the lease that made it;
the changes of others are applied before their requests are handed out. The same way carries what is
to be known once per crawl and host: the text of robots.txt.
"""

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from http.cookiejar import Cookie
from http.cookiejar import CookieJar as StandardJar
from typing import Any, Final

import msgspec
from scrapy.downloadermiddlewares.cookies import CookiesMiddleware
from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.http import Request, Response
from scrapy.http.cookies import CookieJar
from scrapy.utils.httpobj import urlparse_cached

from vscrapy_magic.runtime.engine import knows_robots, teach_robots
from vscrapy_magic.runtime.tracker import Tracker
from vscrapy_magic.store.messages import CookieChange
from vscrapy_magic.store.values import CannotCrossError, Codec

logger = logging.getLogger(__name__)

ROBOTS_BYTES: Final = 512 * 1024  # what RFC 9309 asks crawlers to read at least
_ROBOTS: Final = "robots:"  # begins no key of a cookie: those are JSON lists
_ATTRIBUTES: Final = (
    *("version", "name", "value", "port", "port_specified", "domain", "domain_specified"),
    *("domain_initial_dot", "path", "path_specified", "secure", "expires", "discard"),
    *("comment", "comment_url", "rfc2109"),
)

Report = Callable[[str, bytes], None]


class _ReportingJar(StandardJar):
    """The standard library's jar; says what changes."""

    def __init__(
        self, policy: Any, changed: Callable[[Cookie | tuple[str, str, str]], None]
    ) -> None:
        super().__init__(policy)
        self._changed = changed

    def set_cookie(self, cookie: Cookie) -> None:
        path = self._cookies.get(cookie.domain, {}).get(cookie.path, {})  # type: ignore[attr-defined]
        old = path.get(cookie.name)
        super().set_cookie(cookie)
        if old is None or _state(old) != _state(cookie):
            self._changed(cookie)

    def clear(
        self, domain: str | None = None, path: str | None = None, name: str | None = None
    ) -> None:
        super().clear(domain, path, name)
        if domain is not None and path is not None and name is not None:
            self._changed((domain, path, name))


class _CrawlJar(CookieJar):
    """Scrapy's jar, over a standard one that says what changes."""

    def __init__(self, changed: Callable[[Cookie | tuple[str, str, str]], None]) -> None:
        super().__init__()
        lock = self.jar._cookies_lock  # type: ignore[attr-defined]
        self.jar = _ReportingJar(self.policy, changed)
        self.jar._cookies_lock = lock  # type: ignore[attr-defined]


class _Jars(defaultdict[Any, CookieJar]):
    """`CookiesMiddleware.jars`, by the request's `cookiejar`."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report

    def __missing__(self, key: Any) -> CookieJar:
        def changed(cookie: Cookie | tuple[str, str, str]) -> None:
            if isinstance(cookie, Cookie):
                place = (cookie.domain, cookie.path, cookie.name)
                self._report(_key(key, *place), msgspec.msgpack.encode(_state(cookie)))
            else:
                self._report(_key(key, *cookie), b"")

        jar = self[key] = _CrawlJar(changed)
        return jar


class Cookies:
    """Cookies of one crawl in this child."""

    def __init__(self, middlewares: Iterable[Any], tracker: Tracker) -> None:
        self._tracker = tracker
        self._quiet = False
        self._pending: Counter[str] = Counter()
        self._jars: list[_Jars] = []
        self._robots: list[RobotsTxtMiddleware] = []
        for middleware in middlewares:
            if isinstance(middleware, CookiesMiddleware):
                middleware.jars = jars = _Jars(self._report)
                self._jars.append(jars)
            elif isinstance(middleware, RobotsTxtMiddleware):
                self._robots.append(middleware)

    def _report(self, key: str, value: bytes) -> None:
        if self._quiet:
            return
        unit = self._tracker.unit()
        if unit is None:
            return
        if key not in unit.cookies:
            self._pending[key] += 1
        unit.cookies[key] = value

    def settled(self, keys: Iterable[str]) -> None:
        """Changes made here were committed, or thrown away."""
        for key in keys:
            self._pending[key] -= 1
            if self._pending[key] <= 0:
                del self._pending[key]

    def apply(self, changes: Iterable[CookieChange]) -> None:
        """Make this child's jars what the crawl's are.

        A cookie that was changed here since stays: that change is newer, and on its way.
        """
        self._quiet = True
        try:
            for change in changes:
                if change.key.startswith(_ROBOTS):
                    self._learn_robots(change.key.removeprefix(_ROBOTS), change.value)
                elif change.key not in self._pending:
                    self._set(change)
        finally:
            self._quiet = False

    def _set(self, change: CookieChange) -> None:
        jar_key, domain, path, name = json.loads(change.key)
        for jars in self._jars:
            jar = jars[_jar_from(jar_key)]
            if change.value:
                values = msgspec.msgpack.decode(change.value)
                fields = dict(zip(_ATTRIBUTES, values, strict=False))
                jar.set_cookie(Cookie(**fields, rest=values[len(_ATTRIBUTES)]))
            elif name in jar._cookies.get(domain, {}).get(path, {}):
                jar.clear(domain, path, name)

    def response_received(self, response: Response, request: Request) -> None:
        """Let the others know a robots.txt that was fetched here."""
        if not (self._robots and request.meta.get("dont_obey_robotstxt")):
            return
        url = urlparse_cached(request)
        if url.path == "/robots.txt":
            self._report(_ROBOTS + url.netloc, b"=" + response.body[:ROBOTS_BYTES])

    def _learn_robots(self, netloc: str, value: bytes) -> None:
        for middleware in self._robots:
            if not knows_robots(middleware, netloc):
                teach_robots(middleware, netloc, value.removeprefix(b"="))


def _state(cookie: Cookie) -> list[Any]:
    return [*(getattr(cookie, name) for name in _ATTRIBUTES), cookie._rest]  # type: ignore[attr-defined]


def _key(jar: Any, domain: str, path: str, name: str) -> str:
    if not (jar is None or type(jar) in {str, int, bool}):
        try:
            jar = {"msgpack": Codec().encode(jar).hex()}
        except CannotCrossError:
            logger.debug("The cookie jar %r cannot be told apart from its repr", jar)
            jar = {"repr": repr(jar)}
    return json.dumps([jar, domain, path, name])


def _jar_from(key: Any) -> Any:
    if isinstance(key, dict):
        return Codec().decode(bytes.fromhex(key["msgpack"])) if "msgpack" in key else key["repr"]
    return key
