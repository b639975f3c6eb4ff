"""Owns `vscrapy config`: this user's default Redis, and the defaults that a Redis itself keeps."""

import argparse
import os
import sys
from collections.abc import Sequence

from vscrapy_magic import config as user_config
from vscrapy_magic.cli.target import address, need, open_store
from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.options import OptionParser, pairs
from vscrapy_magic.store.shared import NAMES, Defaults, Shared, parse_shared


def config(words: Sequence[str]) -> int:
    """Show or set where crawls are run by default, and what all senders and workers share."""
    parse = OptionParser(
        "vscrapy config",
        description="Show or set this user's default Redis. Without one, a local cluster is used.",
        epilog="example: vscrapy config --redis redis://:password@host:6379\n"
        f"defaults that can be shared: {', '.join(NAMES)}",
    )
    parse.add_argument("--redis", metavar="URL", default="", help="use this one from now on")
    parse.add_argument("--unset", action="store_true", help="use the local cluster from now on")
    parse.add_argument(
        "--shared",
        metavar="NAME=VALUE",
        nargs="?",
        const="",
        action="append",
        help="keep a default in Redis for all senders and workers; NAME= takes it back, "
        "and --shared alone shows all",
    )
    options = parse.parse_all(words)
    if options.redis and options.unset:
        raise ConfigError("config: --redis URL or --unset, not both")
    shared = pairs([word for word in options.shared or () if word], "--shared")
    parse_shared(shared)  # a mistake leaves everything as it was
    if options.redis:
        user_config.save_redis_url(options.redis)
    elif options.unset:
        user_config.save_redis_url(None)
    if options.shared is None or options.redis or options.unset:
        _show()
    if options.shared is not None:
        _share(options, shared)
    return 0


def _share(options: argparse.Namespace, values: dict[str, str]) -> None:
    """Set shared defaults, and show all."""
    with open_store(options) as opened:
        store = need(opened)
        defaults = Shared(store)
        if values:
            defaults.set(values)
        changed = defaults.changed()
        sys.stdout.write(f"shared by all senders and workers of {address(store)}:\n")
        for name in NAMES:
            value = changed.get(name, getattr(Defaults(), name))
            sys.stdout.write(f"  {name} = {value:.16g}{'' if name in changed else ' (default)'}\n")


def _show() -> None:
    path, url = user_config.config_path(), user_config.redis_url()
    variable = os.environ.get(user_config.URL_VARIABLE, "").strip()
    where = user_config.redact(url) if url else "the local cluster"
    source = user_config.URL_VARIABLE if variable else str(path) if url else "nothing configured"
    sys.stdout.write(f"redis: {where} ({source})\n")
    sys.stdout.write(f"file:  {path}{'' if path.exists() else ' (not there)'}\n")
