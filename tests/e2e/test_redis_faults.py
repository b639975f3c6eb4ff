"""Redis is full, read-only, frozen, emptied, closed to us, or comes back without what it knew.

Real workers and a sender as a user starts it, on a server that the test breaks and mends: the user
reads one line on what is going on, nothing is lost that can be kept, and the workers serve the next
crawl. The server is the Redis of Debian, where its ways matter, or the embedded one.
"""

import os
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.terminal import Terminal, items
from tests.networks import Talking
from tests.sender.spiders import Pages
from tests.servers import LOOPBACK, OwnServer, free_port, needs_redis
from tests.waiting import wait_until
from tests.worker.crew import Workers, short_folder, workers
from vscrapy_magic import connect
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.session import Session
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.presence import Liveness, Presence
from vscrapy_magic.store.server import EmbeddedServer
from vscrapy_magic.store.views import CrawlView

PASSWORD = "sesame-open"
TTL_S = 3  # of senders here: each fault lasts for longer, and no sender is taken for gone
TICK_S = 0.05
SPIDER = f"""
import time
import scrapy

class Pages(scrapy.Spider):
    name = "pages"
    custom_settings = {{"CONCURRENT_REQUESTS": 2, "LOG_LEVEL": "INFO"}}

    def __init__(self, count, name=None, **kwargs):
        super().__init__(**kwargs)
        self.count = int(count)
        self.ticks = 0

    async def start(self):
        self.tick()
        for number in range(self.count):
            yield scrapy.Request(f"data:text/plain,{{number}}", meta={{"download_slot": "pages"}})

    def tick(self):
        from twisted.internet import reactor
        self.logger.info("tick %d.", self.ticks)
        self.ticks += 1
        reactor.callLater({TICK_S}, self.tick)

    def parse(self, response):
        time.sleep(0.02)
        yield {{"number": int(response.text)}}
"""


class Scene:
    """A crawl of so many pages from a user's terminal, a worker, and the server under both."""

    def __init__(self, server: OwnServer, home: Path, count: int, password: str = "") -> None:
        self.server = server
        self.count = count
        self._home = home
        self._query = f"?password={password}" if password else ""
        self.user = Terminal(home / "home", server.url + self._query)
        self._stack = ExitStack()

    def __enter__(self) -> "Scene":
        enter = self._stack.enter_context
        try:
            enter(self.server)
            self.store = enter(Store.connect(self.server.unix_url + self._query))
            self.worker = enter(Talking(self.user, self._home, "worker", "--name", "w"))
            words = ("-a", f"count={self.count}", "-O", "all.jsonl:jsonlines", "--ttl", str(TTL_S))
            self.sender = enter(Talking(self.user, self._home, "runspider", "pages.py", *words))
            wait_until(self.brought(20), 30, "items")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def brought(self, at_least: int) -> Callable[[], bool]:
        return lambda: any(v.totals.items >= at_least for v in Crawls(self.store).list_all())

    def view(self) -> CrawlView:
        *_, view = Crawls(self.store).list_all()  # the oldest
        return view

    def said(self, text: str) -> int:
        """How often the sender itself says something to its user."""
        return sum(
            text in line for line in list(self.sender.said) if line.startswith(("sender ", "vscra"))
        )

    def both_say(self, text: str) -> None:
        wait_until(lambda: self.said(text), 20, f"{text}, of the sender\n{self.sender.text()}")
        wait_until(lambda: self.worker.heard(text), 20, f"{text}, of the worker")

    def ticks(self) -> list[int]:
        """Numbers of the lines that the spider logs all the time, as the user saw them."""
        return [int(n) for line in self.sender.said for n in re.findall(r"tick (\d+)\.", line)]

    def heard_ms(self) -> int:
        """When the sender's last beat was written."""
        return max(map(int, self.store.client.hvals("vscrapy:sessions:heard")), default=0)

    def liveness(self) -> set[Liveness]:
        presence = Presence(self.store)
        found = {view.liveness for view in presence.workers()}
        return found | {view.liveness for view in presence.sessions()}

    def ends_well(self) -> None:
        """Every item once; and the worker takes the next crawl."""
        assert self.sender.wait(60) == 0, self.sender.text()
        assert items(self._home / "all.jsonl") == expected(self.count)
        assert self.said("answers again, after") == 1, self.sender.text()
        assert self.worker.heard("trying again each second") == 1, self.worker.text()
        wait_until(lambda: self.worker.heard("answers again, after") == 1, 10, "the worker is back")
        self.serves_the_next()

    def serves_the_next(self) -> None:
        words = ("runspider", "pages.py", "-a", "count=3", "-O", "next.jsonl:jsonlines")
        done = self.user.run(self._home, *words)
        assert done.returncode == 0, done.stderr
        assert items(self._home / "next.jsonl") == expected(3)


