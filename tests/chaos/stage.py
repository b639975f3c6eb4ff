"""Where processes are killed at named places: a server that keeps every write, and who uses it."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos.crew import Crew
from vscrapy_magic.sender.session import Session
from vscrapy_magic.sender.spools import SPOOL_VARIABLE
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.server import EmbeddedServer

SESSION_TTL_MS = 60_000  # that of this process is not under fire


class Stage:
    """A server, a session of this process, and workers; a short path for folders of both."""

    def __init__(self, folder: Path, url: str, store: Store, session: Session, crew: Crew) -> None:
        self.folder = folder
        self.url = url
        self.store = store
        self.session = session
        self.crew = crew


@contextmanager
def a_stage(*names: str) -> Iterator[Stage]:
    """A place with these workers, all ready."""
    folder = Path(tempfile.mkdtemp(prefix="vs-", dir="/tmp"))
    with (
        pytest.MonkeyPatch.context() as patch,
        EmbeddedServer(folder / "s") as server,
        Store.connect(server.url) as store,
    ):
        patch.setenv(SPOOL_VARIABLE, str(folder / "spool"))
        with (
            Session.connect(server.url, kind="python", ttl_ms=SESSION_TTL_MS) as session,
            Crew(server.url) as crew,
        ):
            for name in names:
                crew.start(name)
            crew.restore(store)
            yield Stage(folder, server.url, store, session, crew)
    shutil.rmtree(folder)
