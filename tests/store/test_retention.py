"""After its retention nothing of a crawl is left: no key, and no index that names it."""

import logging
import re
from collections.abc import Callable

import pytest

from tests.store.driver import Child, order, requests
from tests.waiting import wait_until
from vscrapy_magic.errors import CrawlNotFoundError
from vscrapy_magic.store.arrivals import Arrivals
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.control import Control
from vscrapy_magic.store.crawls import Crawls, Mover
from vscrapy_magic.store.files import Files
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import (
    CrawlId,
    MemberToken,
    SessionId,
    WorkerName,
    crawl_prefix,
    global_key,
)
from vscrapy_magic.store.logs import LogLine, Logs
from vscrapy_magic.store.messages import (
    CookieChange,
    CrawlState,
    Part,
    SessionRecord,
    SlotLimit,
    StatDelta,
    StatKind,
    WorkerRecord,
)
from vscrapy_magic.store.outputs import Outputs
from vscrapy_magic.store.presence import Presence

OPENS = {CrawlState.FINISHED, CrawlState.STOPPED, CrawlState.CANCELLED}
SHORT_MS = 100
GONE_S = 10.0
SESSION = SessionId("s1")
LINE = LogLine(1, logging.INFO, "s", "line", WorkerName("w1"))
MANY_SLOTS = 20_000


def keys_of(store: Store, crawl_id: CrawlId) -> set[str]:
    prefix = crawl_prefix(crawl_id)
    return {raw.decode().removeprefix(prefix) for raw in store.client.keys(f"{prefix}*")}


def indexes_with(store: Store, crawl_id: CrawlId) -> set[str]:
    """Keys of the whole server that name the crawl, in whatever way."""
    found, client = set(), store.client
    for raw in client.keys():
        key = raw.decode()
        kind = client.type(raw)
        if key.startswith(crawl_prefix(crawl_id)):
            continue
        content = {
            b"zset": lambda key=raw: client.zrange(key, 0, -1),
            b"hash": lambda key=raw: [*client.hgetall(key), *client.hvals(key)],
            b"list": lambda key=raw: client.lrange(key, 0, -1),
            b"set": lambda key=raw: client.smembers(key),
            b"string": lambda key=raw: [client.get(key)],
        }[kind]()
        if crawl_id in key or any(crawl_id.encode() in each for each in content):
            found.add(key)
    return found


def rich_crawl(store: Store) -> tuple[Frontier, list[Child]]:
    """A crawl in the middle of all that it can have: each family of keys is there."""
    frontier = order(store, session=SESSION, keep_open=True)
    child, other, dead = (Child(frontier, name) for name in ("w1", "w2", "w3"))
    (start,) = child.step(want=1).leases
    child.step(
        parts=(Part(start.lease_id, b"12345678"),),
        requests=(*requests(range(8)), *requests(range(50, 60), slot="slow")),
        limits=(SlotLimit("site", 16), SlotLimit("slow", 1, exclusive=True, words="DELAY")),
        stats=(StatDelta(StatKind.ADD, "n", b"1"),),
        cookies=(CookieChange("jar", b"x"),),
        items=b"items",
        item_count=1,
        failures=b"failures",
        failure_count=1,
        want=2,
    )
    leases = dead.step(want=4).leases
    dead.step(parts=tuple(Part(lease.lease_id, b"12345678") for lease in leases))
    frontier.reclaim(dead.token, suspects=[leases[0].lease_id, leases[1].lease_id], clear=False)
    other.step(want=20)
    Crawls(store).push(frontier.crawl_id, ["http://site/a", "http://site/b"])
    Control(store).set(frontier.crawl_id, {"LOG_LEVEL": "DEBUG"})
    Logs(store).append(frontier.crawl_id, [LINE])
    files = Files(store, frontier.crawl_id)
    files.begin(child.token)
    files.put(child.token, "a.txt", 0, 1, b"a")
    for name in ("w4", "w5", "w6"):  # those who are not needed stand by
        frontier.reserve(MemberToken(f"t-{name}"), WorkerName(name))
    other.step(unstarted=2)
    families = {
        name.partition(":")[0].rstrip("0123456789") for name in keys_of(store, frontier.crawl_id)
    }
    assert families >= {
        *("meta", "members", "claims", "standby", "m", "l", "h", "r", "b", "bm", "q", "ready"),
        *("slots", "s", "p", "a", "suspects", "stats", "cookies", "cookie_no", "out", "control"),
        *("spare", "log", "files", "wake"),
    }
    return frontier, [child, other]


def finish(store: Store, frontier: Frontier, children: list[Child]) -> None:
    """As a limit of the spider ends it: children commit what they hold, and leave."""
    children[0].step(close_reason="closespider_itemcount")
    for child in children:
        held = store.client.hkeys(f"{crawl_prefix(frontier.crawl_id)}l:{child.token}")
        child.step(ended=tuple(int(lease) for lease in held))
        frontier.leave(child.token)
    Crawls(store).sweep(frontier.crawl_id)


ENDS: dict[CrawlState, Callable[[Store, Frontier, list[Child]], object]] = {
    CrawlState.FINISHED: finish,
    CrawlState.STOPPED: lambda store, crawl, _: Crawls(store).kill(crawl.crawl_id),
    CrawlState.FAILED: lambda store, crawl, _: Crawls(store).finish_failed(crawl.crawl_id, "no"),
    CrawlState.CANCELLED: lambda store, crawl, _: Crawls(store).cancel(
        crawl.crawl_id, Mover.WORKER, why="gone"
    ),
    CrawlState.LOST: lambda store, crawl, _: Crawls(store).move(
        crawl.crawl_id, CrawlState.LOST, Mover.SENDER
    ),
    CrawlState.STORE_ROLLED_BACK: lambda store, crawl, _: Crawls(store).move(
        crawl.crawl_id, CrawlState.STORE_ROLLED_BACK, Mover.SENDER
    ),
}


