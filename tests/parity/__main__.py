"""`python -m tests.parity`: runs all features and writes docs/parity.md.

With names of features, or of themes, only these are run, and nothing is written.
"""

import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.parity.compare import problems
from tests.parity.features import WORKERS, Feature, features
from tests.parity.plain import PlainScrapy
from tests.parity.report import write
from tests.parity.running import Result, Runner, senders_place


def main(names: list[str]) -> int:
    every = features()
    chosen = [each for each in every if not names or {each.name, each.theme} & set(names)]
    begun, unequal = time.monotonic(), []

    def tell(feature: Feature, result: Result) -> None:
        lines = described(feature, result)
        print("\n".join(lines), flush=True)
        if len(lines) > 1:
            unequal.append(feature.name)

    with (
        tempfile.TemporaryDirectory(prefix="vs-parity-") as made,
        pytest.MonkeyPatch.context() as m,
    ):
        folder = Path(made)
        with PlainScrapy() as scrapy, senders_place(m, folder) as session:
            results = Runner(session, scrapy, folder).run_all(chosen, WORKERS, tell)
    for feature in chosen:
        if feature.missing:
            print(f"{feature.theme}/{feature.name}: not run, needs {', '.join(feature.missing)}")
    print(f"{len(chosen)} features in {time.monotonic() - begun:.0f} s; not equal: {unequal}")
    if not names:
        write(chosen, results)
    return min(len(unequal), 1)


def described(feature: Feature, result: Result) -> list[str]:
    """A feature in a line, and a line for all that was not equal."""
    plain, found = result.plain, []
    took_part = "/".join(str(ran.took_part) for ran in result.ours.values())
    pinned = next((ran.pinned for ran in result.ours.values()), "")
    for count, ran in result.ours.items():
        wrong = problems(feature, plain, ran)
        found += [f"    on {count}: {line}" for line in wrong]
        if wrong:
            new = sorted(set(ran.warnings) - set(plain.warnings))
            found += [
                f"    on {count} only: {line[:150]!r} ... {line[-300:]!r}" for line in new[:3]
            ]
    head = f"{feature.theme}/{feature.name}: {plain.reason}, {len(plain.items)} items"
    return [f"{head}, {sum(plain.hits.values())} hits; {took_part} workers {pinned}", *found]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
