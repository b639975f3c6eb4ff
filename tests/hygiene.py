"""What a test may leave behind, and how the rest is found; `tests/conftest.py` looks after it.

Each test process has a folder of its own, `/tmp/vs-...` (short: it holds sockets), which all that
it starts inherits as `TMPDIR`, with the user's runtime folder and spool in it. So whatever is found
in there, and whatever process has it in its environment, is this test process's, also when it lost
its parent; what other test processes do meanwhile (pytest-xdist) is not seen.

After a test these must be as before it, within `WITHIN_S`:

- threads of the test process;
- processes that it started, or that such a process started, and zombies;
- file descriptors of the test process, sockets and pipes among them (`/dev/fd`);
- names in the folder: working folders, sockets, spools (two levels deep in the runtime folder);
- keys in Redis, for tests that have a `store`: see `unaccounted_keys`.

Accounted for, and why:

- what fixtures of a module, a package or the session hold, until they end: it was there before;
- `ACCOUNTED_NAMES`, `ACCOUNTED_DESCRIPTORS`: each with its reason;
- keys with a time to live: Redis removes them, whoever is killed;
- keys of crawls that are not over: whoever ends them has them swept;
- keys of crawls that are over and still listed in `crawls:live`: the next worker sweeps them;
- indexes in `keys.GLOBAL_KEYS` that never end: bounded; each name in them must belong to something
  that is there, or that the next beat removes;
- working folders of processes that were killed: they are swept here, as the next supervisor does
  (`store/scratch.py`); what it leaves is a leak. That those of a supervisor that ends by itself go
  without it is shown in `worker/test_swept.py`.
"""

import contextlib
import gc
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from vscrapy_magic.store import keys
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.scratch import sweep

WITHIN_S = 5.0  # for what is just ending
ROOT_VARIABLE: Final = "TMPDIR"
_LOOK_S: Final = 0.01
_STANDARD: Final = 2  # input, output, errors
_WORDS_SHOWN: Final = 200  # characters of a command line
# Below the folder of the test process -> why it may stay.
ACCOUNTED_NAMES: Final = {
    r"run/dconf": "of Chromium, which keeps it for the user",
    r"run/vscrapy": "the user's runtime folder: one for all clusters to come",
    r"run/vscrapy/(keeper|cluster)\.lock": "locks outlive the cluster that they protect",
    r"(\.org\.chromium|playwright|node-compile-cache).*": "a browser's; its fixture is a module's",
    r"spool/[0-9a-f]{8}": "kept for `vs.attach`, and pruned after three days",
}
# What a descriptor leads to -> why it may stay open.
ACCOUNTED_DESCRIPTORS: Final = {
    r"/dev/u?random": "opened once by a library, for good",
    r".*/[0-9a-f]{8}/(lock|held)": "of a crawl of a session that goes on: nobody prunes its spool",
}


class State(NamedTuple):
    """What there is at one moment, in words by what it is told apart with."""

    threads: dict[object, str]
    processes: dict[object, str]
    descriptors: dict[object, str]
    names: dict[object, str]


def own_folder() -> Path:
    """Give this test process a folder of its own for all that is temporary; call it once."""
    root = Path(tempfile.mkdtemp(prefix="vs-", dir="/tmp"))
    for name in ("run", "spool"):
        (root / name).mkdir(mode=0o700)
    # pytest's own folders stay where they were: it keeps those of the last runs.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    os.environ[ROOT_VARIABLE] = str(root)
    os.environ["XDG_RUNTIME_DIR"] = str(root / "run")
    os.environ["VSCRAPY_SPOOL"] = str(root / "spool")
    tempfile.tempdir = None
    return root


def remove_folder(root: Path) -> list[str]:
    """Remove it at the end; what was still in it and should not have been."""
    left = [text for text in _names(root).values() if text not in {"run", "spool"}]
    shutil.rmtree(root, ignore_errors=True)
    return left


def look(root: Path) -> State:
    """What there is now; takes some milliseconds."""
    return State(
        threads={thread: thread.name for thread in threading.enumerate()},
        processes=_processes(root),
        descriptors=_descriptors(),
        names=_names(root),
    )


