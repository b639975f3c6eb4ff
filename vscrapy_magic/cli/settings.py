"""Owns `vscrapy config`: the default Redis of this user, shown and set."""

import os
import sys
from collections.abc import Sequence

from vscrapy_magic import config as user_config
from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.options import OptionParser


def config(words: Sequence[str]) -> int:
    """Show or set where crawls are run by default."""
    parse = OptionParser(
        "vscrapy config",
        description="Show or set this user's default Redis. Without one, a local cluster is used.",
        epilog="example: vscrapy config --redis redis://:password@host:6379",
    )
    parse.add_argument("--redis", metavar="URL", default="", help="use this one from now on")
    parse.add_argument("--unset", action="store_true", help="use the local cluster from now on")
    options = parse.parse_all(words)
    if options.redis and options.unset:
        raise ConfigError("config: --redis URL or --unset, not both")
    if options.redis:
        user_config.save_redis_url(options.redis)
    elif options.unset:
        user_config.save_redis_url(None)
    _show()
    return 0


def _show() -> None:
    path, url = user_config.config_path(), user_config.redis_url()
    variable = os.environ.get(user_config.URL_VARIABLE, "").strip()
    where = user_config.redact(url) if url else "the local cluster"
    source = user_config.URL_VARIABLE if variable else str(path) if url else "nothing configured"
    sys.stdout.write(f"redis: {where} ({source})\n")
    sys.stdout.write(f"file:  {path}{'' if path.exists() else ' (not there)'}\n")