def beat(store: Store) -> None:
    Presence(store).beat_worker(WorkerRecord(name=WorkerName("w9"), host="h", pid=1, slots=1))


@pytest.mark.parametrize("is_collected", [True, False])
@pytest.mark.parametrize("end", ENDS)
def test_nothing_of_a_crawl_is_left_after_its_retention(
    store: Store, end: CrawlState, is_collected: bool
) -> None:
    Presence(store).beat_session(SessionRecord(session=SESSION, host="h", pid=1))
    frontier, children = rich_crawl(store)
    crawl_id, crawls = frontier.crawl_id, Crawls(store)
    ENDS[end](store, frontier, children)
    assert crawls.view(crawl_id).state is end
    if is_collected:
        entries = Outputs(store, crawl_id).read(None)
        Arrivals(store, crawl_id).fetch(None, "0-0", ack=entries[-1])
    kept = keys_of(store, crawl_id)
    if end in OPENS:  # it had a failure, which may be put back
        kept = {name for name in kept if not re.fullmatch(r"s\d:\d+", name)}
        kept -= {"cookies", "cookie_no", "control"}
    assert kept <= {"meta", "out", "stats", "log", "files"}
    assert indexes_with(store, crawl_id) == {global_key("crawls"), global_key("crawls:due")}
    crawls.sweep(crawl_id, retention_ms=SHORT_MS)
    wait_until(lambda: not keys_of(store, crawl_id), GONE_S, "the end of the retention")
    beat(store)
    assert indexes_with(store, crawl_id) == set()


def test_a_crawl_that_is_kept_stays_in_the_list(store: Store) -> None:
    kept, gone = order(store).crawl_id, order(store).crawl_id
    crawls = Crawls(store)
    for crawl_id in (kept, gone):
        crawls.kill(crawl_id)
    crawls.sweep(gone, retention_ms=SHORT_MS)
    wait_until(lambda: not keys_of(store, gone), GONE_S)
    beat(store)
    assert [view.crawl_id for view in crawls.list_all()] == [kept]


def test_what_comes_after_the_retention_leaves_nothing(store: Store) -> None:
    """Workers were cut off meanwhile: they bring last lines, files, leases, and beats."""
    frontier, (child, _) = rich_crawl(store)
    crawl_id = frontier.crawl_id
    Crawls(store).kill(crawl_id)
    Crawls(store).sweep(crawl_id, retention_ms=SHORT_MS)
    wait_until(lambda: not keys_of(store, crawl_id), GONE_S)
    Logs(store).append(crawl_id, [LINE])
    for late in (
        lambda: child.step(items=b"x", item_count=1),
        lambda: frontier.leave(child.token),
        lambda: frontier.reclaim(child.token, suspects=[1]),
        lambda: frontier.renew([child.token]),
        lambda: frontier.join(child.token, WorkerName("w1")),
        lambda: Files(store, crawl_id).begin(child.token),
        lambda: Files(store, crawl_id).put(child.token, "a", 0, 1, b"a"),
        lambda: Crawls(store).push(crawl_id, ["http://site/"]),
        lambda: Control(store).set(crawl_id, {"LOG_LEVEL": "INFO"}),
        lambda: Crawls(store).kill(crawl_id),
    ):
        with pytest.raises(CrawlNotFoundError):
            late()
    assert not frontier.reserve(child.token, WorkerName("w1"))
    Crawls(store).sweep(crawl_id)
    assert keys_of(store, crawl_id) == set()


def test_lines_after_the_end_are_kept_for_the_retention(store: Store) -> None:
    crawl_id = order(store).crawl_id
    Crawls(store).kill(crawl_id)
    Logs(store).append(crawl_id, [LINE])
    assert Logs(store).read(crawl_id)[0] == [LINE]
    assert store.client.pttl(f"{crawl_prefix(crawl_id)}log") > 0


def test_a_crawl_with_very_many_slots_is_swept(on: Store) -> None:
    """A scan that begins anew each time finds nothing in the end: Redis 7 would go on for ever."""
    frontier = order(on)
    prefix = crawl_prefix(frontier.crawl_id)
    pipe = on.client.pipeline(transaction=False)
    for number in range(MANY_SLOTS):
        pipe.hset(f"{prefix}slots", f"site{number}", b"x")
        pipe.hset(f"{prefix}a", f"{number:x}.1", b"x")
        pipe.zadd(f"{prefix}q:site{number}", {"0": 1})
        pipe.rpush(f"{prefix}p:{number:x}.1", b"x")
    pipe.execute()
    Crawls(on).kill(frontier.crawl_id)
    assert keys_of(on, frontier.crawl_id) <= {"meta", "out", "stats", "log", "files"}


def test_parts_of_a_lease_that_a_leaving_child_gives_back_are_known_to_the_next(
    store: Store,
) -> None:
    frontier = order(store)
    child, other = Child(frontier, "w1"), Child(frontier, "w2")
    (start,) = child.step(want=1).leases
    child.step(parts=(Part(start.lease_id, b"12345678"),), items=b"x", item_count=1)
    frontier.leave(child.token)
    (again,) = other.step(want=1).leases
    assert again.has_parts
    other.step(ended=(again.lease_id,))
    assert not store.client.keys(f"{crawl_prefix(frontier.crawl_id)}p:*")
