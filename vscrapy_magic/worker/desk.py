"""Owns what the workers of one process say to the store and learn from it, in a thread of its own.

The supervisor's loop hands it jobs and never waits: while the store is away, children are still
listened to and stopped in time. There is at most one look and one sending of lines under way.
"""

import contextlib
import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from vscrapy_magic.errors import CrawlNotFoundError, StateError, StoreError, StoreReadOnlyError
from vscrapy_magic.failpoints import fail_point
from vscrapy_magic.store.codes import Codes
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.control import Control
from vscrapy_magic.store.crawls import STOPPED_BY_USER, Crawls, Mover
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import CrawlId, MemberToken, WorkerName
from vscrapy_magic.store.logs import LINES_PER_BATCH, Logs
from vscrapy_magic.store.messages import CrawlSpec, CrawlState
from vscrapy_magic.store.presence import Beat, LiveCrawl, Liveness, Presence
from vscrapy_magic.store.views import FINAL_STATES
from vscrapy_magic.worker.output import Output
from vscrapy_magic.worker.parcel import Parcel
from vscrapy_magic.worker.placing import Placing
from vscrapy_magic.worker.plan import Burial, Plan, Roster, Start, Tenant, Wanted
from vscrapy_magic.worker.trying import outdated, trials

logger = logging.getLogger(__name__)

BATCHES_AT_ONCE: Final = 10  # stream entries in one round trip
BURIAL_KEPT_S: Final = 60.0  # for a store that is away: later the leases have gone back anyway
SETTINGS_S: Final = 10.0  # between two looks for settings of our workers, when nobody wakes us
SOURCES_S: Final = 3600.0  # between two renewals of the source of crawls; it is kept for two days
JUDGE_AFTER_MS: Final = 500  # since anybody judged a crawl in which we have no child
_END_S: Final = 6.0  # longer than one answer of the store may take


