"""What a user changes of a running worker is in force at once."""

from tests.waiting import wait_until
from tests.worker.crew import PAGES, Ordered, Workers, workers
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.control import Control
from vscrapy_magic.store.keys import WorkerName
from vscrapy_magic.store.messages import CrawlState


def test_slots_of_a_worker_are_changed_while_it_runs(store: Store) -> None:
    with Workers(store.url, "-n", "2", "--name", "w", "--slots", "1"):
        wait_until(lambda: len(workers(store)) == 2, 20, "two workers")
        control = Control(store)
        control.set_worker(WorkerName("w-2"), {"slots": 0})
        wait_until(lambda: workers(store)["w-2"].record.slots == 0, 5, "no slots")
        first = Ordered(store, PAGES, args={"count": "400", "delay": "0.1"})
        first.wait_for_members(1)
        second = Ordered(store, PAGES)
        assert second.view().members == ()
        control.set_worker(WorkerName("w-1"), {"slots": 2})
        assert second.wait(15).state is CrawlState.FINISHED
        assert workers(store)["w-1"].record.slots == 2
        assert workers(store)["w-2"].record.used == 0
        first.crawls.kill(first.crawl_id)
