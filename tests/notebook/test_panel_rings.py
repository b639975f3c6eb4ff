"""The rings behind the panes: bounded, numbered, errors kept longer."""

from tests.notebook.feeding import line
from vscrapy_magic.notebook.rings import (
    CHARS_MAX,
    ERRORS_MAX,
    ROW_CHARS_MAX,
    ROWS_MAX,
    Ring,
    Row,
    runs,
)


def numbers(rows: list[Row]) -> list[int]:
    return [row.number for row in rows]


def test_rows_of_one_line_are_marked_as_such() -> None:
    ring = Ring()
    ring.add(line("Traceback\n  File\rx\nValueError", 50))
    ring.add(line("fine", 10))
    marks = [row.text[0] for row in ring.kept().rows]
    assert marks == ["C", "c", "c", "c", "D"]
    assert (ring.lines, ring.errors) == (2, 1)


def test_the_oldest_rows_go_and_errors_stay_longer() -> None:
    ring = Ring()
    ring.add(line("bad", 40))
    for number in range(2 * ROWS_MAX):
        ring.add(line(f"n {number}"))
    rows = ring.kept().rows
    assert len(rows) == ROWS_MAX + 1
    assert numbers(rows)[:2] == [1, ROWS_MAX + 2]
    assert rows[0].text.endswith("bad")


def test_errors_are_bounded_too() -> None:
    ring = Ring()
    for number in range(ROWS_MAX + 3 * ERRORS_MAX):
        ring.add(line(f"n {number}", 40))
    assert len(ring.kept().rows) == ROWS_MAX + ERRORS_MAX


def test_long_rows_are_cut_and_many_of_them_bounded_in_characters() -> None:
    ring = Ring()
    for _ in range(2 * CHARS_MAX // ROW_CHARS_MAX):
        ring.add(line("x" * 10 * ROW_CHARS_MAX))
    rows = ring.kept().rows
    assert sum(len(row.text) for row in rows) <= CHARS_MAX
    assert rows[-1].text.endswith("characters more")


def test_what_is_taken_is_taken_once_and_gaps_show_in_the_numbers() -> None:
    ring = Ring()
    for number in range(10):
        ring.add(line(f"n {number}"))
    ((first, rows),) = ring.take(10_000)
    assert (first, rows.count("\n")) == (1, 9)
    assert ring.take(10_000) == []
    ring.add(line("bad", 40))
    for number in range(2 * ROWS_MAX):
        ring.add(line(f"n {number}"))
    error, others = ring.take(CHARS_MAX)
    assert (error.first, others.first) == (11, 12 + ROWS_MAX)
    assert [run.first for run in ring.take_all(CHARS_MAX)] == [11, 12 + ROWS_MAX]


def test_of_too_many_characters_the_newest_are_taken() -> None:
    ring = Ring()
    for number in range(100):
        ring.add(line(f"{number:03}"))
    size = len(ring.kept().rows[0].text)
    (run,) = ring.take(10 * size)
    assert run.first == 91


def test_rows_with_consecutive_numbers_are_one_run() -> None:
    rows = [Row(3, "a"), Row(4, "b"), Row(7, "c")]
    assert runs(rows) == [(3, "a\nb"), (7, "c")]