class Desk:
    """The store as the supervisor's loop sees it; public methods are for the loop.

    Args:
        poke: called in the thread when a job is done.

    Attributes:
        looking: whether a plan is still to come.
        sending: whether lines are on their way.
        burying: children whose end has not been told to the store yet, or whose files are on their
            way.
    """

    def __init__(self, store: Store, poke: Callable[[], None]) -> None:
        self._store = store
        self._poke = poke
        self._presence = Presence(store)
        self._crawls = Crawls(store)
        self._codes = Codes(store)
        self._logs = Logs(store)
        self._placing = Placing(store)
        self._controls: dict[CrawlId, int] = {}
        self._specs: dict[CrawlId, CrawlSpec] = {}  # of live crawls; they never change
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._plans: queue.SimpleQueue[Plan] = queue.SimpleQueue()
        self._burials: list[Burial] = []
        self._parcels: list[Parcel] = []
        self._is_carrying = False
        self._control = Control(store)
        self._settings_at = 0.0
        self._sources_at = time.monotonic() + SETTINGS_S  # not while the first child is awaited
        self._away_since: float | None = None
        self._answered = time.monotonic()
        self.looking = False
        self.sending = False
        self.burying = 0
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    # For the loop.

    def look(self, roster: Roster) -> None:
        """Ask for a plan; `plan` returns it some time after."""
        self.looking = True
        self._jobs.put(lambda: self._answer(roster))

    def plan(self) -> Plan | None:
        """The plan that was asked for, once it is there."""
        try:
            plan = self._plans.get_nowait()
        except queue.Empty:
            return None
        self.looking = False
        return plan

    def send(self, outputs: Iterable[Output]) -> None:
        """Send the lines that wait, unless the store takes none: then after the next good look."""
        waiting = [output for output in outputs if output.waiting]
        if waiting and self._away_since is None:
            self.sending = True
            self._jobs.put(lambda: self._send_all(waiting))

    def bury(self, burial: Burial) -> None:
        """Send the last lines of a child, and give its leases back."""
        self.burying += 1
        self._jobs.put(lambda: self._bury_all(burial))

    def close(self, names: Iterable[WorkerName]) -> None:
        """Take the workers from the list and end the thread; waits for one answer at most."""
        self._jobs.put(lambda: self._presence.remove_worker(*names))
        self._jobs.put(None)
        self._thread.join(_END_S)

    # In the thread.

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except StoreError as exc:
                self._is_away(exc)
            except Exception:
                logger.exception("A job with the store failed")
            self._poke()

    def _is_away(self, exc: StoreError) -> None:
        if self._away_since is None:
            self._away_since = self._answered
            logger.warning("%s; trying again each second", exc)

    def _is_there(self) -> None:
        if self._away_since is not None:
            self._store.check_writes()  # a full server takes beats, and nothing else
            away_s, self._away_since = time.monotonic() - self._away_since, None
            logger.info("The server at %s answers again, after %.0f s", self._store.address, away_s)
        self._answered = time.monotonic()

    def _answer(self, roster: Roster) -> None:
        plan = Plan(known=False)
        try:
            try:
                self._bury_all()
            except StoreReadOnlyError as exc:
                self._is_away(exc)
            plan = self._look(roster)
            self._is_there()
            self._carry()
        finally:
            self._plans.put(plan)

    def _look(self, roster: Roster) -> Plan:
        """One comparison of what should run with what runs."""
        slots = self._changed_slots(roster)
        records = tuple(
            msgspec.structs.replace(record, slots=slots.get(record.name, record.slots))
            for record in roster.records
        )
        roster = msgspec.structs.replace(roster, records=records)
        beat = self._presence.beat_worker(*roster.records)
        wanted = self._wanted(beat)
        self._keep_sources(wanted)
        held: dict[CrawlId, list[Tenant]] = {}
        for tenant in roster.tenants:
            held.setdefault(tenant.crawl_id, []).append(tenant)
        changed = {c for c, each in wanted.items() if self._renew(each.crawl, held.get(c, []))}
        self._controls = {c: number for c, number in self._controls.items() if c in wanted}
        over = held.keys() - wanted.keys()
        killed = {crawl_id for crawl_id in over if not self._may_close(crawl_id)}
        stopping = {c for c in held.keys() & wanted.keys() if _is_stopping(wanted[c].crawl)}
        starts: list[Start] = []
        leave: set[MemberToken] = set()
        older, dropped = outdated(roster.tenants, wanted)
        try:
            starts, leave = self._placing.place(roster, wanted)
        except (
            StoreReadOnlyError
        ) as exc:  # nobody begins there; what has ended is seen all the same
            self._is_away(exc)
        return Plan(
            starts=(*starts, *(trials(roster.tenants, wanted) if roster.taking else ())),
            stop=frozenset((over - killed) | stopping),
            kill=frozenset(killed),
            leave=frozenset(leave | older),
            drop=frozenset(dropped),
            changed=frozenset(changed),
            slots=slots,
            busy=bool(held or starts or roster.resting)
            or any(each.crawl.at_risk for each in wanted.values()),
        )

    def _changed_slots(self, roster: Roster) -> dict[WorkerName, int]:
        """Slots that a user has given to our workers; asked when woken, and now and then."""
        now = time.monotonic()
        if not roster.woken and now < self._settings_at:
            return {}
        self._settings_at = now + SETTINGS_S
        found = self._control.workers_settings([record.name for record in roster.records])
        return {name: values["slots"] for name, values in found.items() if "slots" in values}

    def _wanted(self, beat: Beat) -> dict[CrawlId, Wanted]:
        """Crawls that are not over, oldest first; what has to end or to go does so here."""
        live = {crawl.crawl_id: crawl for crawl in beat.crawls}
        self._specs = {c: spec for c, spec in self._specs.items() if c in live}
        new = [c for c, crawl in live.items() if crawl.state is not None and c not in self._specs]
        if new:
            self._specs |= self._crawls.specs(new)
        wanted: dict[CrawlId, Wanted] = {}
        for crawl_id, crawl in live.items():
            spec = self._specs.get(crawl_id)
            if spec is None or crawl.state is None or crawl.state in FINAL_STATES:
                self._crawls.sweep(crawl_id)
            elif crawl.session in beat.gone_sessions:
                why = beat.gone_sessions[crawl.session]
                self._crawls.cancel(crawl_id, Mover.WORKER, why=why)
            else:
                wanted[crawl_id] = Wanted(crawl, spec)
        return wanted

    def _keep_sources(self, wanted: Mapping[CrawlId, Wanted]) -> None:
        """A crawl may go on for longer than its source is kept, and a worker join it then."""
        now = time.monotonic()
        if wanted and now >= self._sources_at:
            self._sources_at = now + SOURCES_S
            self._codes.keep_sources(each.spec for each in wanted.values())

    def _renew(self, crawl: LiveCrawl, tenants: list[Tenant]) -> bool:
        """Keep our children members, and judge the others; whether settings changed.

        A crawl without a child of ours is judged by those that have one: with two hundred workers
        that stand by it would be judged two hundred times a second. Only when nobody does, we do.
        """
        if tenants:
            fail_point("supervisor_before_renew")
        elif crawl.judged_ms < JUDGE_AFTER_MS and not crawl.at_risk:
            return False
        tokens = [tenant.token for tenant in tenants]
        claims = [tenant.token for tenant in tenants if tenant.starts]
        try:
            control = Frontier(self._store, crawl.crawl_id).renew(tokens, claims=claims).control
        except CrawlNotFoundError:
            logger.info("Crawl %s is past its retention", crawl.crawl_id)
            return False
        before = self._controls.get(crawl.crawl_id, control)
        self._controls[crawl.crawl_id] = control
        return before != control

    def _may_close(self, crawl_id: CrawlId) -> bool:
        """Whether children of a crawl that is over may end by themselves."""
        try:
            view = self._crawls.view(crawl_id, named=False)
        except CrawlNotFoundError:
            return False
        return view.state is CrawlState.FINISHED or view.close_reason == STOPPED_BY_USER

    def _send_all(self, outputs: Iterable[Output]) -> None:
        try:
            for output in outputs:
                self._send(output)
        finally:
            self.sending = False

    def _send(self, output: Output) -> None:
        lines = output.take()
        sent, at_once = 0, BATCHES_AT_ONCE * LINES_PER_BATCH
        fail_point("supervisor_before_lines")
        try:
            while sent < len(lines):
                self._logs.append(output.crawl_id, lines[sent : sent + at_once])
                sent += at_once
        except StoreError:
            output.keep(lines[sent:])
            raise

    def _bury_all(self, *more: Burial) -> None:
        """Bury in order; those that the store did not hear of wait for the next look."""
        self._burials += more
        while self._burials:
            burial = self._burials[0]
            try:
                self._bury(burial)
            except StoreError as exc:
                if isinstance(exc, CrawlNotFoundError | StateError):
                    logger.info("%s", exc)
                elif time.monotonic() - burial.died < BURIAL_KEPT_S:
                    raise
                else:
                    self._has_dropped(burial, exc)
                if burial.folder is not None:
                    shutil.rmtree(burial.folder, ignore_errors=True)
                self.burying -= 1
            del self._burials[0]

    def _bury(self, burial: Burial) -> None:
        crawl_id, token = burial.tenant.crawl_id, burial.tenant.token
        fail_point("supervisor_before_bury")
        if burial.trial_failed:
            self._tell_trial(burial)
        parcel = None
        if burial.folder is not None:
            parcel = Parcel(self._store, burial, burial.folder)
        if parcel is not None and not parcel.is_empty:
            parcel.announce()
        frontier = Frontier(self._store, crawl_id)
        buried = frontier.reclaim(
            token,
            suspects=burial.suspects,
            clear=burial.clear,
            failure=_death_packet(frontier, burial),
        )
        if buried:
            text = "a request is given up: the process died of it three times"
            burial.output.own(logging.ERROR, text)
        not_here = burial.unfit
        if burial.fatal and self._runs_elsewhere(crawl_id):
            not_here = f"it cannot run on worker {burial.tenant.worker}: {burial.fatal}"
            burial.output.own(logging.WARNING, f"the crawl goes on without this worker: {not_here}")
        self._send(burial.output)
        if not_here:
            self._refuse(burial, not_here)
        elif burial.fatal:
            self._crawls.finish_failed(crawl_id, burial.fatal)
        elif self._crawls.view(crawl_id, named=False).state in FINAL_STATES:
            self._crawls.sweep(crawl_id)
        if parcel is None or parcel.is_empty:
            if parcel is not None:
                parcel.drop()
            self.burying -= 1
        else:
            self._parcels.append(parcel)
            self._carry()

    def _tell_trial(self, burial: Burial) -> None:
        """Say that new code cannot be run here; a child that could has said so itself."""
        tenant = burial.tenant
        with contextlib.suppress(StateError):
            self._codes.cannot(
                tenant.crawl_id, tenant.code_version, tenant.worker, burial.trial_failed
            )

    def _runs_elsewhere(self, crawl_id: CrawlId) -> bool:
        """Whether another child has come further: then what failed is a matter of this machine."""
        view = self._crawls.view(crawl_id, named=False)
        return bool(view.members or view.totals.pages)

    def _refuse(self, burial: Burial, why: str) -> None:
        """Leave a crawl to workers that can run it; when there is none it has failed."""
        self._placing.refuse(burial.tenant)
        crawl_id, worker = burial.tenant.crawl_id, burial.tenant.worker
        refused = self._crawls.refuse(crawl_id, worker, why)
        view = self._crawls.view(crawl_id)
        others = {
            each.record.name
            for each in self._presence.workers()
            if each.liveness is not Liveness.GONE and view.spec.env in {"", each.record.env}
        }
        if not view.members and others <= refused:
            more = f" (none of the {len(refused)} workers can run it)" if len(refused) > 1 else ""
            self._crawls.finish_failed(crawl_id, f"{why}{more}")

    def _has_dropped(self, burial: Burial, exc: StoreError) -> None:
        logger.warning(
            "Crawl %s: the last lines and files of a child are not kept: the store took none for "
            "%.0f s (%s)",
            burial.tenant.crawl_id,
            BURIAL_KEPT_S,
            exc,
        )

    def _carry(self) -> None:
        """Let the next piece of the files that wait be sent; other jobs come between two."""
        if self._parcels and not self._is_carrying:
            self._is_carrying = True
            self._jobs.put(self._carry_one)

    def _carry_one(self) -> None:
        self._is_carrying = False  # a store that is away is tried again with the next look
        parcel = self._parcels[0]
        try:
            is_done = parcel.step()
        except CrawlNotFoundError:
            is_done = True
        except StoreError as exc:
            if time.monotonic() - parcel.burial.died < BURIAL_KEPT_S:
                raise
            self._has_dropped(parcel.burial, exc)
            is_done = True
        if is_done:
            parcel.drop()
            del self._parcels[0]
            self.burying -= 1
        self._carry()
        if is_done:
            self._send(parcel.burial.output)


def _death_packet(frontier: Frontier, burial: Burial) -> bytes:
    """The failure that a death is, packed as a child packs failures; empty for none."""
    if burial.death is None:
        return b""
    payload, attempt = b"", 1
    if len(burial.suspects) == 1:
        payload, attempt = frontier.held(burial.tenant.token, burial.suspects[0])
    try:
        record = burial.death.record(payload, attempt, len(burial.suspects))
    except Exception:  # whatever a request of another version holds, its lease must go back
        logger.exception("What a child died of could not be told")
        return b""
    return msgspec.msgpack.encode([record])


def _is_stopping(crawl: LiveCrawl) -> bool:
    """Whether a user waits for the end; one that limits of the spider brought may take its time."""
    return crawl.state in {CrawlState.STOPPING, CrawlState.CLOSING} and (
        crawl.close_reason == STOPPED_BY_USER
    )
