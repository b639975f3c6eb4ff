"""What a killed supervisor leaves is removed by the next one on its machine; nothing else is."""

from pathlib import Path

import psutil
import pytest

from tests.waiting import wait_until
from tests.worker.crew import HANGING, PAGES, Ordered, Workers, workers
from vscrapy_magic.store.connection import Store

UP_S = 30.0


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_folders_of_a_killed_supervisor_go_and_those_of_a_living_one_stay(
    store: Store, temporary: Path
) -> None:
    foreign = temporary / "vscrapy-work-of-mine"
    foreign.mkdir(mode=0o700)
    with (
        Workers(store.url, "--name", "killed") as killed,
        Workers(store.url, "--name", "living") as living,
    ):
        wait_until(lambda: len(workers(store)) == 2, UP_S, "two workers")
        crawl = Ordered(store, HANGING, workers=1)
        crawl.wait_for_line("hangs")
        (where,) = crawl.view().members
        victim, other = (killed, living) if where.worker == "killed" else (living, killed)
        (used,) = [path.parent for path in temporary.glob("vscrapy-work-*/*/")]
        (idle,) = set(temporary.glob("vscrapy-work-????????")) - {used}
        crawl.crawls.kill(crawl.crawl_id)
        family = psutil.Process(victim.pid).children(recursive=True)
        victim.process.kill()
        psutil.wait_procs(family, UP_S)
        assert used.exists(), "a kill leaves it behind"
        with Workers(store.url, "--name", "next"):
            wait_until(lambda: not used.exists(), UP_S, "the folder of the killed one")
            assert idle.exists()
            assert other.process.poll() is None
    assert list(temporary.iterdir()) == [foreign]


def test_a_supervisor_keeps_no_descriptor_and_no_folder_of_crawls_that_are_over(
    store: Store, temporary: Path
) -> None:
    with Workers(store.url, "--name", "w") as running:
        Ordered(store, PAGES).wait()
        (folder,) = temporary.glob("vscrapy-work-*")
        processes = [psutil.Process(running.pid), running.zygote()]
        wait_until(lambda: not list(folder.iterdir()), 10, "the child's folder")
        before = [process.num_fds() for process in processes]
        killed = Ordered(store, HANGING)
        killed.wait_for_line("hangs")
        for pid in killed.pids():
            psutil.Process(pid).kill()
        killed.crawls.kill(killed.crawl_id)
        for _ in range(2):
            Ordered(store, PAGES).wait()
        wait_until(lambda: not list(folder.iterdir()), 10, "folders of children")
        wait_until(
            lambda: all(p.num_fds() <= n for p, n in zip(processes, before, strict=True)),
            10,
            f"descriptors as before: {before}",
        )
