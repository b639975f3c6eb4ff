"""Owns the one tree of errors; every process uses it.

Every message says what happened, to which id, and what to do next: most of them are read at
midnight.
"""


class VscrapyError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(VscrapyError):
    """An option, an environment variable or the configuration file cannot be used."""


class InternalError(VscrapyError):
    """A bug of this package in a child: its crawl ends as failed instead of standing still."""


class PatchRefusedError(VscrapyError):
    """New code for a running crawl cannot be loaded on a worker: the old code goes on."""


class StoreError(VscrapyError):
    """Redis (or Valkey) did not do what was asked; the base of all that comes from that side."""


class StoreUnreachableError(StoreError):
    """Nothing answers at the address, or the connection broke: retry, or check the address."""


class StoreAuthError(StoreError):
    """The server answers but refuses the user or the password."""


class StoreTooOldError(StoreError):
    """The server is older than Redis 6.2, which the scripts need."""


class StoreReadOnlyError(StoreError):
    """The server refuses writes: a replica, a full memory or a failed append-only file."""


class ServerStartError(StoreError):
    """The embedded Valkey could not be started."""


class CrawlNotFoundError(StoreError):
    """No crawl of this id on this Redis: never there, or past its retention."""


class StateError(StoreError):
    """A crawl cannot go from its present state to the one that was asked for."""


class MemberGoneError(StoreError):
    """This child is no longer a member of its crawl: its leases went to others.

    What it still holds must be thrown away; the child ends and may be started again.
    """


class NotCollectorError(StoreError):
    """Another session collects this crawl, or nobody: nothing was acknowledged."""


class LeaseLostError(StoreError):
    """Leases named in a step are no longer this child's; nothing of that step was written.

    Attributes:
        lease_ids: the lost leases; send the step again without what they produced.
    """

    def __init__(self, message: str, lease_ids: frozenset[int]) -> None:
        super().__init__(message)
        self.lease_ids = lease_ids


class StoreRolledBackError(StoreError):
    """The server came back without commits that it had acknowledged; the crawl is not exact."""


class ProtocolError(StoreError):
    """A message of a version that this program does not read: update the older side."""
