"""Owns what this user has configured: where Redis is, and where private files go; any process.

The address comes from `VSCRAPY_REDIS_URL`, then from the configuration file, else there is none and
the local cluster is meant. An address may hold a password: whatever shows one goes through
`redact`.
"""

import difflib
import os
import stat
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

import platformdirs

from vscrapy_magic.errors import ConfigError

URL_VARIABLE: Final = "VSCRAPY_REDIS_URL"
_URL_KEY: Final = "redis_url"
_SCHEMES: Final = ("redis", "rediss", "unix")
_SECRET_OPTIONS: Final = frozenset({"username", "password"})
_TLS_OPTIONS: Final = frozenset(
    {"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs"}
    | {"ssl_check_hostname"}
)
_FILE_OPTIONS: Final = _TLS_OPTIONS - {"ssl_cert_reqs", "ssl_check_hostname"}
_OPTIONS: Final = frozenset({"db"}) | _SECRET_OPTIONS | _TLS_OPTIONS
_LONGEST_S: Final = 30 * 24 * 3600.0  # of times that are settings
_RUNTIME_PATH_BYTES: Final = 60  # longer, and names of sockets in it would not fit their 104 bytes


def redis_url() -> str | None:
    """The address that this user has configured, checked; None means the local cluster.

    Raises:
        ConfigError: the address or the file cannot be used.
    """
    if url := os.environ.get(URL_VARIABLE, "").strip():
        return check_url(url, source=URL_VARIABLE)
    path = config_path()
    url = _read_url(path)
    return check_url(url, source=str(path)) if url else None


def check_platform(platform: str = sys.platform) -> None:
    """See that this is a system that we run on.

    Raises:
        ConfigError: it is Windows.
    """
    if platform in {"win32", "cygwin"}:
        raise ConfigError(
            "vscrapy runs on Linux and macOS; on Windows use it inside WSL "
            "(`wsl --install`, then install it there)"
        )


def config_path() -> Path:
    """Where the configuration file is, or would be."""
    return Path(platformdirs.user_config_dir("vscrapy", appauthor=False)) / "config.toml"


def save_redis_url(url: str | None) -> Path:
    """Make `url` this user's default; None goes back to the local cluster.

    The file is replaced as a whole and readable by its owner only.

    Returns:
        The file that was written.

    Raises:
        ConfigError: the address cannot be used, or the file cannot be written.
    """
    path = config_path()
    line = f"{_URL_KEY} = '{check_url(url)}'\n" if url else ""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)  # 0600 from birth
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(line)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written: {exc.strerror}") from exc
    return path


def _read_url(path: Path) -> str:
    """The address in the file; empty when there is no file, or none in it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            table = tomllib.load(file)
    except FileNotFoundError:
        return ""
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        # Such a message may quote the line, and the line may hold a password.
        raise ConfigError(f"{path} is not TOML; it should be: {_URL_KEY} = 'redis://...'") from exc
    for key in table.keys() - {_URL_KEY}:
        near = difflib.get_close_matches(key, [_URL_KEY], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{path}: unknown name {key!r}{hint}")
    url = table.get(_URL_KEY, "")
    if not isinstance(url, str):
        raise ConfigError(f"{path}: {_URL_KEY} should be a string")
    if mode & (stat.S_IRWXG | stat.S_IRWXO) and _has_secret(url):
        raise ConfigError(f"{path} holds a password and others may read it: run chmod 600 {path}")
    return url.strip()


def check_url(url: str, *, source: str = "") -> str:
    """The same address, when it is one that can be used.

    Args:
        source: where the address came from, for the message.

    Raises:
        ConfigError: it is not; the message never holds a user or a password.
    """
    if problem := _problem(url):
        where = f"{source}: " if source else ""
        raise ConfigError(f"{where}{redact(url)!r} is no address of a Redis: {problem}")
    return url


def _problem(url: str) -> str:
    """What is wrong with an address, in words without its user and password; empty for nothing."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        return "it should begin with redis://, rediss:// (TLS) or unix:///"
    if not url.isprintable() or set(url) & set("' \\"):
        return "spaces, quotes, backslashes and control characters must be percent-encoded"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return (
            "host or port cannot be read; percent-encode such characters as / # ? @ in a password"
        )
    if parts.fragment or "@" in (parts.query if scheme == "unix" else parts.path + parts.query):
        return "percent-encode such characters as / # ? @ in a password"
    if scheme == "unix":
        if not parts.path or parts.hostname:
            return "it should be unix:///path/of/the/socket"
    elif not parts.hostname:
        return "it names no host"
    elif parts.path.strip("/") and not parts.path.strip("/").isdigit():
        return "after the host only the number of a database may follow"
    unknown = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} - _OPTIONS
    if unknown:
        return f"unknown option; known are {', '.join(sorted(_OPTIONS))}"
    return _file_problem(parts.query)