def expected(count: int) -> Counter[str]:
    return Counter(f'{{"number": {number}}}' for number in range(count))


# It takes no writes.


@needs_redis
def test_a_full_server_pauses_the_crawl_and_takes_nobody_for_dead(
    folder: Path, tmp_path: Path
) -> None:
    with Scene(OwnServer(folder), tmp_path, 110) as scene:
        scene.store.client.config_set("maxmemory", 1)
        scene.both_say("takes no writes (command not allowed when used memory > 'maxmemory'): give")
        before, since = scene.view(), scene.heard_ms()
        wait_until(lambda: scene.heard_ms() > since + 1000 * TTL_S, 20, "beats beyond the TTL")
        assert scene.view() == before
        assert scene.liveness() == {Liveness.LIVE}
        scene.store.client.config_set("maxmemory", 0)
        scene.ends_well()
        assert scene.said("takes no writes") == 1, scene.sender.text()
        # Lines that came meanwhile have waited at the worker.
        ticks = scene.ticks()
        assert ticks == list(range(len(ticks)))
        assert len(ticks) > TTL_S / TICK_S / 2


@needs_redis
def test_an_interrupt_ends_a_crawl_on_a_full_server_and_frees_its_memory(
    folder: Path, tmp_path: Path
) -> None:
    with Scene(OwnServer(folder), tmp_path, 5000) as scene:
        scene.store.client.config_set("maxmemory", 1)
        scene.both_say("takes no writes")
        scene.sender.process.send_signal(signal.SIGINT)
        assert scene.sender.wait(20) == 130, scene.sender.text()
        assert scene.said(" pages stopped (shutdown): ") == 1, scene.sender.text()
        prefix = f"vscrapy:{{{scene.view().crawl_id}}}:"
        left = {key.decode().removeprefix(prefix) for key in scene.store.client.keys(f"{prefix}*")}
        assert left <= {"meta", "stats", "out", "log"}
        scene.store.client.config_set("maxmemory", 0)
        scene.serves_the_next()


def as_a_replica(store: Store) -> Callable[[], object]:
    store.client.execute_command("REPLICAOF", LOOPBACK, str(free_port()))
    return lambda: store.client.execute_command("REPLICAOF", "NO", "ONE")


def with_too_few_replicas(store: Store) -> Callable[[], object]:
    store.client.config_set("min-replicas-to-write", 1)
    return lambda: store.client.config_set("min-replicas-to-write", 0)


def with_a_disk_that_fails(store: Store) -> Callable[[], object]:
    client = store.client
    folder, name = (client.config_get(word)[word] for word in ("dir", "dbfilename"))
    Path(folder, name).mkdir()  # in the way of the file that is to be written
    client.config_set("save", "3600 1")
    client.bgsave()
    wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", 10, "failure")
    return lambda: client.config_set("save", "")


