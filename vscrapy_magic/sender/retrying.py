"""Owns which failed requests a user puts back, and what is told of it: `%vretry`, `crawl.retry`.

Runs in the sender's process. A failure is put back once; when its request fails again, that is a
new failure. Equal requests that failed are run once.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.spool import Spool, failures_in
from vscrapy_magic.store.failures import FailureKind, FailureRecord
from vscrapy_magic.store.outputs import Output
from vscrapy_magic.store.retries import FailedRequest, PutBack, failure_number, unmasked
from vscrapy_magic.store.secrets import SECRETS_SETTING

ALL: Final = "all"
_HIDDEN: Final = b"****"  # a value that `Hider.data` has taken out
# Of others there is no request, or it runs again by itself, or what it brought is all there.
RETRIED_KINDS: Final = frozenset(
    {
        *(FailureKind.CALLBACK, FailureKind.ERRBACK, FailureKind.ITEM, FailureKind.DOWNLOAD),
        *(FailureKind.SPIDER_MIDDLEWARE, FailureKind.DOWNLOADER_MIDDLEWARE, FailureKind.BURIED),
        FailureKind.REQUEST,
    }
)


def failure_of(word: str, command: str) -> int | None:
    """The number of a failure as it is typed; None for all.

    Raises:
        ConfigError: it is none.
    """
    if word == ALL:
        return None
    if not word.isdecimal() or not int(word):
        raise ConfigError(f"{command}: {word} is no number of a failure; write one, or `{ALL}`")
    return int(word)


class Retried(msgspec.Struct, frozen=True):
    """What came of putting failed requests back.

    Attributes:
        count: requests that run again.
        reopened: the crawl was over, and goes on.
        notes: what its user should know.
    """

    count: int
    reopened: bool
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        noun = "request is" if self.count == 1 else "requests are"
        on = "; the crawl goes on with them" if self.reopened else ""
        head = f"{self.count} failed {noun} put back{on}" if self.count else "nothing to put back"
        return "\n".join([head, *self.notes])


class Choice:
    """Failures of a crawl that are to be put back, as requests.

    Attributes:
        requests: one for each distinct request, in the order of their first failures.
    """

    def __init__(self, spool: Spool, number: int | None) -> None:
        """Choose failures.

        Args:
            number: of a failure: all of its kind at its place; None: all failures.

        Raises:
            ConfigError: there is no such failure.
        """
        self._spool = spool
        self._numbers: dict[bytes, list[int]] = {}  # of failures, by request as it is sent
        self._without = self._masked = self._hidden = self._cut = 0
        self._lost: dict[str, None] = {}  # names of what is left out of requests, in order
        self._again = 0  # put back before
        self.requests: list[FailedRequest] = []
        self._choose(_wanted(spool, number))

    def _choose(self, wanted: Iterator[int]) -> None:
        before = self._spool.retried
        for number in wanted:
            if number in before:
                self._again += 1
                continue
            entry, place = self._spool.entry_of_failure(number - 1)
            output = self._spool.output(entry)
            record = failures_in(output)[place]
            payload = _payload(output, record)
            if not payload or record.kind not in RETRIED_KINDS:
                self._without += 1
                continue
            if _HIDDEN in payload:
                self._hidden += 1
                continue
            known = self._numbers.setdefault(payload, [])
            known.append(number)
            if len(known) == 1:
                self.requests.append(self._request(output, place, payload))

    def _request(self, output: Output, place: int, payload: bytes) -> FailedRequest:
        delivered = b""
        for record in failures_in(output):
            if record.request == payload:
                delivered += record.delivered
                self._cut += record.delivered_more
        sent, lost = unmasked(payload)
        self._masked += bool(lost)
        self._lost |= dict.fromkeys(lost)
        self._numbers.setdefault(sent, self._numbers[payload])
        return FailedRequest(failure_number(output.commit_no, place), sent, delivered)

    def mark(self, put: PutBack) -> Retried:
        """Remember which are put back, and say what came of it."""
        marked: set[int] = set()
        for request in self.requests:
            marked |= set(self._numbers[request.payload])
        if marked:
            self._spool.keep_retried(self._spool.retried | marked)
        return Retried(len(put.numbers), put.reopened, tuple(self._notes(put)))

    def _notes(self, put: PutBack) -> Iterator[str]:
        again = self._again + len(self.requests) - len(put.numbers)
        if again:
            yield f"{_failures(again)} put back before"
        if self._without:
            yield f"{_failures(self._without)} left out: there is no request to run again"
        if self._hidden:
            yield (
                f"{_failures(self._hidden)} left out: their requests held a value of --env, which "
                "failures do not keep"
            )
        if self._masked:
            lost = ", ".join(self._lost)
            yield (
                f"WARNING: {self._masked} of them are sent without {lost}: failures keep no "
                "secrets, and only a middleware (cookies, http_user) sets them again; to keep them "
                f"crawl with -s {SECRETS_SETTING}=True"
            )
        if self._cut:
            yield f"{self._cut} of them had brought very much: some of that may come twice"
        if not put.seen_known and put.reopened:
            yield "URLs that were seen are not kept of so large a crawl: pages may be visited again"


def _failures(count: int) -> str:
    return "1 failure was" if count == 1 else f"{count} failures were"


def _wanted(spool: Spool, number: int | None) -> Iterator[int]:
    count = spool.failure_count
    if number is None:
        yield from range(1, count + 1)
        return
    if not 1 <= number <= count:
        raise ConfigError(f"no failure {number}: there are {count}; see %verrors")
    group = next((each for each in spool.groups() if number in each.numbers), None)
    yield from group.numbers if group is not None else (number,)


def _payload(output: Output, record: FailureRecord) -> bytes:
    """The request as it was queued; empty where there was none, as of `start()`."""
    if output.buried is None:
        return record.request
    return output.buried if record.url.partition(":")[2] else b""