def _file_problem(query: str) -> str:
    """What is wrong with the files of TLS that an address names; empty for nothing.

    Workers and helpers read them too, each from a folder of its own.
    """
    for name, text in parse_qsl(query):
        if name not in _FILE_OPTIONS:
            continue
        if not Path(text).is_absolute():
            return f"{name} should be an absolute path"
        if not Path(text).exists():
            return f"{name} names {text}, which is not there"
    return ""


def redact(url: str) -> str:
    """The address as it may be shown: without user, password and options, whatever it is.

    Takes malformed addresses too: all up to the last `@` goes, for a password may hold any sign.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    path_only = scheme == "unix" and rest.startswith("/")
    if not path_only:
        rest = rest.rpartition("@")[2]
    rest, _, query = rest.partition("?")
    database = [value for name, value in parse_qsl(query) if name == "db" and value.isdigit()]
    shown = f"{scheme}{separator}{rest.partition('#')[0]}"
    return f"{shown}?db={database[0]}" if database else shown


def setting_ms(variable: str, default_ms: int) -> int:
    """A time that an environment variable gives in seconds.

    Raises:
        ConfigError: it is no time.
    """
    text = os.environ.get(variable, "").strip()
    if not text:
        return default_ms
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < _LONGEST_S:
        raise ConfigError(f"{variable}={text}: a number of seconds is needed")
    return round(1000 * seconds)


def socket_path(url: str) -> Path | None:
    """The path of a unix:// address; None for others."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "unix" else None


def _has_secret(url: str) -> bool:
    rest = url.partition("://")[2] or url
    query = rest.partition("?")[2]
    names = {name for name, _ in parse_qsl(query, keep_blank_values=True)}
    return "@" in rest or bool(names & _SECRET_OPTIONS)


def runtime_dir() -> Path:
    """This user's folder for sockets: 0700, with a short path, made when missing.

    Raises:
        ConfigError: there is something else in its place, or it belongs to somebody else.
    """
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if given and len(os.fsencode(given)) < _RUNTIME_PATH_BYTES and _is_private(Path(given)):
        return private_dir(Path(given) / "vscrapy")
    # Not tempfile.gettempdir(): on macOS that path is too long for sockets.
    return private_dir(Path(f"/tmp/vscrapy-{os.geteuid()}"))  # noqa: S108 - owner is checked


def private_dir(path: Path) -> Path:
    """The folder, made 0700 when missing, and certain to be this user's alone.

    Raises:
        ConfigError: it is not; the message says what to do.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"the folder {path} cannot be made: {exc.strerror}") from exc
    if not _is_private(path):
        raise ConfigError(
            f"{path} should be a folder that only you may enter: remove it, or run chmod 700 {path}"
        )
    return path


def _is_private(path: Path) -> bool:
    """Whether this is a folder (no link) of this user that nobody else may enter."""
    try:
        facts = path.lstat()
    except OSError:
        return False
    others = facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid() and not others