@needs_redis
@pytest.mark.parametrize(
    "becomes",
    [
        as_a_replica,
        with_too_few_replicas,
        pytest.param(with_a_disk_that_fails, marks=pytest.mark.soak),
    ],
)
def test_a_server_that_becomes_read_only_pauses_the_crawl(
    becomes: Callable[[Store], Callable[[], object]], folder: Path, tmp_path: Path
) -> None:
    with Scene(OwnServer(folder), tmp_path, 70) as scene:
        mend = becomes(scene.store)
        scene.both_say("takes no writes (")
        mend()
        scene.ends_well()
        assert scene.said("takes no writes") == 1, scene.sender.text()


# It stands still.


@contextmanager
def stopped(scene: Scene, for_s: float) -> Iterator[None]:
    """The server's process gets no time."""
    begun = time.monotonic()
    os.kill(scene.server.pid, signal.SIGSTOP)
    try:
        yield
        wait_until(lambda: time.monotonic() - begun > for_s, for_s + 1)
    finally:
        os.kill(scene.server.pid, signal.SIGCONT)


@contextmanager
def paused(scene: Scene, for_s: float) -> Iterator[None]:
    """The server answers no command."""
    begun = time.monotonic()
    scene.store.client.execute_command("CLIENT", "PAUSE", int(1000 * for_s))
    yield
    wait_until(lambda: time.monotonic() - begun > for_s, for_s + 1)


@needs_redis
@pytest.mark.parametrize(
    ("stands", "for_s"),
    [
        (stopped, 7),
        pytest.param(paused, 6, marks=pytest.mark.soak),
        pytest.param(stopped, 30, marks=pytest.mark.soak),
        pytest.param(paused, 30, marks=pytest.mark.soak),
    ],
)
def test_a_server_that_stands_still_for_longer_than_a_ttl_costs_only_time(
    stands: Callable[[Scene, float], AbstractContextManager[None]],
    for_s: float,
    folder: Path,
    tmp_path: Path,
) -> None:
    with Scene(OwnServer(folder), tmp_path, 110) as scene:
        with stands(scene, for_s):
            scene.both_say("does not answer (Timeout reading from")
        scene.ends_well()
        # No line is lost; one whose batch got no answer in time may come twice.
        ticks = set(scene.ticks())
        assert ticks == set(range(len(ticks)))
        assert len(ticks) > for_s / TICK_S / 2
        assert scene.said("does not answer") == 1, scene.sender.text()


@needs_redis
@pytest.mark.soak
def test_a_pause_of_five_seconds_loses_and_repeats_nothing(folder: Path, tmp_path: Path) -> None:
    with Scene(OwnServer(folder), tmp_path, 110) as scene:
        scene.store.client.execute_command("CLIENT", "PAUSE", 5000)
        assert scene.sender.wait(60) == 0, scene.sender.text()
        assert items(tmp_path / "all.jsonl") == expected(110)
        scene.serves_the_next()


@needs_redis
def test_who_does_not_want_to_wait_for_a_server_that_is_away_leaves_with_three_interrupts(
    folder: Path, tmp_path: Path
) -> None:
    with Scene(OwnServer(folder), tmp_path, 5000) as scene:
        scene.server.stop(signal.SIGKILL)
        scene.both_say("does not answer")
        for text in ("; once more tries to kill it", "; once more leaves", " was left; "):
            scene.sender.process.send_signal(signal.SIGINT)
            wait_until(lambda text=text: scene.said(text), 20, text)  # type: ignore[misc]
        assert scene.sender.wait(20) == 130
        assert "Traceback" not in scene.sender.text()
        kept = items(tmp_path / "all.jsonl")
        assert kept
        assert max(kept.values()) == 1
        scene.server.start()
        wait_until(lambda: scene.view().state is CrawlState.CANCELLED, 20, "cancelled")
        assert scene.view().why == "its sender is gone"
        scene.serves_the_next()


# It forgets.


