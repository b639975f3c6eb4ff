"""A site is asked as fast by many workers as by one process: measured at the site."""

import json
from collections.abc import Iterator
from itertools import pairwise
from statistics import mean

import pytest

from tests.parity.features import WORKERS, Facts, Feature, features
from tests.parity.plain import PlainScrapy
from tests.parity.running import Ran, Runner, senders_place

pytestmark = [pytest.mark.load, pytest.mark.timeout(900)]
COUNT = 300
DELAY_S = 0.1
STRETCH = 40  # gaps in a row
FIXED = (0.95, 0.9, 0.02)  # least gap, least of a stretch, both of its delays; rate within
JITTERED = (0.45, 0.75, 0.1)  # Scrapy waits 0.5 to 1.5 delays


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("rates")
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        PlainScrapy() as scrapy,
        senders_place(monkeypatch, folder) as session,
    ):
        found = Runner(session, scrapy, folder)
        with found.in_project("limits"):
            yield found


def feature(name: str) -> Feature:
    (found,) = (each for each in features() if each.name == name)
    facts = Facts(args=(("count", str(COUNT)),), gate=False, timeout_s=200)
    return Feature(found.name, found.theme, found.says, facts)


def gaps(ran: Ran) -> list[float]:
    assert not ran.trouble, ran.trouble
    assert len(ran.times) == COUNT
    return [later - earlier for earlier, later in pairwise(ran.times)]


def told(what: str, found: list[float], expected: float) -> None:
    print(f"{what}: mean {mean(found):.4f} s of {expected:.4f}, least {min(found):.4f}")


def check(plain: list[float], ran: list[list[float]], bounds: tuple[float, float, float]) -> None:
    """As fast as plain Scrapy, and no gap is too short.

    A machine that is busy moves requests on their way to the site, those of plain Scrapy as well.
    Then single gaps are not judged: the rate is, and that no stretch of requests is faster.
    """
    least, stretch_least, rate_within = bounds
    for found in ran:
        assert mean(found) >= DELAY_S * (1 - rate_within)
        stretches = [sum(found[at : at + STRETCH]) for at in range(COUNT - STRETCH)]
        assert min(stretches) >= STRETCH * DELAY_S * stretch_least
        assert mean(found) == pytest.approx(mean(plain), rel=rate_within)
    if min(plain) < least * DELAY_S:
        pytest.skip(f"too busy to judge gaps: plain Scrapy has one of {min(plain):.3f} s")
    for found in ran:
        assert min(found) >= least * DELAY_S


@pytest.mark.parametrize("name", ["delay", "delay_attribute", "slot_delay"])
def test_a_fixed_delay_holds_over_all_workers(runner: Runner, name: str) -> None:
    check(*compared(runner, name), FIXED)


def test_a_delay_with_jitter_holds_over_all_workers(runner: Runner) -> None:
    check(*compared(runner, "jitter"), JITTERED)


def compared(runner: Runner, name: str) -> tuple[list[float], list[list[float]]]:
    """Gaps in plain Scrapy, and on each number of workers."""
    plain = gaps(runner.in_plain_scrapy(feature(name)))
    told(f"{name} in plain Scrapy", plain, DELAY_S)
    ran = []
    for workers in WORKERS:
        ran.append(gaps(runner.on_workers(feature(name), workers)))
        told(f"{name} on {workers}", ran[-1], mean(plain))
    return plain, ran


def test_no_worker_sends_before_the_delay_is_over(runner: Runner) -> None:
    """At the moment of sending, so that a busy machine is no excuse."""
    for workers in WORKERS:
        ran = runner.on_workers(feature("sending"), workers)
        times = sorted(json.loads(item)["at"] for item in ran.items)
        assert len(times) == COUNT, ran.trouble
        found = [later - earlier for earlier, later in pairwise(times)]
        told(f"sending on {workers}", found, DELAY_S)
        assert min(found) >= FIXED[0] * DELAY_S, workers


def test_autothrottle_asks_no_faster_with_more_workers(runner: Runner) -> None:
    plain = mean(gaps(runner.in_plain_scrapy(feature("throttle"))))
    for workers in WORKERS:
        found = gaps(runner.on_workers(feature("throttle"), workers))
        told(f"throttle on {workers}", found, plain)
        assert mean(found) >= plain * 0.9, workers