def left_since(before: State, root: Path) -> list[str]:
    """What has come since and is not accounted for, one line each."""
    found = []
    for kind, was, now in zip(State._fields, before, look(root), strict=True):
        found += [f"{kind}: {now[key]}" for key in now.keys() - was.keys()]
    return sorted(found)


def settle(before: State, root: Path, within_s: float | None = None) -> list[str]:
    """What is still left when some time has passed; empty as soon as nothing is."""
    deadline = time.monotonic() + (WITHIN_S if within_s is None else within_s)
    is_collected = False
    while (left := left_since(before, root)) and time.monotonic() < deadline:
        if not is_collected and not any(line.startswith("names:") for line in left):
            gc.collect()  # libraries that are not ours leave the closing to the collector
            is_collected = True
        if any(line.startswith("names: vscrapy-") for line in left):
            sweep()
        # Reaps what nobody could wait for when it was let go: as the next `Popen` would.
        subprocess._cleanup()  # type: ignore[attr-defined]
        time.sleep(_LOOK_S)
    return left


def _is_accounted(text: str, table: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, text) for pattern in table)


_is_ours: dict[int, bool] = {}  # of processes seen at the last look: most stay what they are


def _processes(root: Path) -> dict[object, str]:
    found: dict[object, str] = {}
    pids = set(psutil.pids()) - {os.getpid()}
    for gone in _is_ours.keys() - pids:
        del _is_ours[gone]
    for pid in sorted(pids):
        with contextlib.suppress(psutil.Error):
            if pid not in _is_ours:
                _is_ours[pid] = _comes_from_here(psutil.Process(pid), root)
            if _is_ours[pid] and not _is_for_init(process := psutil.Process(pid)):
                found[pid, process.create_time()] = f"{pid} {_words(process)}"
    return found


def _comes_from_here(process: psutil.Process, root: Path) -> bool:
    """Whether its parent is this process or one that came from here, or its environment says so."""
    parent = process.ppid()
    if parent == os.getpid() or _is_ours.get(parent, False):
        return True
    try:
        return process.environ().get(ROOT_VARIABLE) == str(root)
    except (psutil.AccessDenied, psutil.ZombieProcess):
        return False  # another user's, or not ours to reap


def _is_for_init(process: psutil.Process) -> bool:
    """Whether it has ended, and lost its parent: the system's first process has to reap it."""
    is_zombie = process.status() == psutil.STATUS_ZOMBIE
    return is_zombie and not (process.ppid() == os.getpid() or _is_ours.get(process.ppid(), False))


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:_WORDS_SHOWN]
    except psutil.ZombieProcess:
        return "zombie"


def _descriptors() -> dict[object, str]:
    found: dict[object, str] = {}
    for path in sorted(Path("/dev/fd").iterdir()):
        try:
            target = str(path.readlink())
        except FileNotFoundError:
            continue  # that of the listing itself
        except OSError:  # a system that does not tell where they lead
            target = "?"
        is_standard = int(path.name) <= _STANDARD  # pytest leads them elsewhere and back
        if not (is_standard or _is_accounted(target, ACCOUNTED_DESCRIPTORS)):
            found[path.name, target] = f"{path.name} {target}"
    return found


def _names(root: Path) -> dict[object, str]:
    found: dict[object, str] = {}
    for pattern in ("*", "run/*", "run/vscrapy/*", "spool/*"):
        for path in root.glob(pattern):
            name = path.relative_to(root).as_posix()
            if not _is_accounted(name, ACCOUNTED_NAMES):
                with contextlib.suppress(FileNotFoundError):  # it goes just now
                    found[name, path.lstat().st_ino] = name
    return found


# Keys.

_FINAL: Final = frozenset(
    {b"finished", b"stopped", b"failed", b"cancelled", b"lost", b"store_rolled_back"}
)
_CRAWL_KEY: Final = re.compile(r"vscrapy:\{([^}]+)\}:(.+)", re.DOTALL)
_MEMBER_KEY: Final = re.compile(r"(?:m|l|h|r|wake):(.+)", re.DOTALL)
_PARTS_KEY: Final = re.compile(r"p:(.+)")
# Kept without an end, because each is bounded by what is in it (see its row).
_INDEXES: Final = frozenset(
    {
        *("crawls", "crawls:live", "crawls:due", "workers", "workers:due", "sessions"),
        *("sessions:due", "sessions:gone", "sessions:heard", "judged", "shared"),
    }
)


