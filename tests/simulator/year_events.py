"""What each event of the calendar does to a federation, and what it makes everybody expect.

`happen` looks every event up by its kind; what has to be put right some nights later, such as a
machine that comes back, is left as an errand for that night.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

from aggregator.feed.reading import newest_attempt, read_federation
from aggregator.planning.membership_changes import (
    renewed,
    revoking_silo,
    with_root_keys,
    with_silo,
    with_silo_key,
    without_silo,
)
from aggregator.planning.starting_point import starting_point
from aggregator.upkeep.backup import back_up_coordinator, restore_coordinator
from data_contracts.protocol.bucket_layout import feed_slot
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.trusted_feed import FeedPosition
from flows.federation.coordinator_keys import (
    genuine_until,
    revoke_coordinator_key,
    rotate_coordinator_key,
)
from infra.records.record_store import write_record
from infra.signing_keys import SigningKey, create_key, load_key
from silo_agent.home.backup import back_up_silo, restore_silo
from tests.simulator.silo import SimulatedSilo
from tests.simulator.year import YearFederation
from tests.simulator.year_calendar import Event, Kind
from tests.simulator.year_parts import COORDINATOR, SiloClock

OUTAGE_MINUTES = 7
CONTRACT_RUN = timedelta(days=400)
DAY = timedelta(days=1)
PASSPHRASE = "a passphrase of a year"
KILLED_WITHIN = 12
"""Requests, of which the victim does not survive one that the night decides."""


@dataclass
class YearEvents:
    """The events of a calendar as they happen to one federation."""

    federation: YearFederation
    calendar: tuple[Event, ...]
    _happened: int = 0
    _errands: dict[int, list[Callable[[], None]]] = field(default_factory=dict)
    _copies: set[str] = field(default_factory=set)

    def happen(self, step: int) -> None:
        """Let all that is due before this step of the night happen, once."""
        night = self.federation.night
        for due in sorted(due for due in self._errands if due <= night):
            for errand in self._errands.pop(due):
                errand()
        while self._happened < len(self.calendar):
            event = self.calendar[self._happened]
            if (event.night, event.step) > (night, step):
                return
            self._happened += 1
            self._one(event)

    def _one(self, event: Event) -> None:
        what = {
            Kind.JOIN: self._join,
            Kind.LEAVE: self._leave,
            Kind.VANISH: self._vanish,
            Kind.OFFLINE: self._offline,
            Kind.RENEWAL: self._renewal,
            Kind.LATE_RENEWAL: self._late_renewal,
            Kind.SILO_KEY: self._silo_key,
            Kind.COORDINATOR_KEY: self._coordinator_key,
            Kind.ROOT_KEY: self._root_key,
            Kind.SILO_REVOKED: self._silo_revoked,
            Kind.COORDINATOR_REVOKED: self._coordinator_revoked,
            Kind.SHORT_OUTAGE: self._short_outage,
            Kind.LONG_OUTAGE: self._long_outage,
            Kind.SILO_BACKUP: self._copy,
            Kind.SILO_DISK: self._disk,
            Kind.COORDINATOR_BACKUP: self._copy,
            Kind.COORDINATOR_DISK: self._disk,
            Kind.UPGRADE: self._upgrade,
            Kind.CONTRACT_EXPIRES: self._contract_expires,
            Kind.CONTRACT_AMENDED: self._contract_amended,
            Kind.CLOCK_AHEAD: self._clock,
            Kind.CLOCK_BEHIND: self._clock,
            Kind.AGENT_KILLED: self._killed,
            Kind.COORDINATOR_KILLED: self._killed,
            Kind.NO_QUORUM: self._no_quorum,
        }
        what[event.kind](event)

    def _later(self, event: Event, errand: Callable[[], None]) -> None:
        self._errands.setdefault(event.night + event.nights, []).append(errand)

    # Members

    def _join(self, event: Event) -> None:
        silo = self.federation.add_silo(event.silo)
        self.federation.publish(with_silo(event.silo, silo.key.public_key_hex))

    def _leave(self, event: Event) -> None:
        self.federation.publish(without_silo(event.silo))

    def _vanish(self, event: Event) -> None:
        self.federation.offline[event.silo] = 10**6
        self._later(event, lambda: self.federation.publish(without_silo(event.silo)))

    def _offline(self, event: Event) -> None:
        self.federation.offline[event.silo] = event.night + event.nights

    def _renewal(self, _event: Event) -> None:
        self.federation.publish(renewed())

    def _late_renewal(self, event: Event) -> None:
        """The term that was agreed on ends before anybody thinks of it."""
        ends = self.federation.clock.now() + DAY / 2
        self.federation.publish(lambda current: {"silos": current.silos, "expires_at": ends})
        late = Event(event.night, 0, event.kind, nights=event.nights + 1)
        self._later(late, lambda: self.federation.publish(renewed()))

    # Keys

    def _new_key(self, silo: SimulatedSilo) -> SigningKey:
        number = len(self.federation.memberships)
        silo.key = create_key(silo.home / "keys" / f"signing-key-{number}.pem")
        self.federation.restart(silo.name)
        return silo.key

    def _silo_key(self, event: Event) -> None:
        key = self._new_key(self.federation.silos[event.silo])
        self.federation.publish(with_silo_key(event.silo, key.public_key_hex))

    def _coordinator_key(self, _event: Event) -> None:
        result = rotate_coordinator_key(self.federation.process(), self.federation.root_paths)
        self.federation.took(result)
        self._copy_again()

    def _root_key(self, _event: Event) -> None:
        old = self.federation.root_paths[-1]
        new = old.with_name(f"root-{len(self.federation.memberships)}.pem")
        key = create_key(new)
        self.federation.root_paths.append(new)
        retired = load_key(old).public_key_hex
        self.federation.publish(with_root_keys(add=[key.public_key_hex], remove=[retired]))
        self.federation.root_paths.remove(old)

    def _silo_revoked(self, event: Event) -> None:
        key = self._new_key(self.federation.silos[event.silo])
        self.federation.publish(revoking_silo(event.silo, key.public_key_hex))
        self.federation.sign_contract(event.silo)

    def _coordinator_revoked(self, _event: Event) -> None:
        """The thief plans a round that silos begin to work on, until the operator notices."""
        c = self.federation.process()
        head = c.feed.refresh().head
        if head.number == 0:
            return
        forged = self._forged_plan(self.federation.key, head)
        write_record(self.federation.plans, feed_slot(head.number + 1), forged)
        for _ in range(3):
            self.federation.poll_all()
        genuine = genuine_until(self.federation.process(), head.number)
        result = revoke_coordinator_key(
            self.federation.process(), genuine, self.federation.root_paths
        )
        self.federation.took(result)
        for silo in self.federation.silos:
            self.federation.sign_contract(silo)
        self._copy_again()

    def _forged_plan(self, thief: SigningKey, after: FeedPosition) -> Verified[RoundPlan]:
        c = self.federation.process()
        feed = read_federation(c)
        newest = newest_attempt(c, feed)
        if newest is None:
            raise AssertionError("a feed without a plan")
        now = self.federation.clock.now()
        fields = {
            "round": newest.plan.record.round + 1,
            "attempt": 1,
            "feed_number": after.number + 1,
            "previous_digest": after.digest,
            "membership_number": feed.membership.record.number,
            "membership_digest": feed.membership.digest,
            "issued_at": now,
            "submit_by": now + timedelta(minutes=30),
            "evaluate_by": now + timedelta(minutes=60),
            "expires_at": now + timedelta(minutes=60),
            "starting_adapter": starting_point(c, feed).adapter,
            "earlier_adapter": newest.plan.record.starting_adapter,
        }
        return seal(newest.plan.record.model_copy(update=fields), thief)

    # Storage, disks, machines

    def _short_outage(self, _event: Event) -> None:
        minutes = timedelta(minutes=OUTAGE_MINUTES)
        self.federation.weather.away_until = self.federation.clock.now() + minutes

    def _long_outage(self, _event: Event) -> None:
        self.federation.weather.away_until = self.federation.clock.now() + DAY / 2
        self.federation.expects = "away"

    def _copy(self, event: Event) -> None:
        self._copies.add(event.silo)
        self._back_up(event.silo)

    def _copy_again(self) -> None:
        """A backup without the coordinator's newest key would be none."""
        if "" in self._copies:
            self._back_up("")

    def _backup_of(self, silo: str) -> Path:
        return self.federation.directory / "backups" / f"{silo or COORDINATOR}.backup"

    def _back_up(self, silo: str) -> None:
        file, now = self._backup_of(silo), self.federation.clock.now()
        file.parent.mkdir(exist_ok=True)
        file.unlink(missing_ok=True)
        if silo:
            back_up_silo(self.federation.agent(silo).config, file, now, PASSPHRASE)
        else:
            back_up_coordinator(self.federation.settings, file, now, PASSPHRASE)

    def _disk(self, event: Event) -> None:
        """Everything since the backup is gone; contracts that were signed since are filed again."""
        file, now, whose = self._backup_of(event.silo), self.federation.clock.now(), event.silo
        self.federation.restart(whose or COORDINATOR)
        self.federation.rewound.add(whose or COORDINATOR)
        self._copies.discard(whose)
        if whose:
            home = self.federation.silos[whose].home
            shutil.rmtree(home)
            restore_silo(file, home, now, PASSPHRASE)
            return
        shutil.rmtree(self.federation.settings.home)
        restore_coordinator(file, self.federation.settings.home, now, PASSPHRASE)
        for silo in self.federation.silos:
            self.federation.file_contract_again(silo)

    def _upgrade(self, event: Event) -> None:
        """A fifth of the silos each night, the coordinator in the middle."""
        names = list(self.federation.silos)
        for night in range(event.nights):
            these = names[night :: event.nights] + ([COORDINATOR] if night == 2 else [])
            at = Event(event.night, 0, event.kind, nights=night)
            self._later(at, partial(self._restart_all, tuple(these)))

    def _restart_all(self, these: tuple[str, ...]) -> None:
        for whose in these:
            self.federation.restart(whose)

    def _clock(self, event: Event) -> None:
        clock = self.federation.silos[event.silo].clock
        if not isinstance(clock, SiloClock):
            raise TypeError("a silo without a clock of its own")
        clock.wrong_by = DAY if event.kind is Kind.CLOCK_AHEAD else -DAY
        self._later(event, lambda: self._set_clock(event.silo, clock))

    def _set_clock(self, silo: str, clock: SiloClock) -> None:
        clock.wrong_by = timedelta(0)
        self.federation.rewound.add(silo)

    def _killed(self, event: Event) -> None:
        after = (event.night + event.step) % KILLED_WITHIN
        self.federation.weather.kill(event.silo or COORDINATOR, after)

    def _no_quorum(self, event: Event) -> None:
        federation = self.federation
        for name in list(federation.silos)[1:]:
            federation.offline[name] = max(federation.offline.get(name, -1), event.night)
        federation.expects = "aborted"

    # Contracts

    def _contract_expires(self, event: Event) -> None:
        """It was signed for a short time; nobody signs the next one for some nights more."""
        contract = self.federation.silos[event.silo].contract
        contract.expires_at = self.federation.clock.now() + DAY
        self.federation.sign_contract(event.silo)
        later = Event(event.night, 0, event.kind, nights=event.nights + 1)
        self._later(later, lambda: self._renew_contract(event.silo))

    def _renew_contract(self, silo: str) -> None:
        self.federation.silos[silo].contract.expires_at = self.federation.clock.now() + CONTRACT_RUN
        self.federation.sign_contract(silo)

    def _contract_amended(self, event: Event) -> None:
        contract = self.federation.silos[event.silo].contract
        contract.data += b"\namended"
        contract.attested = frozenset()
        self.federation.sign_contract(event.silo)
