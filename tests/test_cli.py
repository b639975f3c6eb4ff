"""The command line in this process: what is asked, what is shown, and mistakes in one line."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.placing import NO_SOURCE, place
from tests.waiting import wait_until
from vscrapy_magic import config
from vscrapy_magic.cli import main
from vscrapy_magic.sender.spools import SPOOL_VARIABLE
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.control import Control
from vscrapy_magic.store.crawls import Crawls, Mover
from vscrapy_magic.store.keys import CrawlId, SessionId, WorkerName
from vscrapy_magic.store.logs import LogLine, Logs
from vscrapy_magic.store.messages import (
    CrawlSpec,
    SessionRecord,
    WorkerRecord,
)
from vscrapy_magic.store.presence import Presence
from vscrapy_magic.store.shared import Shared

Captured = pytest.CaptureFixture[str]
REDIS_SERVER = Path("/usr/bin/redis-server")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv(SPOOL_VARIABLE, str(tmp_path / "spool"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv(config.URL_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def here(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store that commands find by themselves."""
    monkeypatch.setenv(config.URL_VARIABLE, store.url)
    return store


def create(store: Store, crawl_id: str, spider: str = "quotes", **fields: object) -> CrawlId:
    spec = CrawlSpec(crawl_id=CrawlId(crawl_id), spider=spider, bundle="digest", **fields)  # type: ignore[arg-type]
    place(store, spec, NO_SOURCE)
    return spec.crawl_id


def mistake(capsys: Captured, *words: str) -> str:
    assert main(words) == 2
    text = capsys.readouterr().err
    assert text.startswith("vscrapy")
    assert len(text.splitlines()) == 1
    return text


def test_help_names_every_command(capsys: Captured) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    for command in ("crawl", "runspider", "demo", "-l", "workers", "stop", "logs", "items"):
        assert f"vscrapy {command}" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("command", ["crawl", "runspider"])
def test_help_of_a_crawl_is_no_crawl(capsys: Captured, command: str) -> None:
    assert main([command, "--help"]) == 0
    assert f"example: vscrapy {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["crawl"], "crawl: which spider? example: vscrapy crawl quotes"),
        (["crawl", "q", "--worker", "2"], "unknown option --worker; did you mean --workers?"),
        (["runspider", "x.py"], "x.py: No such file"),
        (["stop"], "stop: which crawl?"),
        (["logs"], "logs: ID is missing; example: vscrapy logs"),
        (["logs", "a", "-L", "NO"], "-L NO: no log level"),
        (["logs", "a", "-g", "("], "-g (: no regular expression"),
        (["items", "a", "-n", "x"], "-n/--last: 'x' is no whole number"),
        (["workers", "--jsn"], "unknown option --jsn; did you mean --json?"),
        (["-l", "--redis", "localhost"], "--redis: 'localhost' is no address of a Redis"),
        (["-l", "--redis", "redis://127.0.0.1:1"], "does not answer"),
        (["config", "--redis", "x", "--unset"], "config: --redis URL or --unset, not both"),
        (["set", "a", "LOG_LEVEL"], "set LOG_LEVEL: write it as set NAME=VALUE"),
        (["patch"], "patch: ID is missing; example: vscrapy patch"),
        (["retry", "a", "x"], "retry: x is no number of a failure; write one, or `all`"),
        (["worker", "-n", "x", "redis://127.0.0.1"], "a number of workers is needed"),
    ],
)
def test_a_mistake_is_one_clear_line(capsys: Captured, words: list[str], message: str) -> None:
    assert message in mistake(capsys, *words)


def test_a_crawl_is_stopped_by_the_beginning_of_its_id(here: Store, capsys: Captured) -> None:
    create(here, "1a2b3c4d")
    create(here, "1a9f0000")
    create(here, "77777777")
    assert main(["stop", "1a2"]) == 0
    assert capsys.readouterr().out == "crawl 1a2b3c4d: stopped\n"
    assert "'1a' begins 2 ids: " in mistake(capsys, "stop", "1a")
    text = mistake(capsys, "stop", "77777778")
    assert "no crawl '77777778'" in text
    assert "`vscrapy -l` lists them; did you mean 77777777?" in text
    assert main(["stop", "--all", "--now"]) == 0
    assert capsys.readouterr().out.count("stopped") == 2
    assert main(["stop", "--all"]) == 0
    assert "no crawl runs" in capsys.readouterr().out


