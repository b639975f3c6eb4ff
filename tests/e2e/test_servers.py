"""Servers that users have: with a password, TLS, a user of few rights, a socket, another database.

What is wrong with one is said in one line, by the sender and by the worker, without a password.
"""

import contextlib
import re
import socket
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.terminal import Terminal, items
from tests.networks import Talking
from tests.servers import LOOPBACK, OwnServer, certificates, free_port, needs_redis
from tests.waiting import wait_until
from vscrapy_magic import cli
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.server import find_binary

PASSWORD = "sesame-open"
SPIDER = """
import time
import scrapy

class Pages(scrapy.Spider):
    name = "pages"
    custom_settings = {"CONCURRENT_REQUESTS": 2, "LOG_LEVEL": "INFO"}

    def __init__(self, count=20, name=None, **kwargs):
        super().__init__(**kwargs)
        self.count = int(count)

    async def start(self):
        for number in range(self.count):
            yield scrapy.Request(f"data:text/plain,{number}", meta={"download_slot": "pages"})

    def parse(self, response):
        time.sleep(0.02)
        yield {"number": int(response.text)}
"""


def tls_options(folder: Path) -> tuple[dict[str, str], str]:
    """Options of a server that speaks TLS only, and the file of its authority."""
    made = certificates(folder)
    options = {
        "port": "0",
        "tls-port": str(free_port()),
        "tls-cert-file": str(made.server),
        "tls-key-file": str(made.key),
        "tls-auth-clients": "no",
    }
    return options, str(made.authority)


def acl_rule() -> str:
    """The rule that `docs/deploy.md` names, as it stands there."""
    text = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()
    found = re.search(r"^user vscrapy on >PASSWORD (.*)$", text, re.MULTILINE)
    assert found
    return found[1]


def with_password(folder: Path) -> tuple[OwnServer, str]:
    server = OwnServer(folder, {"requirepass": PASSWORD})
    return server, f"redis://:{PASSWORD}@{LOOPBACK}:{server.port}/3"


def with_socket(folder: Path) -> tuple[OwnServer, str]:
    server = OwnServer(folder, {"requirepass": PASSWORD, "port": "0"})
    return server, f"{server.unix_url}?db=2&password={PASSWORD}"


def with_tls_and_few_rights(folder: Path) -> tuple[OwnServer, str]:
    options, authority = tls_options(folder)
    options["user"] = f"vscrapy on >{PASSWORD} {acl_rule()}"
    url = f"rediss://vscrapy:{PASSWORD}@{LOOPBACK}:{options['tls-port']}?ssl_ca_certs={authority}"
    return OwnServer(folder, options), url


def valkey_with_password(folder: Path) -> tuple[OwnServer, str]:
    server = OwnServer(folder, {"requirepass": PASSWORD}, binary=str(find_binary()))
    return server, f"redis://:{PASSWORD}@{LOOPBACK}:{server.port}"


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(with_password, marks=[needs_redis, pytest.mark.matrix]),
        pytest.param(with_socket, marks=[needs_redis, pytest.mark.matrix]),
        pytest.param(with_tls_and_few_rights, marks=needs_redis),
        valkey_with_password,
    ],
    ids=lambda kind: kind.__name__,
)
def test_a_crawl_runs_and_no_password_is_shown(kind: object, folder: Path, tmp_path: Path) -> None:
    assert callable(kind)
    server, url = kind(folder)
    with server:
        user = Terminal(tmp_path / "home", url)
        with Talking(user, tmp_path, "worker") as worker:
            ended = user.run(tmp_path, "runspider", "pages.py", "-O", "all.jsonl:jsonlines")
            listed = user.run(tmp_path, "-l")
            shown = user.run(tmp_path, "config").stdout
    assert ended.returncode == 0, ended.stderr[-3000:]
    expected = Counter(f'{{"number": {number}}}' for number in range(20))
    assert items(tmp_path / "all.jsonl") == expected
    assert re.search(r" pages +finished ", listed.stdout)
    said = ended.stderr + ended.stdout + listed.stdout + listed.stderr + shown + worker.text()
    assert PASSWORD not in said
    assert not worker.heard("ERROR"), worker.text()


