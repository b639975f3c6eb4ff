"""Owns what no failure may show: header values that let somebody in, passwords in addresses.

Runs wherever failures are made. Headers, addresses and queued requests are masked by their form;
texts (messages, log lines, reprs) by the values that are known of one failure, and by what looks
like a header or an address with a password.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from vscrapy_magic.store.values import Tag

SECRETS_SETTING: Final = "VSCRAPY_FAILURE_SECRETS"  # whether requests in failures keep cookies etc.
MASK: Final = "***"
SECRET_CHARS_MIN: Final = 4  # shorter values are part of too much else
_COOKIE_CHARS_MIN: Final = 6  # the same for one cookie: many are short words or numbers
_SECRET_HEADERS: Final = frozenset({"authorization", "cookie", "proxy-authorization", "set-cookie"})
_SECRET_META: Final = frozenset({"http_pass"})  # of Scrapy's HttpAuthMiddleware
_PROXY: Final = "proxy"
_USER: Final = re.compile(r"(?<=://)[^/\s:@'\"]*:[^/\s@'\"]+(?=@)")
_USER_BYTES: Final = re.compile(_USER.pattern.encode())
# `Cookie: a=b`, as it is sent; and `{'cookie': [b'a=b']}` or `cookie='a=b'`, as Python shows it.
# Code that only names a header (`cookie = find(response)`) is left alone.
_SENT: Final = re.compile(
    r"\b((?:Proxy-)?Authorization|(?:Set-)?Cookie)(: *)[^\s'\"\[\]({][^'\"\]\r\n]*"
)
_SHOWN: Final = re.compile(
    r"\b((?:proxy-)?authorization|(?:set-)?cookie)(['\"]?\s*[:=]\s*[\[(]?\s*b?(?P<q>['\"]))"
    r"(?:(?!(?P=q))[^\r\n])+",
    re.IGNORECASE,
)


def is_secret(header: str) -> bool:
    """Whether values of a header may not be shown."""
    return header.lower() in _SECRET_HEADERS


def mask_headers(headers: dict[str, list[str]]) -> dict[str, list[str]]:
    """Headers as they may be shown: without what would let somebody in."""
    return {
        name: [MASK] * len(values) if is_secret(name) else values
        for name, values in headers.items()
    }


def mask_url(url: str) -> str:
    """An address without user and password."""
    return _USER.sub(MASK, url) if "@" in url else url


class Hider:
    """Takes secrets out of texts; immutable.

    Args:
        values: what is known to be secret; short ones are left out.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        found = {line.strip() for value in values for line in value.splitlines()}
        kept = {line for line in found if len(line) >= SECRET_CHARS_MIN}
        # One may be part of another.
        self._values: Final = tuple(sorted(kept, key=len, reverse=True))

    def knowing(self, values: Iterable[str]) -> "Hider":
        """One that knows more values."""
        return Hider([*self._values, *values])

    def values(self, text: str) -> str:
        """The text without the values that are known."""
        for value in self._values:
            if value in text:
                text = text.replace(value, MASK)
        return text

    def text(self, text: str) -> str:
        """The text without secrets: those that are known, and those that look like one."""
        text = self.values(text)
        if "@" in text:
            text = _USER.sub(MASK, text)
        return _SHOWN.sub(rf"\1\2{MASK}", _SENT.sub(rf"\1\2{MASK}", text))

    def data(self, data: bytes) -> bytes:
        """Packed data without the values that are known; its length stays: it is to be read."""
        for value in self._values:
            raw = value.encode()
            if raw in data:
                data = data.replace(raw, b"*" * len(raw))
        return data


def secret_values(headers: Mapping[str, Iterable[str]]) -> set[str]:
    """What secret headers hold, whole and in pieces, to be found again in texts."""
    found: set[str] = set()
    for name, values in headers.items():
        if not is_secret(name):
            continue
        for value in values:
            found.add(value)
            if "cookie" in name.lower():
                pairs = value.split(";")
                # What follows the first pair of Set-Cookie are attributes.
                for pair in pairs[:1] if name.lower() == "set-cookie" else pairs:
                    cookie = pair.partition("=")[2].strip().strip('"')
                    if len(cookie) >= _COOKIE_CHARS_MIN:
                        found.add(cookie)
            else:
                found.add(value.rpartition(" ")[2])
    return found


def mask_payload(payload: bytes) -> bytes:
    """A request as the runtime's codec has packed it, without what would let somebody in.

    Where something was taken out there is `***`; all else stays as it is, and is not built.
    """
    fields = msgspec.msgpack.decode(payload)
    if isinstance(headers := fields.get("headers"), dict):
        fields["headers"] = {
            name: [MASK.encode()] * len(values) if is_secret(_text(name)) else values
            for name, values in headers.items()
        }
    if "cookies" in fields:
        fields["cookies"] = _without_values(fields["cookies"])
    if isinstance(fields.get("url"), str):
        fields["url"] = mask_url(fields["url"])
    if "meta" in fields:
        fields["meta"] = _meta(fields["meta"])
    return msgspec.msgpack.encode(fields)


def _text(name: Any) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else str(name)


def _without_values(cookies: Any) -> Any:
    """Cookies by name; or a list of mappings, of which one entry is the value."""
    if isinstance(cookies, dict):
        return dict.fromkeys(cookies, MASK)
    if isinstance(cookies, list):
        return [
            {**cookie, "value": MASK} if isinstance(cookie, dict) else MASK for cookie in cookies
        ]
    return {}


def _meta(meta: Any) -> Any:
    if isinstance(meta, dict):
        return {key: _meta_value(key, value) for key, value in meta.items()}
    if isinstance(meta, msgspec.msgpack.Ext) and meta.code == Tag.PAIRS:
        pairs = msgspec.msgpack.decode(meta.data)
        masked = [[key, _meta_value(key, value)] for key, value in pairs]
        return msgspec.msgpack.Ext(meta.code, msgspec.msgpack.encode(masked))
    return meta


def _meta_value(key: Any, value: Any) -> Any:
    if key in _SECRET_META:
        return MASK
    if key == _PROXY and isinstance(value, str):
        return mask_url(value)
    if key == _PROXY and isinstance(value, bytes):
        return _USER_BYTES.sub(MASK.encode(), value)
    return value