def test_the_list_tells_state_sender_and_workers_in_80_columns(
    here: Store, capsys: Captured
) -> None:
    assert main(["-l"]) == 0
    assert "no crawls" in capsys.readouterr().out
    presence, crawls = Presence(here), Crawls(here)
    presence.beat_worker(WorkerRecord(name=WorkerName("w1"), host="h", pid=1, slots=8))
    session = SessionRecord(session=SessionId("s1"), host="h", pid=1)
    presence.beat_session(session)
    create(here, "11111111", session=session.session)
    create(here, "22222222", spider="a_spider_with_a_long_name")
    create(here, "33333333", session=SessionId("never"))
    crawls.cancel(CrawlId("33333333"), Mover.WORKER, why="its sender is gone")
    assert main(["-l"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"^11111111 quotes +queued +live", text, re.MULTILINE)
    assert re.search(r"^22222222 a_spider_with_\S+ +queued +detached", text, re.MULTILINE)
    assert re.search(r"^33333333 .*cancelled", text, re.MULTILINE)
    assert "33333333: its sender is gone\n" in text
    assert "1 worker, 0 of 8 slots used" in text
    assert main(["-l", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {row["id"]: row["sender"] for row in facts["crawls"]} == {
        "11111111": "live",
        "22222222": "detached",
        "33333333": "",
    }
    assert facts["workers"][0]["name"] == "w1"


def test_workers_are_listed(here: Store, capsys: Captured) -> None:
    assert main(["workers"]) == 0
    assert "no workers; `vscrapy worker URL` starts one" in capsys.readouterr().out
    record = WorkerRecord(name=WorkerName("w1"), host="host", pid=7, slots=8, used=1)
    Presence(here).beat_worker(record)
    assert main(["workers"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^w1 +host +7 +live +1/8", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 80


def test_logs_are_filtered_and_followed_to_the_end(here: Store, capsys: Captured) -> None:
    crawl_id = create(here, "1a2b3c4d")
    line = LogLine(1000, 20, "quotes", "one", WorkerName("w1"))
    bad = msgspec.structs.replace(line, level=40, text="two\x1b[2J\nthree", worker=WorkerName("w2"))
    Logs(here).append(crawl_id, [line, bad])
    assert main(["logs", "1a2b"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"w1 1970-\S+ \S+ \[quotes\] INFO: one", shown[0])
    assert shown[1].endswith("[quotes] ERROR: two")
    assert shown[2] == "w2 three"
    for words in (["-L", "ERROR"], ["-w", "w2"], ["-g", "tw."], ["-n", "1"]):
        assert main(["logs", "1a2b", *words]) == 0
        assert "one" not in capsys.readouterr().out
    Crawls(here).kill(crawl_id)
    assert main(["logs", "1a2b", "-f"]) == 0
    assert "one" in capsys.readouterr().out


def test_a_running_crawl_is_changed_and_added_to(here: Store, capsys: Captured) -> None:
    crawl_id = create(here, "1a2b3c4d")
    assert main(["set", "1a2b", "LOG_LEVEL=INFO", "DOWNLOAD_DELAY=0.5"]) == 0
    assert capsys.readouterr().out == "crawl 1a2b3c4d: LOG_LEVEL=INFO, DOWNLOAD_DELAY=0.5\n"
    assert "did you mean LOG_LEVEL?" in mistake(capsys, "set", "1a2b", "LOG_LEVL=INFO")
    assert main(["push", "1a2b", "https://example.com/a", "https://example.com/b"]) == 0
    assert capsys.readouterr().out == "crawl 1a2b3c4d: 2 queued\n"
    assert Crawls(here).view(crawl_id).totals.queued == 2
    assert "write the whole URL" in mistake(capsys, "push", "1a2b", "example.com")


def test_config_is_set_shown_without_password_and_unset(capsys: Captured) -> None:
    assert main(["config"]) == 0
    assert "redis: the local cluster (nothing configured)" in capsys.readouterr().out
    assert main(["config", "--redis", "redis://:sesame@host:6379"]) == 0
    shown = capsys.readouterr().out
    assert "redis: redis://host:6379" in shown
    assert "sesame" not in shown
    assert config.config_path().stat().st_mode & 0o777 == 0o600
    assert main(["config", "--unset"]) == 0
    assert "the local cluster" in capsys.readouterr().out
    assert "sesame" not in config.config_path().read_text()


def test_defaults_are_shared_shown_and_taken_back(here: Store, capsys: Captured) -> None:
    assert main(["config", "--shared"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"shared by all senders and workers of {here.address}:"
    assert "  retention_s = 86400 (default)" in shown
    assert main(["config", "--shared", "retention_s=3600", "--shared", "session_ttl_s=2.5"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert {"  retention_s = 3600", "  session_ttl_s = 2.5"} < set(shown)
    assert main(["config", "--shared", "retention_s="]) == 0
    assert "  retention_s = 86400 (default)" in capsys.readouterr().out
    assert Shared(here).changed() == {"session_ttl_s": 2.5}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["retention=1"], "retention is no shared default; did you mean retention_s?"),
        (["retention_s"], "--shared retention_s: write it as --shared NAME=VALUE"),
        (["hang_timeout_s=x"], "hang_timeout_s=x: a number of seconds is needed"),
    ],
)
def test_a_mistake_in_a_shared_default_changes_nothing(
    here: Store, capsys: Captured, words: list[str], message: str
) -> None:
    assert message in mistake(capsys, "config", "--redis", "redis://other:1", "--shared", *words)
    assert not config.config_path().exists()
    assert Shared(here).changed() == {}


def test_shared_defaults_need_a_server(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert "nothing runs" in mistake(capsys, "config", "--shared")


def test_a_worker_is_changed(here: Store, capsys: Captured) -> None:
    Presence(here).beat_worker(WorkerRecord(name=WorkerName("w1"), host="h", pid=1, slots=8))
    assert main(["set", "-w", "w1", "slots=4"]) == 0
    assert capsys.readouterr().out == "worker w1: slots=4\n"
    assert Control(here).worker_settings(WorkerName("w1")) == {"slots": 4}
    assert "there is no worker w2; `%vworkers` and `vscrapy workers` list them" in mistake(
        capsys, "set", "-w", "w2", "slots=4"
    )
    assert "did you mean slots?" in mistake(capsys, "set", "-w", "w1", "slot=4")
    assert "set: which crawl, and what?" in mistake(capsys, "set", "slots=4")


@pytest.fixture
def guarded() -> Iterator[int]:
    """The port of a Redis of Debian that wants a password."""
    if not REDIS_SERVER.exists():
        pytest.skip("needs redis-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(REDIS_SERVER), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    server = subprocess.Popen([*command, "--requirepass", "sesame"], stdout=subprocess.DEVNULL)
    try:
        url = f"redis://:sesame@127.0.0.1:{port}"
        wait_until(lambda: _answers(url), 10, "an answer of redis-server")
        yield port
    finally:
        server.terminate()
        server.wait()


def _answers(url: str) -> bool:
    try:
        Store.connect(url).close()
    except Exception:
        return False
    return True


def test_a_wrong_password_is_one_line_without_it(guarded: int, capsys: Captured) -> None:
    for url in (f"redis://127.0.0.1:{guarded}", f"redis://:wrong@127.0.0.1:{guarded}"):
        text = mistake(capsys, "-l", "--redis", url)
        assert f"redis://127.0.0.1:{guarded} refuses the user or the password" in text
        assert "wrong@" not in text
    assert main(["-l", "--redis", f"redis://:sesame@127.0.0.1:{guarded}"]) == 0
    assert "sesame" not in "".join(capsys.readouterr())


def test_a_reader_that_goes_away_is_no_error(here: Store) -> None:
    crawl_id = create(here, "1a2b3c4d")
    line = LogLine(1000, 20, "quotes", "x" * 1000, WorkerName("w1"))
    Logs(here).append(crawl_id, [line] * 2000)
    command = [sys.executable, "-m", "vscrapy_magic.cli", "logs", "1a2b", "--redis", here.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_the_rest_goes_to_scrapy() -> None:
    command = [sys.executable, "-m", "vscrapy_magic.cli", "version"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True)
    assert shown.stdout.startswith("Scrapy ")
