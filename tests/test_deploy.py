"""What `deploy/` and its manual name exists: commands, options, variables, files, rights in Redis.

The files cannot be run here; what they would start is given to the parsers that would read it.
"""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from vscrapy_magic import cli, config
from vscrapy_magic.worker import child, desk, supervisor
from vscrapy_magic.worker.main import _count
from vscrapy_magic.worker.main import parser as worker_parser

REPOSITORY = Path(__file__).parents[1]
DEPLOY = REPOSITORY / "deploy"
MANUAL = (REPOSITORY / "docs" / "deploy.md").read_text()
# A worker that was told to go closes spiders, tells what it has and leaves, in this time.
LONGEST_END_S = child.CLOSE_S + child.KILL_AFTER_S + supervisor.BURY_WITHIN_S + desk._END_S


def check_worker(words: list[str]) -> None:
    """The worker's own parser takes these words."""
    options = worker_parser().parse_args(words)
    assert _count(options.count) > 0
    if options.url:
        config.check_url(options.url)


def dockerfile() -> dict[str, str]:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    pairs = [line.split(" ", 1) for line in lines if line and not line.startswith("#")]
    return dict(pairs)


def load(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def unit() -> dict[str, str]:
    text = (DEPLOY / "vscrapy-worker.service").read_text()
    assert set(re.findall(r"^\[(\w+)\]$", text, re.MULTILINE)) == {"Unit", "Service", "Install"}
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def test_the_image_starts_a_worker_and_copies_what_is_there() -> None:
    entry, default = (json.loads(dockerfile()[name]) for name in ("ENTRYPOINT", "CMD"))
    assert entry == ["vscrapy", "worker"]
    check_worker(default)
    for line in re.findall(r"^COPY (.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE):
        for name in line.split():
            assert (REPOSITORY / name).exists(), name
    assert dockerfile()["STOPSIGNAL"] == "SIGTERM"


def test_compose_starts_workers_of_its_own_server() -> None:
    services = load("docker-compose.yml")["services"]
    worker = services["worker"]
    check_worker(worker["command"])
    assert (DEPLOY / worker["build"]["context"] / worker["build"]["dockerfile"]).exists()
    url = worker["environment"][config.URL_VARIABLE]
    config.check_url(re.sub(r"\$\{.*?\}", "x", url))
    assert url.split("@")[1].split(":")[0] in services
    assert int(worker["stop_grace_period"].rstrip("s")) > LONGEST_END_S
    text = load("docker-compose.yml")["configs"]["valkey"]["content"]
    assert {"appendonly yes", "appendfsync always"} <= set(text.splitlines())


def test_kubernetes_starts_workers() -> None:
    pod = load("kubernetes.yaml")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    check_worker(container["args"])
    named = {variable["name"]: variable for variable in container["env"]}
    secret = named[config.URL_VARIABLE]["valueFrom"]["secretKeyRef"]
    assert f"secret generic {secret['name']} --from-literal={secret['key']}=" in MANUAL
    assert pod["terminationGracePeriodSeconds"] > LONGEST_END_S
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }


def test_systemd_starts_workers() -> None:
    found = unit()
    program, command, *words = shlex.split(found["ExecStart"])
    assert (Path(program).name, command) == ("vscrapy", "worker")
    check_worker(words)
    assert found["EnvironmentFile"] in MANUAL
    assert str(Path(program).parents[1]) in MANUAL
    assert found["KillMode"] == "mixed"  # children are told by their worker
    assert int(found["TimeoutStopSec"]) > LONGEST_END_S


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```\n(.*?)^```", MANUAL, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`(vscrapy [^`]*)`", MANUAL)
    lines = [line for block in blocks for line in block.splitlines()] + inline
    return [shlex.split(line)[1:] for line in lines if line.startswith("vscrapy ")]


def test_the_manual_names_commands_and_variables_that_exist() -> None:
    assert len(commands()) > 2
    for command, *words in commands():
        if command == "worker":
            check_worker(words)
        else:
            assert command in cli._COMMANDS, command
    sources = "".join(p.read_text() for p in (REPOSITORY / "vscrapy_magic").rglob("*.py"))
    files = [MANUAL, *(path.read_text() for path in DEPLOY.iterdir())]
    for name in {name for text in files for name in re.findall(r"\bVSCRAPY_[A-Z_]+", text)}:
        assert name == "VSCRAPY_PASSWORD" or f'"{name}"' in sources, name
    for option in re.findall(r"`(--[a-z-]+) \d", MANUAL):
        assert option in worker_parser()._option_string_actions


def test_the_manual_links_files_that_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", MANUAL):
        assert (REPOSITORY / "docs" / target).exists(), target


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
def test_addresses_in_the_manual_can_be_used(scheme: str, tmp_path: Path) -> None:
    (tmp_path / "x.pem").touch()
    for url in re.findall(rf"\b{scheme}://[^\s`']+", MANUAL):
        config.check_url(re.sub(r"/etc/vscrapy/[a-z.]+", str(tmp_path / "x.pem"), url))


def test_the_rights_in_the_manual_are_those_that_the_store_uses() -> None:
    """A new command in a script or a module has to be named in the manual."""
    store = REPOSITORY / "vscrapy_magic" / "store"
    scripts = "".join(path.read_text() for path in (store / "lua").glob("*.lua"))
    modules = "".join(path.read_text() for path in store.glob("*.py"))
    used = {name.lower() for name in re.findall(r"redis\.p?call\('(\w+)'", scripts)}
    methods = re.findall(r"\b(?:client|pipe|_client)\.([a-z_]+)\(", modules)
    used |= set(methods) - {"pipeline", "execute", "close", "delete"}
    used |= set(re.findall(r'send_command\(.*?"(\w+)"', modules.lower(), re.DOTALL))
    # The driver's own: a transaction, another database; `delete` is its name for DEL.
    used |= {"multi", "exec", "select", "del"}
    found = re.search(r"^user vscrapy on >PASSWORD (.*)$", MANUAL, re.MULTILINE)
    assert found
    assert set(re.findall(r"\+([a-z]+)", found[1])) == used
