"""Each benchmark runs with one small round, prints its table, and leaves nothing behind."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.load, pytest.mark.timeout(400)]

ROOT = Path(__file__).parent.parent
RUN_WITHIN_S = 300.0
SMALL: dict[str, tuple[str, ...]] = {
    "bytes": ("--largest", "4"),
    "debug": ("--failures", "3", "--pairs", "1", "--pages", "200"),
    "herd": ("--seconds", "3", "--most", "10"),
    "idle": ("--seconds", "4"),
    "join": (),
    "logs": ("--seconds", "3"),
    "patch": (),
    "start": (),
    "stop": (),
}
NEEDS_KERNEL = {"debug", "start", "stop"}


def run(name: str, *options: str) -> list[list[str]]:
    """The cells of the table that a benchmark prints, without its line of dashes."""
    ended = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--rounds", "1", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=RUN_WITHIN_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    lines = [line for line in ended.stdout.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def folders() -> set[Path]:
    return {*Path("/tmp").glob("vs-bench-*"), *Path("/tmp").glob("vs-peer-*")}


@pytest.mark.parametrize("name", SMALL)
def test_it_prints_its_table_and_leaves_no_folder(name: str) -> None:
    if name in NEEDS_KERNEL and importlib.util.find_spec("ipykernel") is None:
        pytest.skip("ipykernel is not installed")
    before = folders()
    head, *rows = run(name, *SMALL[name])
    assert rows
    assert all(row[0] for row in rows)
    assert any(word in head for word in ("promised", "seen URL (<= 12)"))
    assert folders() <= before


def test_ours_loses_no_item_beside_scrapy_redis() -> None:
    before = folders()
    _, ours, theirs = run("peers", "--pages", "300")
    assert ours[0].startswith("vscrapy")
    assert theirs[0].startswith("scrapy-redis")
    assert ours[7] == "0 (0)"
    assert ours[8] == "0 (0)"
    assert folders() <= before


def test_every_benchmark_is_described_and_tested() -> None:
    described = (ROOT / "benchmarks" / "README.md").read_text()
    names = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    names -= {"__init__", "measure", "crowd"}  # what others are made of
    assert {name for name in names if f"benchmarks.{name}" not in described} == set()
    # Those of chaos are the trials of tests/chaos, which always run; a round takes minutes.
    assert names - {*SMALL, "cost", "peers", "chaos"} == set()
