"""Owns the defaults that are kept in Redis itself, for all senders and workers of one server.

Written by `vscrapy config --shared`, read by whoever needs one, at the moment when it does. What a
session, an order or an environment variable says wins over what is kept here.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from vscrapy_magic import config
from vscrapy_magic.errors import ConfigError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import global_key

_KEY: Final = "shared"
_NEAR: Final = 0.6  # likeness of two names from which one is taken for a slip of the other
_DAY_S: Final = 24 * 3600.0
_MB: Final = 1024 * 1024
SESSION_TTL_VARIABLE: Final = "VSCRAPY_SESSION_TTL_S"


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """The defaults that can be shared, each with what it is where nobody has said otherwise.

    Attributes:
        retention_s: what a crawl brought is kept for so long after its end.
        session_ttl_s: silence of a sender after which its crawls are cancelled.
        out_bytes_max: of items and failures of one crawl that its sender has not collected yet;
            beyond it the crawl waits.
        hang_timeout_s: a spider that does not answer for so long is killed; 0 for never.
        close_timeout_s: what a spider gets to finish and to close after a stop.
    """

    retention_s: float = _DAY_S
    session_ttl_s: float = 10.0
    out_bytes_max: int = 64 * _MB
    hang_timeout_s: float = 300.0
    close_timeout_s: float = 10.0

    @property
    def retention_ms(self) -> int:
        return round(1000 * self.retention_s)

    @property
    def session_ttl_ms(self) -> int:
        """The time to live of sessions here; an environment variable wins."""
        return config.setting_ms(SESSION_TTL_VARIABLE, round(1000 * self.session_ttl_s))


# Name -> least and greatest value.
_RANGES: Final[dict[str, tuple[float, float]]] = {
    "retention_s": (60.0, 30 * _DAY_S),
    "session_ttl_s": (1.0, _DAY_S),
    "out_bytes_max": (_MB, 64 * 1024 * _MB),
    "hang_timeout_s": (0.0, _DAY_S),
    "close_timeout_s": (0.5, _DAY_S),
}
NAMES: Final = tuple(_RANGES)


def parse_shared(values: Mapping[str, str]) -> dict[str, float | int | None]:
    """Values as users type them; None goes back to the default.

    Raises:
        ConfigError: a name is unknown, or a value is none of its kind; one line.
    """
    parsed: dict[str, float | int | None] = {}
    for name, text in values.items():
        if name not in _RANGES:
            near = difflib.get_close_matches(name.lower(), NAMES, 1, _NEAR)
            hint = f"; did you mean {near[0]}?" if near else "; there are"
            raise ConfigError(f"{name} is no shared default{hint} {', '.join(NAMES)}")
        parsed[name] = _number(name, text.strip()) if text.strip() else None
    return parsed


def _number(name: str, text: str) -> float | int:
    least, most = _RANGES[name]
    kind: Callable[[str], float | int] = int if name == "out_bytes_max" else float
    try:
        value = kind(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:  # also false for nan
        what = "a whole number of bytes" if kind is int else "a number of seconds"
        raise ConfigError(f"{name}={text}: {what} is needed, from {least:.16g} to {most:.16g}")
    return value


class Shared:
    """The shared defaults of one server; thread-safe, each call blocks for one round trip."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self) -> Defaults:
        """All of them as they are now; what this program does not know is left out."""
        return msgspec.convert(self.changed(), Defaults)

    def ask(self, pipe: Any) -> None:
        """Add the question for all of them to a pipeline; `found` reads the reply."""
        pipe.hgetall(global_key(_KEY))

    def found(self, raw: Mapping[bytes, bytes]) -> Defaults:
        """The defaults in the reply."""
        return msgspec.convert(_known(raw), Defaults)

    def changed(self) -> dict[str, float | int]:
        """Those that somebody has set."""
        with self._store.errors_wrapped():
            return _known(self._store.client.hgetall(global_key(_KEY)))

    def set(self, values: Mapping[str, str]) -> None:
        """Set some of them, all or none; an empty value goes back to the default.

        Raises:
            ConfigError: see `parse_shared`; nothing was changed.
        """
        parsed = parse_shared(values)
        key = global_key(_KEY)
        with self._store.errors_wrapped():
            pipe = self._store.client.pipeline(transaction=True)
            for name, value in parsed.items():
                if value is None:
                    pipe.hdel(key, name)
                else:
                    pipe.hset(key, name, msgspec.msgpack.encode(value))
            pipe.execute()


def _known(raw: Mapping[bytes, bytes]) -> dict[str, float | int]:
    """Values by name, of the names that this program knows."""
    found = {name.decode(): msgspec.msgpack.decode(value) for name, value in raw.items()}
    return {name: value for name, value in found.items() if name in _RANGES}
