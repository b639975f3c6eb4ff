"""Owns which children try new code, which make way for it, and which tried in vain.

Runs in the thread of the desk. A child that tries is not placed: it stands beside the one that
takes part, and takes its place when the code is in force (`store/codes.py`).
"""

import secrets
from collections.abc import Iterable, Mapping
from typing import Final

from vscrapy_magic.store.keys import CrawlId, MemberToken, WorkerName
from vscrapy_magic.worker.plan import Start, Tenant, Wanted

_TOKEN_BYTES: Final = 3


def new_token(worker: WorkerName) -> MemberToken:
    """A token that no child of this worker had before."""
    return MemberToken(f"{worker}.{secrets.token_hex(_TOKEN_BYTES)}")


def trials(tenants: Iterable[Tenant], wanted: Mapping[CrawlId, Wanted]) -> list[Start]:
    """Children that are to be started to try what is offered: one where another takes part."""
    here: dict[tuple[WorkerName, CrawlId], int] = {}
    for tenant in tenants:
        place = (tenant.worker, tenant.crawl_id)
        here[place] = max(here.get(place, 0), tenant.code_version)
    starts = []
    for (worker, crawl_id), newest in here.items():
        each = wanted.get(crawl_id)
        if each is not None and each.crawl.offer_version > newest:
            tenant = Tenant(
                worker, crawl_id, new_token(worker), each.crawl.offer_version, is_trial=True
            )
            starts.append(Start(tenant, each.spec))
    return starts


def outdated(
    tenants: Iterable[Tenant], wanted: Mapping[CrawlId, Wanted]
) -> tuple[set[MemberToken], set[MemberToken]]:
    """Children to leave because newer code is in force, and children that tried in vain."""
    leave: set[MemberToken] = set()
    drop: set[MemberToken] = set()
    for tenant in tenants:
        each = wanted.get(tenant.crawl_id)
        if each is None:
            continue
        version = tenant.code_version
        if (
            tenant.is_trial
            and version > each.crawl.code_version
            and version != each.crawl.offer_version
        ):
            drop.add(tenant.token)
        elif version < each.crawl.code_version:
            leave.add(tenant.token)
    return leave, drop