@needs_redis
def test_a_crawl_on_a_server_that_is_emptied_is_lost_and_the_user_reads_why(
    folder: Path, tmp_path: Path
) -> None:
    with Scene(OwnServer(folder), tmp_path, 5000) as scene:
        (child,) = children(scene.worker.process.pid)
        crawl_id = scene.view().crawl_id
        scene.store.client.flushall()
        assert scene.sender.wait(20) == 1, scene.sender.text()
        assert scene.said(
            f"crawl {crawl_id} pages lost (the server at {scene.server.url} does not know it any "
            "more: it was emptied, or started again without its data; run it again): "
        ), scene.sender.text()
        assert "Traceback" not in scene.sender.text()
        kept = items(tmp_path / "all.jsonl")
        assert kept
        assert max(kept.values()) == 1
        wait_until(lambda: not child.is_running(), 15, "end of the child")
        wait_until(lambda: "w" in workers(scene.store), 10, "the worker says that it is there")
        scene.serves_the_next()
        wait_until(lambda: not left_of(scene.store, crawl_id), 10, "nothing left of it")


def children(supervisor: int) -> list[psutil.Process]:
    """Children of crawls: processes that the zygote has forked."""
    zygotes = [
        process
        for process in psutil.Process(supervisor).children()
        if "vscrapy_magic.runtime.zygote" in process.cmdline()
    ]
    return [child for zygote in zygotes for child in zygote.children()]


def left_of(store: Store, crawl_id: str) -> list[bytes]:
    keys: list[bytes] = store.client.keys(f"vscrapy:{{{crawl_id}}}:*")
    return keys


@needs_redis
def test_a_server_that_forgets_its_scripts_gets_them_again_and_nobody_reads_of_it(
    folder: Path, tmp_path: Path
) -> None:
    with Scene(OwnServer(folder), tmp_path, 60) as scene:
        for at_least in (20, 30, 40, 50):
            wait_until(scene.brought(at_least), 30, f"{at_least} items")
            scene.store.client.script_flush()
        assert scene.sender.wait(60) == 0, scene.sender.text()
        assert items(tmp_path / "all.jsonl") == expected(60)
        assert not re.search("WARNING|ERROR", scene.sender.text() + scene.worker.text())


# It lets nobody in.


@needs_redis
def test_a_password_that_is_changed_and_changed_back_costs_only_time(
    folder: Path, tmp_path: Path
) -> None:
    server = OwnServer(folder, {"requirepass": PASSWORD})
    with Scene(server, tmp_path, 70, PASSWORD) as scene:
        client = scene.store.client
        client.config_set("requirepass", "another")  # who is in stays in
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        scene.both_say("refuses the user or the password of this address")
        client.config_set("requirepass", PASSWORD)
        scene.ends_well()
        assert scene.said("refuses the user") == 1, scene.sender.text()
        assert PASSWORD not in scene.sender.text() + scene.worker.text()


# It comes back without what it had acknowledged, as with `appendfsync everysec`.


class Slow(Pages):
    """Pages that take a moment; only the first ten bring items."""

    name = "slow"
    custom_settings = {"CONCURRENT_REQUESTS": 2, "LOG_LEVEL": "INFO"}  # noqa: RUF012

    def parse(self, response: Any) -> Iterator[Any]:
        time.sleep(0.02)
        if int(response.text) < int(getattr(self, "items", "10")):
            yield {"n": int(response.text)}


class Rollback:
    """An embedded server whose file can be put back to what it was."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "appendonlydir"
        self._kept = folder / "kept"
        self.server = EmbeddedServer(folder)

    def remember(self) -> None:
        shutil.copytree(self._file, self._kept)

    def kill(self) -> None:
        self.server.kill()
        shutil.rmtree(self._file)
        shutil.copytree(self._kept, self._file)


ROLLED_BACK = re.compile(r"the server lost what .*; run it again, on one with appendfsync always$")


def is_rolled_back(crawl: Crawl, texts: list[str]) -> None:
    wait_until(lambda: crawl.is_over, 30, f"the end of {crawl}; {texts}")
    assert crawl.state is CrawlState.STORE_ROLLED_BACK
    assert ROLLED_BACK.match(crawl.view.why)
    numbers = Counter(item["n"] for item in crawl.items)
    assert max(numbers.values()) == 1


class Ear:
    """What a user hears of the sender itself."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def lines(self, lines: Any) -> None:
        self.texts += [line.text for line in lines if line.source == "sender"]

    def view(self, view: CrawlView) -> None: ...

    def ended(self, view: CrawlView) -> None: ...


