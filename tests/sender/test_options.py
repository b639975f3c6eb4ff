"""Options of crawls: Scrapy's as they are, ours beside them, and every mistake in one line."""

import re
import subprocess
import sys

import pytest

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.options import (
    CrawlOptions,
    no_effect_notes,
    parse_line,
    parse_words,
    parser,
    setting_notes,
)

PROG = "vscrapy crawl"


def parse(*words: str) -> CrawlOptions:
    return parse_words(words, PROG)


def mistake(*words: str) -> str:
    with pytest.raises(ConfigError) as error:
        parse(*words)
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.fixture(scope="module")
def scrapy_help(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`scrapy crawl -h` of the installed Scrapy, in a fresh project."""
    folder = tmp_path_factory.mktemp("projects")
    scrapy = [sys.executable, "-m", "scrapy"]
    subprocess.run([*scrapy, "startproject", "shop"], cwd=folder, check=True, capture_output=True)
    shown = subprocess.run(
        [*scrapy, "crawl", "-h"], cwd=folder / "shop", check=True, capture_output=True, text=True
    )
    return shown.stdout


def test_every_option_of_scrapy_crawl_is_taken_with_its_letters(scrapy_help: str) -> None:
    rows = re.findall(r"^  (-[^\n]*?)(?:  |$)", scrapy_help, re.MULTILINE)
    assert len(rows) >= 10
    actions = parser(PROG, "spider")._option_string_actions
    for row in rows:
        names = re.findall(r"(?<!\w)--?[\w-]+", row)
        takes_value = bool(re.search(r"[A-Z]{4,}", row))
        known = {id(actions.get(name)) for name in names}
        assert len(known) == 1, f"{names} mean different things"
        action = actions.get(names[0])
        assert action is not None, f"{names} of scrapy crawl are unknown"
        assert (action.nargs != 0) == takes_value, names


def test_options_mean_what_scrapy_means() -> None:
    options = parse(
        *("quotes", "-a", "tag=humor", "-a", "q=a=b", "-s", "X=1", "--set", "Y=2"),
        *("-o", "a.json", "--output", "-:csv", "-L", "info", "--logfile", "l.txt"),
        *("--pidfile", "p", "--profile", "f", "--pdb"),
    )
    assert options.target == "quotes"
    assert options.args == {"tag": "humor", "q": "a=b"}
    assert options.output == ("a.json", "-:csv")
    assert options.cmdline_settings() == {
        "X": "1",
        "Y": "2",
        "LOG_ENABLED": "True",
        "LOG_LEVEL": "INFO",
    }
    assert (options.logfile, options.pidfile, options.profile) == ("l.txt", "p", "f")
    assert parse("q", "--nolog").cmdline_settings() == {"LOG_ENABLED": "False"}


def test_our_options() -> None:
    options = parse(
        *("q", "--workers", "3", "--bg", "--detach", "--as", "found", "--keep-open", "--quiet"),
        *("--file", "a", "--file", "b", "--env", "HOME", "--ttl", "2.5"),
    )
    assert (options.workers, options.ttl_s, options.variable) == (3, 2.5, "found")
    assert options.background
    assert options.detach
    assert options.keep_open
    assert options.files == ("a", "b")
    assert options.cmdline_settings() == {"LOG_LEVEL": "WARNING"}
    assert parse("q", "--quiet", "-L", "ERROR").cmdline_settings()["LOG_LEVEL"] == "ERROR"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["q", "--worker", "3"], "unknown option --worker; did you mean --workers?"),
        (["q", "--quiett"], "unknown option --quiett; did you mean --quiet?"),
        (["q", "--zzz=1"], "unknown option --zzz"),
        (["q", "-a"], "-a: a value is needed after it"),
        (["q", "-a", "x"], "-a x: write it as -a NAME=VALUE"),
        (["q", "--workers", "x"], "--workers: 'x' is no whole number"),
        (["q", "--workers", "0"], "--workers 0: at least one is needed"),
        (["q", "--ttl", "0.1"], "--ttl 0.1: at least one second is needed"),
        (["q", "--as", "1x"], "--as 1x: that is no name of a variable"),
        (["q", "r"], "crawl: one word too many: 'r'"),
        (["q", "-o", "a.json", "-O", "b.json"], "-o and -O: use one of them, as with Scrapy"),
        (["q", "-L", "INFOO"], "-L INFOO: no log level; did you mean INFO?"),
        (["q", "--redis", "http://x"], "--redis: 'http://x' is no address of a Redis"),
        ([], "crawl: which spider? example: vscrapy crawl quotes"),
    ],
)
def test_a_mistake_is_one_line_with_the_nearest_right_word(words: list[str], message: str) -> None:
    assert mistake(*words).startswith(message)


def test_help_shows_an_example_and_ends_nothing() -> None:
    for prog, target in ((PROG, "spider"), ("vscrapy runspider", "spider_file"), ("%%vcrawl", "s")):
        text = parse_words(["--help"], prog, target).help
        assert f"example: {prog} quotes" in text
        assert "--workers N" in text
    assert parse("q").help == ""


def test_a_magic_line_is_split_as_a_shell_does_and_nothing_is_evaluated() -> None:
    options = parse_line("quotes -a 'tag=a b' -s N=$HOME\n", "%%vcrawl")
    assert options.args == {"tag": "a b"}
    assert options.settings == {"N": "$HOME"}
    with pytest.raises(ConfigError, match="no closing quotation"):
        parse_line("quotes -a 'x", "%%vcrawl")


def test_values_of_env_are_taken_from_here_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "sesame")
    options = parse("q", "--env", "SHOP_TOKEN", "--redis", "redis://:pass@host")
    assert options.environment() == {"SHOP_TOKEN": "sesame"}
    assert "sesame" not in repr(options)
    assert "pass" not in repr(options)
    with pytest.raises(ConfigError, match=r"--env SHOP_TOKE: no such .* did you mean SHOP_TOKEN"):
        parse("q", "--env", "SHOP_TOKE").environment()


def test_what_workers_cannot_do_is_said_in_a_sentence() -> None:
    profile, pdb = parse("q", "--profile", "out.prof", "--pdb").notes()
    assert "out.prof is not written" in profile
    assert "vscrapy errors" in pdb
    assert parse("q").notes() == []


def test_a_setting_that_is_nearly_scrapys_gets_a_hint() -> None:
    known = ["DOWNLOAD_DELAY", "DOWNLOAD_TIMEOUT"]
    (note,) = setting_notes(
        ["DOWNLOAD_DLEAY", "MY_OWN", "DOWNLOAD_DELAYS"], known, ["DOWNLOAD_DELAYS"]
    )
    assert note == "-s DOWNLOAD_DLEAY: Scrapy has no such setting; did you mean DOWNLOAD_DELAY?"


def test_what_workers_cannot_do_is_said_when_it_is_set() -> None:
    defaults = {"JOBDIR": None, "SCHEDULER": "scrapy.core.scheduler.Scheduler", "OTHER": ["x"]}
    assert no_effect_notes(defaults) == []
    said = no_effect_notes(defaults | {"JOBDIR": "job", "STATS_CLASS": "mine.Stats"})
    assert [note.partition(":")[0] for note in said] == [
        "JOBDIR has no effect",
        "STATS_CLASS has no effect",
    ]
