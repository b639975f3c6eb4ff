"""Owns the name of every key in Redis; read by all processes, and by the tests that hunt for leaks.

Every key of a crawl begins with `vscrapy:{crawl_id}:` (the braces are Redis Cluster's hash tag, so
one script may touch all of them). Scripts get that prefix as their only key of the crawl and derive
the others, because queue and seen shards grow with the data.
"""

from typing import Final, Literal, NewType

import msgspec

CrawlId = NewType("CrawlId", str)
MemberToken = NewType("MemberToken", str)
SessionId = NewType("SessionId", str)
WorkerName = NewType("WorkerName", str)

ROOT: Final = "vscrapy:"
_QUEUE: Final = "q:"  # of a slot, whose name is empty for addresses without a host


class KeyRow(msgspec.Struct, frozen=True):
    """What may be known of one family of keys."""

    name: str
    type: Literal["string", "hash", "set", "zset", "list", "stream"]
    written_by: str
    read_by: str
    ends: str
    bound: str


CRAWL_KEYS: Final[tuple[KeyRow, ...]] = (
    KeyRow(
        "meta", "hash", "all scripts", "all", "retention", "fixed fields; one per collecting folder"
    ),
    KeyRow(
        "members", "zset", "join, renew, leave", "judge", "end of crawl", "children of the crawl"
    ),
    KeyRow("claims", "zset", "reserve, renew, step", "reserve, step", "end of crawl", "workers"),
    KeyRow("standby", "list", "reserve", "step", "end of crawl", "workers"),
    KeyRow("unfit", "hash", "refuse", "refuse", "end of crawl", "workers"),
    KeyRow("m:<token>", "hash", "step", "step", "member leaves", "fixed fields"),
    KeyRow(
        "l:<token>", "hash", "step", "step, judge, held", "member leaves", "leases of one child"
    ),
    KeyRow("h:<token>", "hash", "step", "step, judge", "member leaves", "slots one child uses"),
    KeyRow("r:<token>", "zset", "step", "step", "member leaves", "exclusive slots of one child"),
    KeyRow("b", "hash", "step", "step, held", "end of crawl", "undone requests / 32 and more"),
    KeyRow("bm", "hash", "step", "step, judge", "end of crawl", "as b"),
    KeyRow("q:<slot>", "zset", "step", "step", "slot empty", "queued blobs of a slot"),
    KeyRow("ready", "zset", "step", "step", "end of crawl", "slots with queued requests"),
    KeyRow("slots", "hash", "step", "step", "end of crawl", "slots in use; one per delayed site"),
    KeyRow(
        "s<level>:<n>",
        "set",
        "step",
        "step",
        "end of crawl; retention with failures",
        "400 fingerprints on average",
    ),
    KeyRow("p:<origin>", "list", "step", "child", "lease ends", "8 bytes per published output"),
    KeyRow("a", "hash", "judge", "step, held", "end of crawl", "requests that ran more than once"),
    KeyRow(
        "suspects", "list", "leave, step", "step", "end of crawl", "requests in flight at a death"
    ),
    KeyRow("stats", "hash", "step", "all", "retention", "stats keys of the spider, 10,000"),
    KeyRow("cookies", "hash", "step", "step", "end of crawl", "cookies of the crawl, 10,000"),
    KeyRow("cookie_no", "zset", "step", "step", "end of crawl", "as cookies"),
    KeyRow(
        *("out", "stream", "step, leave", "sender", "retention"),
        "64 MB not acknowledged, then leasing waits; recorded pages count too",
    ),
    KeyRow("control", "hash", "control", "child, sender", "end of crawl", "changeable settings"),
    KeyRow("codes", "hash", "offer", "child, sender", "retention", "150 bytes a patch"),
    KeyRow("offer", "hash", "offer, answer", "answer, renew", "end of crawl", "members, and 20 kB"),
    KeyRow("retried", "set", "retry", "retry", "retention", "8 bytes a failure put back"),
    KeyRow("spare", "zset", "step", "step", "end of crawl", "members with unstarted leases"),
    KeyRow(
        "log", "stream", "create, supervisor", "sender", "retention", "8 MB and 100,000 entries"
    ),
    KeyRow("files", "hash", "child, supervisor", "sender", "retention", "50 MB and 200 files"),
    KeyRow("parked", "list", "step", "step", "end of crawl", "members"),
    KeyRow("holding", "list", "step", "step", "end of crawl", "members"),
    KeyRow("halts", "hash", "child", "sender, judge", "end of crawl", "threads in the debugger"),
    KeyRow(
        "halt:<number>", "stream", "child", "sender", "a minute after the halt", "1 MB, 64 entries"
    ),
    KeyRow("halt-in:<number>", "list", "sender", "child", "end of the halt", "100 typed lines"),
    KeyRow("wake:<token>", "list", "step", "child", "member leaves", "1 entry"),
)

GLOBAL_KEYS: Final[tuple[KeyRow, ...]] = (
    KeyRow("crawls", "zset", "create", "all", "never; members by retention", "crawls kept"),
    KeyRow("crawls:due", "zset", "sweep", "beat", "never; members by retention", "crawls kept"),
    KeyRow(
        "crawls:live", "zset", "create", "workers", "never; members by sweep", "crawls not swept"
    ),
    KeyRow("workers", "hash", "beat", "all", "never; members when gone an hour", "workers"),
    KeyRow("workers:due", "zset", "beat", "judge", "as workers", "workers"),
    KeyRow("sessions", "hash", "beat", "all", "never; members with a verdict", "sessions"),
    KeyRow("sessions:due", "zset", "beat", "judge", "as sessions", "sessions"),
    KeyRow("sessions:gone", "zset", "judge", "workers", "never; members after 2 days", "sessions"),
    KeyRow("sessions:heard", "hash", "beat", "judge", "as sessions:due and :gone", "sessions"),
    KeyRow("judged", "string", "judge", "judge", "never", "one number"),
    KeyRow("wake:<worker>", "list", "who changes a crawl", "supervisor", "a minute", "1 entry"),
    KeyRow("worker-set:<worker>", "string", "sender", "supervisor", "a day", "one number"),
    KeyRow("shared", "hash", "vscrapy config", "all", "never", "names of shared.py"),
    KeyRow("bundle:<sha256>", "string", "sender", "child", "retention after last use", "50 MB"),
)


def crawl_prefix(crawl_id: CrawlId) -> str:
    """Prefix of all keys of one crawl, with its hash tag."""
    return f"{ROOT}{{{crawl_id}}}:"


def crawl_key(crawl_id: CrawlId, name: str) -> str:
    """One key of a crawl: a name of `CRAWL_KEYS` with its variable part filled in."""
    return crawl_prefix(crawl_id) + name


def global_key(name: str) -> str:
    """One key that belongs to no crawl: a name of `GLOBAL_KEYS`."""
    return ROOT + name


def _fits(name: str, pattern: str) -> bool:
    """Whether `name` is `pattern` with something in place of each `<...>`."""
    head, _, rest = pattern.partition("<")
    if not rest:
        return name == pattern
    is_whole = len(name) > len(head) or head == _QUEUE
    return name.startswith(head) and is_whole


def is_known(key: str) -> bool:
    """Whether a key found on a server has a row in the tables above."""
    if not key.startswith(ROOT):
        return False
    name = key.removeprefix(ROOT)
    rows = GLOBAL_KEYS
    if name.startswith("{"):
        _, _, name = name.partition("}:")
        rows = CRAWL_KEYS
    return any(_fits(name, row.name) for row in rows)