@pytest.fixture
def rollback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rollback]:
    monkeypatch.setenv("VSCRAPY_SPOOL", str(tmp_path / "spool"))
    path = short_folder()
    made = Rollback(path)
    with made.server:
        yield made
    shutil.rmtree(path)


def serves_the_next(session: Session) -> None:
    following = session.crawl(Pages)
    assert following.wait(30).state is CrawlState.FINISHED
    assert len(following.items) == 5


def test_a_server_that_lost_commits_which_both_sides_knew_ends_the_crawl_and_says_so(
    rollback: Rollback,
) -> None:
    with (
        Workers(rollback.server.url, "--name", "w") as crew,
        connect(rollback.server.url) as session,
    ):
        crawl, ear = session.crawl(Slow, args={"count": 5000, "items": 5000}), Ear()
        crawl.listen(ear)
        wait_until(lambda: len(crawl.items) > 10, 30, "items")
        rollback.remember()
        at_least = len(crawl.items) + 20
        wait_until(lambda: len(crawl.items) > at_least, 30, "more items, read and acknowledged")
        rollback.kill()
        wait_until(lambda: ear.texts, 10, "the sender notices")
        rollback.server.start()
        is_rolled_back(crawl, ear.texts)
        assert len(crawl.items) > at_least, "what came before is kept"
        serves_the_next(session)
        assert crew.process.poll() is None


def test_a_server_that_lost_commits_which_only_a_child_knew_ends_the_crawl_and_says_so(
    rollback: Rollback,
) -> None:
    with (
        Workers(rollback.server.url, "--name", "w"),
        connect(rollback.server.url) as session,
    ):
        crawl, ear = session.crawl(Slow, args={"count": 5000}), Ear()
        crawl.listen(ear)
        wait_until(lambda: len(crawl.items) == 10, 30, "all items")
        wait_until(lambda: acknowledged(session, crawl), 10, "their acknowledgement")
        rollback.remember()
        pages = crawl.view.totals.pages + 20
        wait_until(lambda: crawl.view.totals.pages > pages, 30, "pages that bring nothing")
        rollback.kill()
        wait_until(lambda: ear.texts, 10, "the sender notices")
        rollback.server.start()
        is_rolled_back(crawl, ear.texts)
        assert sorted(item["n"] for item in crawl.items) == list(range(10))
        assert crawl.logs(level="ERROR", pattern="without steps that it had acknowledged")
        serves_the_next(session)


def acknowledged(session: Session, crawl: Crawl) -> bool:
    total, acked = session.store.client.hmget(
        f"vscrapy:{{{crawl.id}}}:meta", "out_bytes", "out_acked"
    )
    return bool(acked) and total == acked


def test_a_server_that_lost_commits_which_only_the_sender_knew_ends_the_crawl_and_says_so(
    rollback: Rollback,
) -> None:
    with connect(rollback.server.url) as session:
        with Workers(rollback.server.url, "--name", "w") as crew:
            crawl, ear = session.crawl(Slow, args={"count": 5000, "items": 5000}), Ear()
            crawl.listen(ear)
            wait_until(lambda: len(crawl.items) > 10, 30, "items")
            rollback.remember()
            at_least = len(crawl.items) + 20
            wait_until(lambda: len(crawl.items) > at_least, 30, "more items")
            (child,) = children(crew.pid)
            rollback.kill()
            child.kill()
            crew.process.kill()
        rollback.server.start()
        is_rolled_back(crawl, ear.texts)
        assert any("which had been read already" in text for text in ear.texts), ear.texts
        with Workers(rollback.server.url, "--name", "w2"):
            serves_the_next(session)