def unaccounted_keys(store: Store) -> list[str]:
    """Keys without a row in `keys.py`, or that nothing will ever remove; one line each."""
    client = store.client
    found = sorted(raw.decode() for raw in client.keys())
    pipe = client.pipeline(transaction=False)
    for key in found:
        pipe.pttl(key)
    lasting = {key for key, ttl in zip(found, pipe.execute(), strict=True) if ttl == -1}
    lines = [f"{key}: no row in keys.py" for key in found if not keys.is_known(key)]
    names: dict[str, list[str]] = {}
    for key in lasting:
        if match := _CRAWL_KEY.fullmatch(key):
            names.setdefault(match[1], []).append(match[2])
        elif key.removeprefix(keys.ROOT) not in _INDEXES:
            lines.append(f"{key}: no time to live")
    for crawl_id, of_crawl in names.items():
        why = _why_lasting(store, crawl_id, of_crawl)
        lines += [f"crawl {crawl_id}: {name}: {text}" for name, text in why]
    return lines + _lost_names(store)


def _why_lasting(store: Store, crawl_id: str, names: list[str]) -> list[tuple[str, str]]:
    """Keys of a crawl that have no time to live and should have one, or should be gone; why."""
    prefix = keys.crawl_prefix(keys.CrawlId(crawl_id))
    pipe = store.client.pipeline(transaction=False)
    pipe.hget(f"{prefix}meta", "state")
    pipe.zscore(keys.global_key("crawls:live"), crawl_id)
    pipe.zrange(f"{prefix}members", 0, -1)
    pipe.hkeys(f"{prefix}a")
    state, live, members, again = pipe.execute()
    if state is None:
        return [(name, "the crawl is not there any more") for name in names]
    if live is not None:
        if state in _FINAL:
            return []  # the next worker sweeps it
    elif state in _FINAL:
        return [(name, f"the crawl is {state.decode()} and swept") for name in names]
    tokens = {raw.decode() for raw in members}
    held = {raw.decode() for raw in again}
    for token in tokens:
        leases = store.client.hvals(f"{prefix}l:{token}")
        held |= {raw.decode().partition(":")[0] for raw in leases}
    found = []
    for name in names:
        if (match := _MEMBER_KEY.fullmatch(name)) and match[1] not in tokens:
            found.append((name, "no such member"))
        elif (match := _PARTS_KEY.fullmatch(name)) and match[1] not in held:
            found.append((name, "no such lease, and it is not run again"))
    return found


def _lost_names(store: Store) -> list[str]:
    """Names in indexes that lead nowhere, and that no beat removes."""
    client = store.client
    pipe = client.pipeline(transaction=False)
    for name in ("crawls", "crawls:live", "crawls:due", "workers:due", "sessions:due"):
        pipe.zrange(keys.global_key(name), 0, -1)
    pipe.zrange(keys.global_key("sessions:gone"), 0, -1)
    for name in ("workers", "sessions", "sessions:heard"):
        pipe.hkeys(keys.global_key(name))
    found = [{raw.decode() for raw in each} for each in pipe.execute()]
    crawls, live, crawls_due, workers_due, sessions_due, gone, workers, sessions, heard = found
    pipe = client.pipeline(transaction=False)
    listed = sorted(crawls | live)
    for crawl_id in listed:
        pipe.exists(keys.crawl_key(keys.CrawlId(crawl_id), "meta"))
    there = {each for each, exists in zip(listed, pipe.execute(), strict=True) if exists}
    return [
        *(f"crawls: {each} is not there any more" for each in crawls - there - crawls_due - live),
        *(f"workers: {each} has no deadline" for each in workers - workers_due),
        *(f"sessions: {each} has no deadline" for each in sessions - sessions_due),
        *(f"sessions:heard: {each} is unknown" for each in heard - sessions_due - gone),
    ]
