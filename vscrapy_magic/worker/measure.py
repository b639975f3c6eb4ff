"""Owns how much processor and memory the processes of a worker use; used by the supervisor's loop.

Numbers of a process that is gone meanwhile are 0: they are for a table, and for a limit that a
process that is gone cannot break.
"""

from collections.abc import Iterable

import psutil


class Measure:
    """Remembers processes between two measurements, as a share of processor time needs both."""

    def __init__(self) -> None:
        self._processes: dict[int, psutil.Process] = {}

    def memory_bytes(self, pid: int) -> int:
        """Resident memory of a process."""
        try:
            return int(self._process(pid).memory_info().rss)
        except (psutil.Error, ValueError):
            return 0

    def cpu_percent(self, pid: int) -> float:
        """Share of one processor since the last call; 0 at first."""
        try:
            return float(self._process(pid).cpu_percent(None))
        except (psutil.Error, ValueError):
            return 0.0

    def _process(self, pid: int) -> psutil.Process:
        process = self._processes.get(pid)
        if process is None:
            process = self._processes[pid] = psutil.Process(pid)
        return process

    def keep(self, pids: Iterable[int]) -> None:
        """Forget all others."""
        kept = set(pids)
        self._processes = {pid: p for pid, p in self._processes.items() if pid in kept}
