"""What is found out about a spider before it is sent, by the process that does it."""

from pathlib import Path

import pytest

from tests.sender.projects import write_project
from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.inspecting import inspect
from vscrapy_magic.store.inspection import Inspection, Source


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SCRAPY_SETTINGS_MODULE", raising=False)
    root = write_project(tmp_path / "project")
    monkeypatch.chdir(root / "shop" / "spiders")  # anywhere inside, as with Scrapy
    return root


def mistake(source: Source) -> str:
    with pytest.raises(ConfigError) as error:
        inspect(source)
    assert "\n" not in str(error.value)
    return str(error.value)


def found(**fields: object) -> Inspection:
    return inspect(Source(**fields))  # type: ignore[arg-type]


def test_a_project_is_found_from_anywhere_inside(project: Path) -> None:
    seen = found(spider="books")
    assert seen.names == ("books", "quotes")
    assert seen.spider == "books"
    assert seen.project == "shop.settings"
    assert Path(seen.root) == project
    assert Path(seen.file) == project / "shop" / "spiders" / "books.py"
    assert {top for folder, top in seen.modules if Path(folder) == project} == {"shop", "words"}


def test_settings_are_those_in_force_for_the_spider(project: Path) -> None:
    seen = found(spider="books", settings={"LOG_LEVEL": "INFO"})
    assert seen.settings["BOT_NAME"] == "shop"
    assert seen.settings["CLOSESPIDER_ITEMCOUNT"] == 1000
    assert seen.settings["LOG_LEVEL"] == "INFO"
    assert seen.settings["SCHEDULER_MEMORY_QUEUE"].endswith("LifoMemoryQueue")
    assert "DOWNLOAD_DELAY" in seen.known
    assert seen.feeds == ("out/%(name)s.csv",)
    assert (
        found(spider="books", settings={"CLOSESPIDER_ITEMCOUNT": "5"}).settings[
            "CLOSESPIDER_ITEMCOUNT"
        ]
        == "5"
    )


def test_a_missing_spider_is_told_with_the_nearest_name(project: Path) -> None:
    assert mistake(Source(spider="quote")) == (
        "no spider 'quote' in this project; did you mean 'quotes'?"
    )
    assert mistake(Source(spider="zzz")).endswith("there is books, quotes")


def test_outside_of_a_project_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "is in no Scrapy project" in mistake(Source(spider="quotes"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("shop/items.py", "import nothing_like_it\n", "shop/items.py, line 1: ModuleNotFoundError"),
        ("shop/spiders/quotes.py", "def (:\n", "shop/spiders/quotes.py, line 1: invalid syntax"),
        ("shop/settings.py", "x = y\n", "shop/settings.py, line 1: NameError: name 'y'"),
        ("shop/pipelines.py", "", "ITEM_PIPELINES: shop.pipelines.Loud cannot be loaded"),
    ],
)
def test_an_error_in_the_project_names_file_and_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, message: str
) -> None:
    monkeypatch.chdir(project)
    (project / name).write_text(text)
    assert mistake(Source(spider="books")).startswith(message)


def test_a_spider_that_exits_or_prints_while_it_is_imported_does_no_harm(tmp_path: Path) -> None:
    spider = "import scrapy\nclass A(scrapy.Spider):\n    name = 'a'\n"
    path = tmp_path / "a.py"
    path.write_text(f"print('noise')\n{spider}")
    assert found(entry=str(path)).spider == "a"
    path.write_text(f"{spider}raise SystemExit(3)\n")
    assert mistake(Source(entry=str(path))) == f"{path}, line 4: SystemExit: 3"
    path.write_text(f"{spider}import os\nos._exit(3)\n")
    assert "ended by itself (exit code 3)" in mistake(Source(entry=str(path)))


def test_a_main_guard_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(
        "import scrapy\nclass A(scrapy.Spider):\n    name = 'a'\n"
        "if __name__ == '__main__':\n    raise RuntimeError('ran')\n"
    )
    assert found(entry=str(path)).spider == "a"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"output": ("a.nothing",)}, "Unrecognized output format 'nothing'"),
        ({"output": ("zzz://x/a.json",)}, "Unknown feed storage scheme: zzz"),
        (
            {"output": ("a.json",), "settings": {"FEED_EXPORT_BATCH_ITEM_COUNT": "5"}},
            "%(batch_time)s or %(batch_id)d must be in the feed URI",
        ),
        ({"output": ("%(tag)s.json",)}, "a feed's address has %(tag)s, but BooksSpider has no tag"),
    ],
)
def test_a_feed_that_cannot_be_written_is_told_before_anything_starts(
    project: Path, fields: dict[str, object], message: str
) -> None:
    assert message in mistake(Source(spider="books", **fields))  # type: ignore[arg-type]


def test_a_feed_may_name_what_only_init_sets(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(
        "import scrapy\nclass A(scrapy.Spider):\n    name = 'a'\n"
        "    def __init__(self, tag='x', **kwargs):\n"
        "        super().__init__(**kwargs)\n        self.label = tag\n"
    )
    assert found(entry=str(path), output=("%(label)s.json",)).feeds == ("%(label)s.json",)


def test_old_start_requests_alone_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(
        "import scrapy\nclass A(scrapy.Spider):\n    name = 'a'\n"
        "    def start_requests(self):\n        yield scrapy.Request('http://x')\n"
    )
    assert "A has start_requests() but no start()" in found(entry=str(path)).notes[0]
