"""Owns the connection to Redis or Valkey: one `Store` per process, shared by all its threads.

The rest of `store/` speaks through it; outside of `store/` nobody sees the driver or its errors.
One attempt per call: whether a call may be repeated is known only to the caller (a step may,
because its number fences it).
"""

import inspect
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)
from redis.retry import Retry

from vscrapy_magic.config import check_url, redact
from vscrapy_magic.errors import (
    StoreAuthError,
    StoreError,
    StoreReadOnlyError,
    StoreTooOldError,
    StoreUnreachableError,
)
from vscrapy_magic.store.keys import global_key
from vscrapy_magic.store.scripts import Script

TIMEOUT_S: Final = 5.0  # default for connecting and for one reply; longer hides a cut network
OLDEST_VERSION: Final = (6, 2)
# Connections that say which driver they are cost two more round trips, and its version is looked up
# among the installed packages (2 ms). Before redis-py 8 the same had two names.
_ANONYMOUS: Final[dict[str, None]] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(redis.connection.AbstractConnection).parameters
    else {"lib_name": None, "lib_version": None}
)
_SHORTEST_BLOCK_S: Final = 0.001  # a blocking read of 0 would never end

# Inside a script an error is quoted in a longer text, and some have no class of their own.
_AUTH_CODE: Final = re.compile(r"\b(NOAUTH|WRONGPASS)\b")
# Of Redis 7.0 inside a script, and of others.
_NO_RIGHT: Final = re.compile(r"\bNOPERM\b|user executing the script|has no permissions")
# UNBLOCKED: a primary became a replica while somebody waited.
_READ_ONLY_CODE: Final = re.compile(r"\b(READONLY|OOM|MISCONF|MASTERDOWN|NOREPLICAS|UNBLOCKED)\b")
_WHERE_IN_SCRIPT: Final = re.compile(r"\.? script: [0-9a-f]+, on @user_script:\s?\d+")
# What a server that takes no writes is told to be, by a word of its refusal.
_WRITE_HINTS: Final = {
    "NOREPLICAS": "see that its replicas run (min-replicas-to-write)",
    "MISCONF": "see its log, and give it disk",
    "maxmemory": "give it more memory (maxmemory), or end what fills it",
}
_PIPELINE: Final = re.compile(r"^Command # \d+ \(.*\) of pipeline caused error: ", re.DOTALL)
_DISTRUST: Final = "CERTIFICATE_VERIFY_FAILED"
_NO_DATABASE: Final = "DB index"


