"""Random faults, trial after trial: nothing is lost, nothing comes twice, nothing hangs.

A failure names its seeds: `VSCRAPY_CHAOS_SEED=<seed> VSCRAPY_CHAOS_TRIALS=1 pytest -m soak
tests/chaos/test_chaos.py` makes the same plan again.
"""

import os
import random

import pytest

from tests.chaos.harness import Kind, Plan, Scene, Trial
from vscrapy_magic.store.frontier import MEMBER_TTL_MS

TRIALS_VARIABLE = "VSCRAPY_CHAOS_TRIALS"
SEED_VARIABLE = "VSCRAPY_CHAOS_SEED"
TRIALS = 200
LOG_CHARS = 20_000  # of the log of each trial that failed
QUICK_PAGES = 150
QUICK_SEEDS = range(1, 6)
TAKEN_OVER_WITHIN_S = 5.0
SLACK = 3  # a loaded machine
# A frozen machine takes its time in any case: it has a trial of its own.
MOVING = [kind for kind in Kind if kind is not Kind.FREEZE]
FROZEN = Plan.of(1, [Kind.FREEZE], 1, frozen_ttls=1.5)


def check(trials: list[Trial], slack: float) -> None:
    for trial in trials:
        print(trial)
    failed = [trial for trial in trials if not trial.is_exact]
    logs = "\n".join(f"=== {trial}\n{trial.log[-LOG_CHARS:]}" for trial in failed)
    assert not failed, f"seeds {[trial.plan.seed for trial in failed]} failed\n{logs}"
    takeovers_s = [seconds for trial in trials for seconds in trial.takeovers_s]
    print(f"{len(takeovers_s)} takeovers, worst {max(takeovers_s, default=0):.2f} s")
    assert max(takeovers_s, default=0) < slack * TAKEN_OVER_WITHIN_S


def test_random_faults_lose_repeat_and_hang_nothing() -> None:
    plans = [*(Plan.of(seed, MOVING) for seed in QUICK_SEEDS), FROZEN]
    with Scene(pages=QUICK_PAGES) as scene:
        trials = [scene.trial(plan) for plan in plans]
    assert sum(len(trial.done) for trial in trials) > len(plans), "too little happened"
    check(trials, SLACK)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_many_random_faults_lose_repeat_and_hang_nothing() -> None:
    first = int(os.environ.get(SEED_VARIABLE, "0")) or random.randrange(1, 1_000_000)
    count = int(os.environ.get(TRIALS_VARIABLE, str(TRIALS)))
    with Scene() as scene:
        trials = [scene.trial(Plan.of(seed, list(Kind))) for seed in range(first, first + count)]
    check(trials, 1.0)


def test_the_same_seed_makes_the_same_plan() -> None:
    assert Plan.of(7, list(Kind)) == Plan.of(7, list(Kind)) != Plan.of(8, list(Kind))
    kinds = {fault.kind for seed in range(100) for fault in Plan.of(seed, list(Kind)).faults}
    assert kinds == set(Kind)
    assert MEMBER_TTL_MS / 1000 < TAKEN_OVER_WITHIN_S
