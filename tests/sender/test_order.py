"""What is ordered: which files travel, which settings count for the whole crawl."""

from pathlib import Path
from typing import Any

import pytest

from tests.sender.projects import write_project
from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender import project as project_files
from vscrapy_magic.sender.options import parse_words
from vscrapy_magic.sender.order import Order, file_order, place, project_order
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import CrawlSpec
from vscrapy_magic.store.placement import Placement
from vscrapy_magic.store.values import Codec


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SCRAPY_SETTINGS_MODULE", raising=False)
    root = write_project(tmp_path / "project")
    monkeypatch.chdir(root)
    return root


def ordered(*words: str) -> Order:
    return project_order(parse_words(["books", "-a", "site=x", *words], "vscrapy crawl"))


def placed(store: Store, order: Order) -> CrawlSpec:
    return place(order, Placement(store), None).spec


def test_a_project_travels_whole_and_without_what_is_made(project: Path) -> None:
    made = {
        ".git/config": "",
        "shop/__pycache__/x.pyc": "",
        ".scrapy/cache": "",
        "venv/pyvenv.cfg": "",
        "venv/lib/x.py": "",
        "tests/test_x.py": "",
        "out/books.csv": "",
        "items.jsonl": "",
    }
    for name in made:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("x")
    bundle = ordered().shipped.bundle
    assert set(bundle.files) == {
        *("scrapy.cfg", "shop/__init__.py", "shop/settings.py", "shop/items.py"),
        *("shop/pipelines.py", "shop/data/sign.txt", "shop/spiders/__init__.py"),
        *("shop/spiders/books.py", "shop/spiders/quotes.py"),
        *("words/__init__.py", "words/loud.py"),
    }
    assert (bundle.project, bundle.entry) == ("shop.settings", "")


def test_a_feed_inside_the_package_does_not_travel(project: Path) -> None:
    (project / "shop" / "out").mkdir()
    (project / "shop" / "out" / "books.csv").write_text("x")
    settings = project / "shop" / "settings.py"
    settings.write_text(settings.read_text().replace('"out/', '"shop/out/'))
    assert "shop/out/books.csv" not in ordered().shipped.bundle.files


def test_too_large_a_project_is_one_error_that_names_the_largest(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project_files, "FILES_BYTES_MAX", 1 << 20)
    (project / "shop" / "big.bin").write_bytes(bytes(2 << 20))
    with pytest.raises(ConfigError, match=r"larger than 1 MB .*shop/big.bin \(2 MB\)"):
        ordered()


def test_modules_from_elsewhere_travel_too(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib" / "afar").mkdir(parents=True)
    (tmp_path / "lib" / "afar" / "__init__.py").write_text("X = 1\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    with (project / "shop" / "items.py").open("a") as file:
        file.write("import afar\n")
    assert ordered().shipped.bundle.files["afar/__init__.py"] == b"X = 1\n"


def test_data_files_and_environment_travel(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "sesame")
    (project / "urls.txt").write_text("u")
    order = ordered("--file", "urls.txt", "--env", "SHOP_TOKEN")
    assert order.shipped.bundle.files["urls.txt"] == b"u"
    assert order.shipped.bundle.env == {"SHOP_TOKEN": "sesame"}
    assert "sesame" not in repr(order)
    with pytest.raises(ConfigError, match="--file nothing: no such file"):
        ordered("--file", "nothing")


def test_limits_count_for_the_whole_crawl_wherever_they_are_set(
    store: Store, project: Path
) -> None:
    assert placed(store, ordered()).limits.items == 1000  # custom_settings
    spec = placed(store, ordered("-s", "CLOSESPIDER_ITEMCOUNT=5", "-s", "CLOSESPIDER_TIMEOUT=1.5"))
    assert (spec.limits.items, spec.limits.timeout_ms) == (5, 1500)
    with pytest.raises(ConfigError, match="CLOSESPIDER_ITEMCOUNT=x: a number is needed"):
        placed(store, ordered("-s", "CLOSESPIDER_ITEMCOUNT=x"))


def test_a_fifo_queue_is_asked_for_by_setting(store: Store, project: Path) -> None:
    assert placed(store, ordered()).lifo
    queue = "SCHEDULER_MEMORY_QUEUE=scrapy.squeues.FifoMemoryQueue"
    assert not placed(store, ordered("-s", queue)).lifo


def test_settings_of_any_plain_type_are_sent(store: Store, project: Path) -> None:
    import msgspec

    values: dict[str, Any] = {"A": 1, "B": [1, "x"], "C": {"y": None}, "D": ("t",)}
    spec = placed(store, msgspec.structs.replace(ordered(), settings=values))
    sent = {name: Codec().decode(bytes(raw)) for name, raw in spec.settings.items()}
    assert sent == values


def test_state_between_callbacks_means_one_worker_unless_told(store: Store, project: Path) -> None:
    path = project / "shop" / "spiders" / "books.py"
    path.write_text(
        path.read_text()
        + "    def login(self, response):\n        self.token = response.text\n"
        + "    def use(self, response):\n        yield {'t': self.token}\n"
    )
    order = ordered()
    assert "token" in order.shipped.pinned
    assert placed(store, order).workers == 1
    assert placed(store, ordered("--workers", "3")).workers == 3


def test_a_file_travels_with_what_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "near.py").write_text("X = 1\n")
    (tmp_path / "a.py").write_text(
        "import scrapy, near\nclass A(scrapy.Spider):\n    name = 'a'\n"
        "class B(scrapy.Spider):\n    name = 'b'\n"
    )
    order = file_order(parse_words(["a.py"], "vscrapy runspider", "spider_file"))
    assert order.spider == "b"  # the last one, as `scrapy runspider`
    assert set(order.shipped.bundle.files) == {"a.py", "near.py"}
    assert order.shipped.bundle.entry == "a.py"
    assert order.feeds is None


def test_a_file_of_a_project_has_the_projects_settings(project: Path) -> None:
    options = parse_words(
        ["shop/spiders/books.py", "-a", "site=x"], "vscrapy runspider", "spider_file"
    )
    bundle = file_order(options).shipped.bundle
    assert bundle.project == "shop.settings"
    assert "words/loud.py" in bundle.files


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothere.py", "nothere.py: No such file or directory"),
        ("god.py", "god.py: No such file or directory; did you mean good.py?"),
        ("good.txt", "good.txt: a spider file ends in .py"),
        ("bad.py", "bad.py, line 1: invalid syntax"),
        ("none.py", "none.py: no spider in it"),
    ],
)
def test_mistakes_in_a_file_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.py").write_text("")
    (tmp_path / "good.txt").write_text("")
    (tmp_path / "bad.py").write_text("def (:\n")
    (tmp_path / "none.py").write_text("import scrapy\n")
    with pytest.raises(ConfigError) as error:
        file_order(parse_words([name], "vscrapy runspider", "spider_file"))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