class Store:
    """An open connection pool; thread-safe, and closed by whoever made it.

    Attributes:
        url: the address as given, with its password: for other processes of ours, never shown.
        address: the address as it may be shown.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Prepare, without asking the server anything; `connect` is what callers want.

        Raises:
            ConfigError: the address cannot be used.
        """
        self.url: Final = check_url(url)
        self.address: Final = redact(url)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._closed = False
        self._pool = self._new_pool(timeout_s)
        self._client = redis.Redis(connection_pool=self._pool)
        # Connections that wait for a wake-up; their time limit is given with each wait.
        self._waiting = self._new_pool(None)
        self._dedicated: set[redis.ConnectionPool] = set()

    @classmethod
    def connect(cls, url: str, *, timeout_s: float = TIMEOUT_S) -> Self:
        """An open store on a server that answers, lets us in and is new enough.

        Blocks for one round trip after connecting, at most `timeout_s` for each of the two.

        Raises:
            ConfigError: the address cannot be used.
            StoreUnreachableError: nothing answers there.
            StoreAuthError: it refuses the user or the password.
            StoreTooOldError: it is older than Redis 6.2.
        """
        store = cls(url, timeout_s=timeout_s)
        try:
            store._check()
        except StoreUnreachableError as exc:
            store.close()
            raise StoreUnreachableError(f"{exc}{store._tls_hint(str(exc))}") from exc
        except BaseException:
            store.close()
            raise
        return store

    def _tls_hint(self, text: str) -> str:
        """What to try when only one of the two sides seems to speak TLS."""
        if self.url.startswith("rediss:"):
            is_mute = "Timeout" in text or ("[SSL" in text and _DISTRUST not in text)
            return "; without TLS its address begins with redis://" if is_mute else ""
        is_cut_off = "while reading" in text or "closed by server" in text
        return "; with TLS its address begins with rediss://" if is_cut_off else ""

    def _check(self) -> None:
        with self.errors_wrapped():
            pipe = self._client.pipeline(transaction=False)
            pipe.ping()
            pipe.info("server")
            _, info = pipe.execute()
        version = str(info.get("redis_version", "0"))
        if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < OLDEST_VERSION:
            wanted = ".".join(map(str, OLDEST_VERSION))
            raise StoreTooOldError(
                f"the server at {self.address} is Redis {version}; {wanted} or newer is needed "
                "(any Valkey is): update it, or choose another"
            )

    @property
    def client(self) -> Any:
        """The driver, for `store/` only; calls through it belong inside `errors_wrapped`.

        Untyped: the driver's annotations mix replies as text, as bytes and as awaitables.
        """
        if self._closed:
            raise StoreError(f"the connection to {self.address} has been closed in this process")
        return self._client

    def call(
        self, script: Script, keys: Sequence[str], args: Sequence[bytes | str | int | float] = ()
    ) -> Any:
        """What the script returns, in the driver's types; atomic on the server, one round trip.

        A server that does not know the script (new, or restarted) gets its source, once.

        Raises:
            StoreUnreachableError: no reply came; whether the script ran is not known.
        """
        try:
            try:
                return self.client.evalsha(script.sha1, len(keys), *keys, *args)
            except NoScriptError:
                return self.client.eval(script.source, len(keys), *keys, *args)
        except RedisError as exc:
            raise self._wrapped(exc, f"script {script.name}: ") from exc

    def pop_wake(self, key: str, timeout_s: float, *more: str) -> bool:
        """Block until one of the lists has an entry, and take it; False when there came none.

        Any number of threads may wait; `close` ends the wait of all.

        Raises:
            StoreUnreachableError: the connection broke, or the server answered too late.
        """
        with self.errors_wrapped():
            if self._closed or timeout_s <= 0:
                return any(self.client.lpop(key) is not None for key in (key, *more))
            connection = self._waiting.get_connection()
            try:
                connection.send_command(  # type: ignore[no-untyped-call]
                    "BLPOP", key, *more, max(timeout_s, _SHORTEST_BLOCK_S)
                )
                if not connection.can_read(timeout_s + self._timeout_s):
                    raise redis.TimeoutError("no answer to a blocking read")
                return connection.read_response() is not None
            except BaseException as exc:
                # An answer that is still to come must not be taken for that of the next wait.
                connection.disconnect()  # type: ignore[no-untyped-call]
                if isinstance(exc, TypeError):  # the driver's, when `close` took its socket away
                    raise StoreError(f"the connection to {self.address} has been closed") from exc
                raise
            finally:
                self._waiting.release(connection)

    @contextmanager
    def blocking_client(self) -> Iterator[redis.Redis]:
        """A client of the caller's own, for commands that block for less than the time limit.

        A read without a limit would never end after a cut of the network: no word comes then, not
        even that the connection is gone. `close` of the store breaks its connection, from any
        thread.
        """
        pool = self._new_pool(self._timeout_s)
        with self._lock:
            self._dedicated.add(pool)
        try:
            if self._closed:
                raise StoreError(f"the connection to {self.address} has been closed")
            yield redis.Redis(connection_pool=pool)
        finally:
            with self._lock:
                self._dedicated.discard(pool)
            pool.disconnect()

    def run_id(self) -> str:
        """The name of this run of the server; another one after each restart."""
        with self.errors_wrapped():
            return str(self.client.info("server")["run_id"])

    def check_writes(self) -> None:
        """See that the server takes writes, by one that changes nothing.

        Raises:
            StoreReadOnlyError: it takes none; the message says why.
        """
        with self.errors_wrapped():
            self.ask_writes(self.client)

    def ask_writes(self, pipe: Any) -> None:
        """The same as part of a pipeline."""
        pipe.setrange(global_key("judged"), 0, b"")

    @contextmanager
    def errors_wrapped(self) -> Iterator[None]:
        """Turn errors of the driver into ours, with the address and what to do next."""
        try:
            yield
        except RedisError as exc:
            raise self._wrapped(exc) from exc

    def _wrapped(self, exc: RedisError, doing: str = "") -> StoreError:
        # The driver quotes the command, which holds data: not for a log.
        said = _PIPELINE.sub("", str(exc)).rstrip(".")
        text = _WHERE_IN_SCRIPT.sub("", said)
        where = f"the server at {self.address}"
        if isinstance(exc, NoPermissionError) or _NO_RIGHT.search(text):
            return StoreAuthError(
                f"{where} does not let its user do this ({text}): give that user the rights that "
                "docs/deploy.md names"
            )
        if isinstance(exc, AuthenticationError | AuthorizationError) or (_AUTH_CODE.search(text)):
            return StoreAuthError(
                f"{where} refuses the user or the password of this address ({text}): correct it, "
                "as in redis://user:password@host:6379"
            )
        if isinstance(exc, ReadOnlyError | OutOfMemoryError) or _READ_ONLY_CODE.search(text):
            hints = (hint for word, hint in _WRITE_HINTS.items() if word in text)
            return StoreReadOnlyError(
                f"{where} takes no writes ({text}): {next(hints, 'use the primary')}"
            )
        if isinstance(exc, BusyLoadingError):
            return StoreUnreachableError(f"{where} is still reading its data: try again soon")
        if _DISTRUST in text:
            return StoreUnreachableError(
                f"{where} has a certificate that is not trusted here ({text}): name the file of "
                "its authority, as in rediss://host:6379?ssl_ca_certs=/path/of/ca.pem, and the "
                "host as the certificate does"
            )
        if _NO_DATABASE in text:
            return StoreError(
                f"{where} has no such database ({text}): take a lower number after the host, or 0"
            )
        if isinstance(exc, redis.ConnectionError | redis.TimeoutError):
            return StoreUnreachableError(
                f"{where} does not answer ({text}): see that it runs, that this machine may reach "
                "it, and that the address is right"
            )
        return StoreError(f"{doing}{where} refused: {said}")

    def _new_pool(self, socket_timeout_s: float | None) -> redis.ConnectionPool:
        return redis.ConnectionPool.from_url(
            self.url,
            decode_responses=False,
            protocol=2,  # the shape of replies must not depend on the driver's version
            socket_timeout=socket_timeout_s,
            socket_connect_timeout=self._timeout_s,
            retry=Retry(NoBackoff(), 0),
            **_ANONYMOUS,
        )

    def close(self) -> None:
        """Close all connections and end all blocking reads; idempotent, from any thread."""
        self._closed = True
        with self._lock:
            pools = (self._pool, self._waiting, *self._dedicated)
        for pool in pools:
            pool.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Store {self.address}{' closed' if self._closed else ''}>"
