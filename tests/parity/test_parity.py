"""Any spider is the same on workers as with `scrapy crawl`: each feature, on 1, 2 and 4 workers.

A part of the features runs always, on two workers; all of them on 1, 2 and 4 with `-m matrix`.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.foreign import locked, session_folder
from tests.parity.compare import problems
from tests.parity.features import WORKERS, Feature, features
from tests.parity.plain import PlainScrapy
from tests.parity.report import PAGE
from tests.parity.running import Result, Runner, senders_place

QUICK_WORKERS = (2,)
ALL = features()
QUICK = [feature for feature in ALL if feature.facts.quick]


def ran(factory: pytest.TempPathFactory, name: str, chosen: list[Feature], *workers: int) -> Path:
    """The file of the results; features run once per session, whichever process comes first."""
    shared = session_folder(factory)
    kept = shared / f"parity-{name}.json"
    with locked(shared / f"parity-{name}.lock"):
        if not kept.exists():
            folder = factory.mktemp("parity")
            with (
                pytest.MonkeyPatch.context() as monkeypatch,
                PlainScrapy() as scrapy,
                senders_place(monkeypatch, folder) as session,
            ):
                results = Runner(session, scrapy, folder).run_all(chosen, workers)
            kept.write_bytes(msgspec.json.encode(results))
    return kept


def read(kept: Path) -> dict[str, Result]:
    return msgspec.json.decode(kept.read_bytes(), type=dict[str, Result])


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    return read(ran(tmp_path_factory, "quick", QUICK, *QUICK_WORKERS))


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    return read(ran(tmp_path_factory, "all", ALL, *WORKERS))


def check(feature: Feature, results: dict[str, Result], workers: int) -> None:
    if feature.missing:
        pytest.skip(f"needs {', '.join(feature.missing)}")
    result = results[feature.name]
    found = problems(feature, result.plain, result.ours[str(workers)])
    assert not found, "\n".join(found)


def named(feature: Feature) -> str:
    return f"{feature.theme}-{feature.name}"


@pytest.mark.timeout(600)  # the first one runs all of them
@pytest.mark.parametrize("feature", QUICK, ids=named)
def test_on_two_workers_as_in_plain_scrapy(feature: Feature, quick: dict[str, Result]) -> None:
    check(feature, quick, 2)


@pytest.mark.matrix
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("feature", ALL, ids=named)
def test_as_in_plain_scrapy(feature: Feature, workers: int, everything: dict[str, Result]) -> None:
    check(feature, everything, workers)


def test_work_was_really_shared(quick: dict[str, Result]) -> None:
    shared = {
        name: max(ran.took_part for ran in result.ours.values())
        for name, result in quick.items()
        if not any(ran.pinned for ran in result.ours.values())
    }
    assert sum(count > 1 for count in shared.values()) > len(shared) / 4, shared


def rows() -> Iterator[str]:
    for line in PAGE.read_text().splitlines():
        if line.startswith("| ") and "`" in line:
            yield line.split("`")[1]


def test_the_page_tells_of_every_feature_and_of_no_other() -> None:
    assert sorted(rows()) == sorted(feature.name for feature in ALL)
    assert "not equal" not in PAGE.read_text().partition("\n## ")[2]
