"""Scrapy's own test spiders against its own mock server give on workers what they give alone.

Always on two workers, and with `-m matrix` on one.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.e2e.stats import matter, told
from tests.e2e.terminal import Terminal, items, serve
from tests.foreign import REPOSITORY, locked, session_folder
from tests.others.documents import Documents, documents
from tests.others.scrapys import CASES, HERE, LEFT_OUT, MODULES, Case
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.server import EmbeddedServer

__all__ = ["documents"]

pytestmark = pytest.mark.timeout(1200)  # the first test runs all crawls
ALL_S = 600.0
WORKERS = (pytest.param(1, marks=pytest.mark.matrix), 2)
_LINE = re.compile(r"^\S+ \S+ \[([^\]]+)\] [A-Z]+: (.*)$", re.MULTILINE)


class Ran(msgspec.Struct):
    """What became of a spider; `lines` are those of its own logger."""

    items: list[str]
    stats: dict[str, str]
    lines: list[str]
    why: str = ""


class Runs(msgspec.Struct):
    plain: dict[str, Ran]
    ours: dict[str, Ran]


@contextmanager
def mock_server(folder: Path) -> Iterator[str]:
    """Scrapy's; the address that it serves without TLS."""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "tests.mockserver.http"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip().replace("0.0.0.0", "127.0.0.1")
            assert address.startswith("http://")
            yield address
        finally:
            process.kill()


def environment(folder: Path) -> dict[str, str]:
    """In which `tests` is Scrapy's, and this package ours."""
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}"}


def module_of(case: Case) -> str:
    return "case_" + re.sub(r"\W", "_", case.name).lower()


def in_plain_scrapy(folder: Path, server: str) -> dict[str, Ran]:
    logs = folder / "plain"
    logs.mkdir()
    feeds = {case.name: f"plain-{module_of(case)}.jsonl" for case in CASES}
    commands = [
        [
            *("runspider", f"{module_of(case)}.py", "-L", "INFO", *case.words(server)),
            *("-O", f"{feeds[case.name]}:jsonlines"),
        ]
        for case in CASES
    ]
    ended = subprocess.run(
        [sys.executable, str(REPOSITORY / "tests" / "others" / "plain.py"), str(logs)],
        input=json.dumps(commands),
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=ALL_S,
    )
    found = {}
    for number, (case, code) in enumerate(zip(CASES, json.loads(ended.stdout), strict=True)):
        log = (logs / f"{number}.log").read_text()
        assert code == 0, (case.name, log[-3000:])
        lines = sorted(text for logger, text in _LINE.findall(log) if logger == case.name)
        feed = folder / feeds[case.name]
        found[case.name] = Ran(sorted(items(feed).elements()), told(log), lines)
    return found


def on_workers(terminal: Terminal, folder: Path, server: str, workers: int) -> dict[str, Ran]:
    def filled(values: dict[str, str]) -> dict[str, str]:
        return {name: value.replace(HERE, server) for name, value in values.items()}

    orders = [(module_of(case), filled(case.args), case.settings, workers) for case in CASES]
    ended = subprocess.run(
        [sys.executable, str(REPOSITORY / "tests" / "others" / "own.py")],
        input=json.dumps(orders),
        cwd=folder,
        env=terminal.environment | {"PYTHONPATH": environment(folder)["PYTHONPATH"]},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=ALL_S,
    )
    return {
        case.name: Ran(sorted(each["items"]), matter(each["stats"]), each["lines"], each["why"])
        for case, each in zip(CASES, json.loads(ended.stdout), strict=True)
    }


def run_all(server: EmbeddedServer, folder: Path, documents: Documents, workers: int) -> Runs:
    (source,) = documents.folder.glob("*/tests")
    shutil.copytree(source, folder / "tests")
    keys = [sys.executable, "-c", "from tests.keys import generate_keys as make; make()"]
    subprocess.run(keys, cwd=folder, env=environment(folder), check=True)
    terminal = Terminal(folder / "home", server.url)
    with mock_server(folder) as address:
        for case in CASES:
            (folder / f"{module_of(case)}.py").write_text(case.source(address))
        plain = in_plain_scrapy(folder, address)
        with Store.connect(server.url) as store, serve(store, workers):
            return Runs(plain, on_workers(terminal, folder, address, workers))


@pytest.fixture(scope="module", params=WORKERS)
def ran(
    request: pytest.FixtureRequest,
    server: EmbeddedServer,
    documents: Documents,
    tmp_path_factory: pytest.TempPathFactory,
) -> Runs:
    """What became of each; run once per session, whichever process comes first."""
    shared = session_folder(tmp_path_factory)
    kept = shared / f"scrapys-{request.param}.json"
    with locked(shared / f"scrapys-{request.param}.lock"):
        if not kept.exists():
            folder = tmp_path_factory.mktemp("scrapys")
            made = run_all(server, folder, documents, request.param)
            kept.write_bytes(msgspec.json.encode(made))
    return msgspec.json.decode(kept.read_bytes(), type=Runs)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_as_in_plain_scrapy(ran: Runs, case: Case) -> None:
    plain, mine = ran.plain[case.name], ran.ours[case.name]
    assert mine.stats["finish_reason"] == plain.stats["finish_reason"], mine.why
    if case.ends_only:
        assert bool(mine.items) == bool(plain.items)
        return
    assert Counter(mine.items) == Counter(plain.items)
    assert mine.stats == plain.stats
    assert told_lines(mine) == told_lines(plain)


def told_lines(ran: Ran) -> list[str]:
    """Lines without the time that a server's headers have."""
    return [re.sub(r"\d\d:\d\d:\d\d", "", line) for line in ran.lines]


def test_spiders_that_are_new_in_a_release_are_noticed(documents: Documents) -> None:
    (root,) = documents.folder.glob("*/tests")
    known = {case.kind for case in CASES} | LEFT_OUT.keys()
    for module in MODULES:
        path = root / Path(*module.split(".")[1:]).with_suffix(".py")
        new = {name for name in _spiders(path) if name not in known}
        assert not new, module


def _spiders(path: Path) -> Iterator[str]:
    """Classes of a module that are spiders, by the names of their bases."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and any(
            ast.unparse(base).endswith("Spider") for base in node.bases
        ):
            yield node.name


def test_each_of_them_does_what_it_is_for(ran: Runs) -> None:
    idle: list[Any] = [
        name for name, found in ran.plain.items() if not found.stats.get("scheduler/enqueued")
    ]
    assert idle == ["BrokenStartSpider", "StartItemSpider", "NoRequestsSpider"]
