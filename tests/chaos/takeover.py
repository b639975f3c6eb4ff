"""How long the leases of the dead wait: from a kill until others have them, as the server tells."""

import re
import threading
import time
from dataclasses import dataclass, field
from typing import Self

from vscrapy_magic.errors import StoreError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import CrawlId, crawl_key
from vscrapy_magic.store.logs import Logs

LOOK_S = 0.01
_BORN = re.compile(r"a child starts \(process (\d+)\)")


@dataclass
class _Waiting:
    """Leases that died with their child, and are not yet with another one."""

    token: str
    since: float
    origins: set[str] = field(default_factory=set)


class Takeovers:
    """Watches one crawl in a thread of its own, with a connection of its own."""

    def __init__(self, url: str, crawl_id: CrawlId) -> None:
        self._url = url
        self._crawl_id = crawl_id
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._seconds: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="takeovers")

    def expect_of_worker(self, worker: str) -> None:
        """The supervisor of a worker is about to be killed, and its child with it."""
        self._expect(lambda name, _: name == worker)

    def expect_of_pid(self, pid: int) -> None:
        """A child is about to be killed."""
        try:
            worker = self._worker_of(pid)
        except StoreError:
            return
        self._expect(lambda name, _: name == worker)

    def _worker_of(self, pid: int) -> str:
        after = "0-0"
        with Store.connect(self._url) as store:
            logs = Logs(store)
            while True:
                lines, after = logs.read(self._crawl_id, after)
                for line in lines:
                    if (found := _BORN.match(line.text)) and int(found[1]) == pid:
                        return line.worker
                if not lines:
                    return ""

    def _expect(self, is_meant: object) -> None:
        assert callable(is_meant)
        try:
            with Store.connect(self._url) as store:
                for token, held in self._held(store).items():
                    worker = store.client.hget(self._key(f"m:{token}"), "worker")
                    if held and worker is not None and is_meant(worker.decode(), token):
                        with self._lock:
                            self._waiting.append(_Waiting(token, time.monotonic(), held))
        except StoreError:
            return  # it is away just now: this one is not measured

    def _key(self, name: str) -> str:
        return crawl_key(self._crawl_id, name)

    def _held(self, store: Store) -> dict[str, set[str]]:
        """What each member holds: origins of its leases."""
        client = store.client
        with store.errors_wrapped():
            tokens = [raw.decode() for raw in client.zrange(self._key("members"), 0, -1)]
            pipe = client.pipeline(transaction=False)
            for token in tokens:
                pipe.hvals(self._key(f"l:{token}"))
            found = pipe.execute()
        return {
            token: {raw.decode().partition(":")[0] for raw in values}
            for token, values in zip(tokens, found, strict=True)
        }

    def _watch(self) -> None:
        with Store.connect(self._url) as store:
            while not self._stop.wait(LOOK_S):
                if self._waiting:
                    try:
                        self._look(store)
                    except StoreError:
                        continue

    def _look(self, store: Store) -> None:
        held = self._held(store)
        with self._lock:
            for waiting in list(self._waiting):
                if waiting.token in held:
                    continue
                # All of them are queued again by one call; the first that another one has shows
                # that they can be had. Others wait for their turn, as every request does.
                others = set().union(*held.values())
                if waiting.origins & others or not held:
                    self._seconds.append(time.monotonic() - waiting.since)
                    self._waiting.remove(waiting)

    def seconds(self) -> list[float]:
        """One figure for each dead child whose leases were taken over."""
        with self._lock:
            return list(self._seconds)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
