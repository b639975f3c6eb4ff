"""Owns how a URL that a user adds to a running crawl becomes a request as children read it.

Runs in the sender's process, which has no Scrapy: the payload is the map that
`runtime/codec.py` decodes, and the downloader slot is what Scrapy's downloader makes of the URL.
Like a start URL of a spider it is not filtered, neither as seen nor as off-site.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.store.messages import NewRequest
from vscrapy_magic.store.values import CannotCrossError, Codec

_WITH_HOST: Final = frozenset({"http", "https", "ftp"})
_WITHOUT_HOST: Final = frozenset({"file", "data"})
_FIELDS: Final = frozenset(
    {"method", "headers", "body", "cookies", "meta", "cb_kwargs", "errback", "encoding", "flags"}
)
_DOWNLOAD_SLOT: Final = "download_slot"
_codec: Final = Codec()


def pushed(
    url: str,
    *,
    callback: str = "",
    priority: int = 0,
    fields: Mapping[str, Any] | None = None,
) -> NewRequest:
    """The request for one URL, to be queued by `Frontier.push`.

    The URL goes as it is; what is not ASCII in it is escaped by Scrapy where it is crawled.

    Args:
        callback: name of a method of the spider; empty for `parse`.
        fields: other arguments of Scrapy's `Request`; `errback` is a name, too.

    Raises:
        ConfigError: no URL that Scrapy can download, no name of a method, or a field that Scrapy
            does not have or that cannot leave this process.
    """
    url = url.strip()
    parts = _checked(url)
    content: dict[str, Any] = {"url": url, "dont_filter": True}
    for name, value in (fields or {}).items():
        if name not in _FIELDS:
            raise ConfigError(
                f"{url}: a request has no {name}; it has {', '.join(sorted(_FIELDS))}"
            )
        try:
            content[name] = _codec.tagged(value)
        except CannotCrossError as exc:
            raise ConfigError(f"{url}: its {name} cannot leave this process: {exc}") from exc
    if callback:
        content["callback"] = callback
    for name in ("callback", "errback"):
        if name in content and not (
            isinstance(content[name], str) and content[name].isidentifier()
        ):
            raise ConfigError(f"{url}: {name} {content[name]!r} is no name of a method")
    if priority:
        content["priority"] = priority
    meta = (fields or {}).get("meta") or {}
    slot = str(meta.get(_DOWNLOAD_SLOT) or _slot(parts))
    return NewRequest(payload=msgspec.msgpack.encode(content), slot=slot, priority=priority)


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port  # raises for a port that is no number
    except ValueError as exc:
        raise ConfigError(f"{url}: {exc}") from exc
    if not parts.scheme:
        raise ConfigError(f"{url}: write the whole URL, as in https://example.com/page")
    if parts.scheme not in _WITH_HOST | _WITHOUT_HOST:
        known = ", ".join(sorted(_WITH_HOST | _WITHOUT_HOST))
        raise ConfigError(f"{url}: Scrapy does not download {parts.scheme}: URLs; it does {known}")
    if parts.scheme in _WITH_HOST and not host:
        raise ConfigError(f"{url}: it names no host")
    if parts.scheme in _WITHOUT_HOST and not parts.path:
        raise ConfigError(f"{url}: there is nothing after {parts.scheme}:")
    return parts


def slot_of(url: str, meta: Mapping[Any, Any]) -> str:
    """The downloader slot of a request, as Scrapy's downloader names it."""
    return str(meta.get(_DOWNLOAD_SLOT) or _slot(urlsplit(url)))


def _slot(parts: SplitResult) -> str:
    """The host as Scrapy's downloader sees it: lower case, and in ASCII."""
    host = parts.hostname or ""
    try:
        return host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        return host
