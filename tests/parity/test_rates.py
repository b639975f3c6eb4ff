"""A site is asked as fast by many workers as by one process: measured at the site."""

from collections.abc import Iterator
from statistics import mean

import pytest

from tests.parity.features import WORKERS, Facts, Feature, features
from tests.parity.plain import PlainScrapy
from tests.parity.running import Ran, Runner, senders_place

pytestmark = [pytest.mark.load, pytest.mark.timeout(900)]
COUNT = 300
DELAY_S = 0.1
RATE_WITHIN = 0.02
LEAST = 0.95  # of the delay; what is shorter is no noise
LEAST_JITTERED = 0.45  # Scrapy waits 0.5 to 1.5 delays
NOISE = 2  # so many times as many short gaps as plain Scrapy has on the same busy machine


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
    return [later - earlier for earlier, later in zip(ran.times, ran.times[1:], strict=False)]


def told(what: str, found: list[float], expected: float) -> None:
    print(f"{what}: mean {mean(found):.4f} s of {expected:.4f}, least {min(found):.4f}")


def short(found: list[float], least_s: float) -> int:
    return sum(gap < least_s for gap in found)


@pytest.mark.parametrize("name", ["delay", "delay_attribute", "slot_delay"])
def test_a_fixed_delay_holds_over_all_workers(runner: Runner, name: str) -> None:
    plain = gaps(runner.in_plain_scrapy(feature(name)))
    told(f"{name} in plain Scrapy", plain, DELAY_S)
    for workers in WORKERS:
        found = gaps(runner.on_workers(feature(name), workers))
        told(f"{name} on {workers}", found, mean(plain))
        assert mean(found) == pytest.approx(mean(plain), rel=RATE_WITHIN), workers
        check_short(found, plain, LEAST * DELAY_S)


def check_short(found: list[float], plain: list[float], least_s: float) -> None:
    """None is too short; on a machine that is busy, where plain Scrapy has some, hardly more."""
    assert short(found, least_s) <= NOISE * short(plain, least_s), (min(found), min(plain))


def test_a_delay_with_jitter_holds_over_all_workers(runner: Runner) -> None:
    plain = gaps(runner.in_plain_scrapy(feature("jitter")))
    told("jitter in plain Scrapy", plain, DELAY_S)
    for workers in WORKERS:
        found = gaps(runner.on_workers(feature("jitter"), workers))
        told(f"jitter on {workers}", found, mean(plain))
        check_short(found, plain, LEAST_JITTERED * DELAY_S)
        assert mean(found) == pytest.approx(mean(plain), rel=0.1), workers


def test_autothrottle_asks_no_faster_with_more_workers(runner: Runner) -> None:
    plain = mean(gaps(runner.in_plain_scrapy(feature("throttle"))))
    for workers in WORKERS:
        found = gaps(runner.on_workers(feature("throttle"), workers))
        told(f"throttle on {workers}", found, plain)
        assert mean(found) >= plain * 0.9, workers