@needs_redis
def test_a_user_without_a_right_is_one_line_that_names_the_manual(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VSCRAPY_SPOOL", str(tmp_path / "spool"))
    rule = " ".join(right for right in acl_rule().split() if right != "+hset")
    with OwnServer(folder, {"user": f"vscrapy on >{PASSWORD} {rule}"}) as server:
        url = f"redis://vscrapy:{PASSWORD}@{LOOPBACK}:{server.port}"
        said = said_by(["runspider", str(tmp_path / "pages.py"), "--redis", url], capsys)
    assert "does not let its user do this" in said
    assert "docs/deploy.md" in said


@needs_redis
@pytest.mark.matrix
def test_the_rights_that_the_manual_names_are_enough_for_every_command(
    folder: Path, tmp_path: Path
) -> None:
    server = OwnServer(folder, {"user": f"vscrapy on >{PASSWORD} {acl_rule()}"})
    with server, Store.connect(server.unix_url) as all_rights:
        user = Terminal(tmp_path / "home", f"redis://vscrapy:{PASSWORD}@{LOOPBACK}:{server.port}")
        with (
            Talking(user, tmp_path, "worker", "-n", "2", "--name", "w"),
            Talking(user, tmp_path, "runspider", "pages.py", "--keep-open") as sender,
        ):
            crawls = Crawls(all_rights)
            wait_until(lambda: any(v.totals.items for v in crawls.wanted()), 30, "items")
            (view,) = crawls.wanted()
            for words in (
                ["set", view.crawl_id, "LOG_LEVEL=DEBUG", "workers=1"],
                ["push", view.crawl_id, "data:,7"],
                ["-l"],
                ["workers"],
                ["logs", view.crawl_id],
                ["errors", view.crawl_id],
                ["stop", view.crawl_id],
            ):
                done = user.run(tmp_path, *words)
                assert done.returncode == 0, f"{words}: {done.stderr}"
            sender.wait(30)
        log = all_rights.client.execute_command("ACL", "LOG")
        # The driver tells newer servers its name, and does not mind a refusal.
        refused = [entry for entry in log if b"client|setinfo" not in entry]
        assert refused == [], refused
        other = Store.connect(user.environment["VSCRAPY_REDIS_URL"])
        with other, pytest.raises(Exception, match=r"(?i)permission"):
            other.client.get("of-somebody-else")


def said_by(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command writes before it ends with 2."""
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert PASSWORD not in err
    return err


MISTAKES = {
    "a wrong password": (
        f"redis://:{PASSWORD}-no@{LOOPBACK}:PORT",
        "refuses the user or the password of this address",
    ),
    "no password": (f"redis://{LOOPBACK}:PORT", "as in redis://user:password@host:6379"),
    "an unknown user": (
        f"redis://nobody:{PASSWORD}@{LOOPBACK}:PORT",
        "refuses the user or the password of this address",
    ),
    "TLS to a plain port": (
        f"rediss://:{PASSWORD}@{LOOPBACK}:PORT",
        "without TLS its address begins with redis://",
    ),
    "no TLS to a port with it": (
        f"redis://:{PASSWORD}@{LOOPBACK}:TLS",
        "with TLS its address begins with rediss://",
    ),
    "an unknown authority": (
        f"rediss://:{PASSWORD}@{LOOPBACK}:TLS",
        "has a certificate that is not trusted here",
    ),
    "another authority": (
        f"rediss://:{PASSWORD}@{LOOPBACK}:TLS?ssl_ca_certs=OTHER",
        "?ssl_ca_certs=/path/of/ca.pem",
    ),
    "an authority that is not there": (
        f"rediss://:{PASSWORD}@{LOOPBACK}:TLS?ssl_ca_certs=/nowhere/ca.pem",
        "ssl_ca_certs names /nowhere/ca.pem, which is not there",
    ),
    "a file in the working folder": (
        f"rediss://:{PASSWORD}@{LOOPBACK}:TLS?ssl_ca_certs=ca.pem",
        "ssl_ca_certs should be an absolute path",
    ),
    "a database that is not there": (
        f"redis://:{PASSWORD}@{LOOPBACK}:PORT/99",
        "take a lower number after the host, or 0",
    ),
    "nobody there": (f"redis://:{PASSWORD}@{LOOPBACK}:CLOSED", "see that it runs"),
    "no socket": (f"unix:///nowhere/of.sock?password={PASSWORD}", "see that it runs"),
}

SLOW = {"TLS to a plain port"}  # such a server waits for more, and we for its answer


@needs_redis
def test_each_mistake_is_one_line_that_says_what_to_do(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VSCRAPY_SPOOL", str(tmp_path / "spool"))
    options, _ = tls_options(folder)
    del options["port"]  # both on one server
    server = OwnServer(folder, options | {"requirepass": PASSWORD})
    other = certificates(folder, "other").authority
    with server:
        for name, (address, hint) in MISTAKES.items():
            url = address.replace("PORT", str(server.port)).replace("TLS", options["tls-port"])
            url = url.replace("OTHER", str(other)).replace("CLOSED", str(free_port()))
            said = said_by(["worker", url], capsys)
            assert hint in said, f"{name}: {said}"
            if name in SLOW:
                continue
            said = said_by(["runspider", str(tmp_path / "pages.py"), "--redis", url], capsys)
            assert hint in said, f"{name}: {said}"


@pytest.mark.matrix
def test_a_server_that_says_nothing_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.closing(socket.create_server((LOOPBACK, 0))) as mute:
        url = f"redis://:{PASSWORD}@{LOOPBACK}:{mute.getsockname()[1]}"
        assert "does not answer (Timeout reading from" in said_by(["worker", url], capsys)


@needs_redis
def test_a_replica_takes_no_crawl_and_its_worker_says_so_once(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VSCRAPY_SPOOL", str(tmp_path / "spool"))
    server = OwnServer(folder, {"replicaof": f"{LOOPBACK} {free_port()}"})
    with server:
        said = said_by(["runspider", str(tmp_path / "pages.py"), "--redis", server.url], capsys)
        assert "takes no writes" in said
        assert "use the primary" in said
        user = Terminal(tmp_path / "home", server.url)
        with Talking(user, tmp_path, "worker") as worker:
            wait_until(lambda: worker.heard("takes no writes"), 20, "its line")
            with Store.connect(server.unix_url) as store:
                store.client.execute_command("REPLICAOF", "NO", "ONE")
            wait_until(lambda: worker.heard("answers again"), 20, "it works now")
            assert worker.heard("takes no writes") == 1


@needs_redis
def test_a_crawl_goes_on_when_a_full_server_has_memory_again(folder: Path, tmp_path: Path) -> None:
    count = 150
    with OwnServer(folder) as server, Store.connect(server.unix_url) as store:
        user = Terminal(tmp_path / "home", server.url)
        target = ("runspider", "pages.py", "-a", f"count={count}", "-O", "all.jsonl:jsonlines")
        with (
            Talking(user, tmp_path, "worker") as worker,
            Talking(user, tmp_path, *target) as sender,
        ):
            crawls = Crawls(store)
            wait_until(lambda: any(v.totals.items > 20 for v in crawls.wanted()), 30, "items")
            store.client.config_set("maxmemory", 1)
            wait_until(lambda: worker.heard("takes no writes"), 20, "the worker says it")
            store.client.config_set("maxmemory", 0)
            assert sender.wait(60) == 0, sender.text()
    assert items(tmp_path / "all.jsonl") == Counter(f'{{"number": {n}}}' for n in range(count))


@needs_redis
def test_a_sender_says_that_its_crawl_waits_because_the_server_is_full(
    folder: Path, tmp_path: Path
) -> None:
    with OwnServer(folder) as server, Store.connect(server.unix_url) as store:
        user = Terminal(tmp_path / "home", server.url)
        with Talking(user, tmp_path, "runspider", "pages.py", "-L", "INFO") as sender:
            wait_until(Crawls(store).wanted, 20, "the crawl")
            store.client.config_set("maxmemory", 1)
            wait_until(lambda: sender.heard("takes no writes"), 20, "the sender says it")
            refused = user.run(tmp_path, "runspider", "pages.py")
            assert refused.returncode == 2
            assert re.fullmatch(
                r"vscrapy: .* takes no writes \(.*\): give it more memory .*\n",
                refused.stderr,
            )
            store.client.config_set("maxmemory", 0)
            wait_until(lambda: sender.heard("the server answers again"), 20, "and that it is over")
            with Talking(user, tmp_path, "worker"):
                assert sender.wait(60) == 0, sender.text()
