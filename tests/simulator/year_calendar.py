"""What happens to a federation in a year: a pure function from a seed to dated events.

The calendar is all that a seed decides about the year, so a failing one is told by its number and
can be read before it is run again. Every kind of event comes in every year; the seed says when, to
whom, for how long and at which moment of the night.
"""

from dataclasses import dataclass
from enum import Enum
from random import Random

NIGHTS = 365
FOUNDERS = tuple(f"silo-{letter}" for letter in "abcdefghijkl")
NEWCOMERS = ("silo-m", "silo-n", "silo-o")
FIRST_NIGHT, LAST_NIGHT = 12, 350
"""Nights of which anything may happen; before and after them the year is quiet."""
TERM_NIGHTS = 120
"""How long each membership lasts; three renewals are due in a year."""


class Kind(Enum):
    """What happens, in the words of whom it happens to."""

    JOIN = "a silo joins"
    LEAVE = "a silo leaves, as planned"
    VANISH = "a silo is gone; the operator removes it days later"
    OFFLINE = "a silo's machine is off for weeks, and comes back"
    RENEWAL = "the membership is renewed in time"
    LATE_RENEWAL = "the membership expires, and is renewed days later"
    SILO_KEY = "a silo has a new key"
    COORDINATOR_KEY = "the coordinator has a new key"
    ROOT_KEY = "a root key is replaced by another"
    SILO_REVOKED = "a silo's key is stolen and revoked"
    COORDINATOR_REVOKED = "the coordinator's key is stolen, used by the thief and revoked"
    SHORT_OUTAGE = "storage is away for minutes"
    LONG_OUTAGE = "storage is away for the whole night"
    SILO_BACKUP = "a silo's home is copied"
    SILO_DISK = "a silo's disk is lost, and the copy put back"
    COORDINATOR_BACKUP = "the coordinator's home is copied"
    COORDINATOR_DISK = "the coordinator's disk is lost, and the copy put back"
    UPGRADE = "agents and coordinator are restarted, one after another over days"
    CONTRACT_EXPIRES = "a data contract runs out, and is renewed days later"
    CONTRACT_AMENDED = "a data contract has other terms, which both sides sign"
    CLOCK_AHEAD = "a silo's clock is a day ahead, for a day"
    CLOCK_BEHIND = "a silo's clock is a day behind, for a day"
    AGENT_KILLED = "an agent is killed in mid-round"
    COORDINATOR_KILLED = "the coordinator is killed in mid-round"
    NO_QUORUM = "so few machines are on that a round misses its quorum"


@dataclass(frozen=True, order=True)
class Event:
    """Night 0 is the first. `step` is the step of the night before which it happens, 0 before the
    round is opened; `nights` is how long it lasts, where it does."""

    night: int
    step: int
    kind: Kind
    silo: str = ""
    nights: int = 0

    def __str__(self) -> str:
        """A line of the list that a failing year prints."""
        lasting = f" ({self.nights} nights)" if self.nights else ""
        whose = f" {self.silo}:" if self.silo else ""
        return f"night {self.night:3d} step {self.step}:{whose} {self.kind.value}{lasting}"


def calendar_of(seed: int) -> tuple[Event, ...]:
    """The year's events, in the order in which they happen."""
    draw = _Draw(Random(seed))
    events = [
        *draw.renewals(),
        *draw.members(),
        *draw.keys(),
        *draw.storage(),
        *draw.disks(),
        *draw.contracts(),
        *draw.machines(),
    ]
    return tuple(sorted(events, key=lambda event: (event.night, event.step, event.kind.value)))


def nights_to_play(calendar: tuple[Event, ...], stride: int) -> frozenset[int]:
    """All nights on which something happens or ends, and every `stride`-th other."""
    busy = {night for event in calendar for night in _moments(event)}
    return frozenset(busy | set(range(0, NIGHTS, stride))) & frozenset(range(NIGHTS))


def _moments(event: Event) -> set[int]:
    """What lasts for some nights is looked at in all of them and the next one, what lasts for weeks
    at both ends."""
    last = event.night + event.nights
    if 0 < event.nights <= 3:
        return set(range(event.night, last + 2))
    return {event.night, last} | ({last + 1} if event.kind is Kind.LONG_OUTAGE else set())


class _Draw:
    """Draws one year. Each silo has a trouble of its own, so that none hides another's."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._silos = list(FOUNDERS)
        random.shuffle(self._silos)
        nights = list(range(FIRST_NIGHT, LAST_NIGHT))
        random.shuffle(nights)
        self._nights = iter(nights)

    def renewals(self) -> list[Event]:
        """The second or third of three is late."""
        late = self._random.choice((1, 2))
        found = []
        for number in range(3):
            due = TERM_NIGHTS * (number + 1) - 20 * (number + 1)
            kind = Kind.LATE_RENEWAL if number == late else Kind.RENEWAL
            nights = self._random.randint(1, 3) if number == late else 0
            found.append(Event(due, 0, kind, nights=nights))
        return found

    def members(self) -> list[Event]:
        """Three newcomers; one leaves as planned, one vanishes, one is away for weeks."""
        joins = [self._event(Kind.JOIN, silo) for silo in NEWCOMERS]
        leaves = [self._event(Kind.LEAVE, self._silo())]
        gone = [self._event(Kind.VANISH, self._silo(), self._random.randint(3, 10))]
        away = [self._event(Kind.OFFLINE, self._silo(), self._random.randint(14, 40))]
        return joins + leaves + gone + away

    def keys(self) -> list[Event]:
        """Rotations and revocations."""
        return [
            self._event(Kind.SILO_KEY, self._silo()),
            self._event(Kind.COORDINATOR_KEY),
            self._event(Kind.COORDINATOR_KEY),
            self._event(Kind.ROOT_KEY),
            self._event(Kind.SILO_REVOKED, self._silo()),
            Event(next(self._nights), 0, Kind.COORDINATOR_REVOKED),
        ]

    def storage(self) -> list[Event]:
        """Three short outages and a long one."""
        short = [self._event(Kind.SHORT_OUTAGE) for _ in range(3)]
        return [*short, self._event(Kind.LONG_OUTAGE)]

    def disks(self) -> list[Event]:
        """A lost disk on either side, with a copy some nights old."""
        silo, found = self._silo(), []
        for copy, loss, whose in (
            (Kind.SILO_BACKUP, Kind.SILO_DISK, silo),
            (Kind.COORDINATOR_BACKUP, Kind.COORDINATOR_DISK, ""),
        ):
            lost = self._event(loss, whose)
            before = self._random.randint(1, 6)
            found += [Event(lost.night - before, 0, copy, whose), lost]
        return found

    def contracts(self) -> list[Event]:
        """One runs out, one is amended."""
        return [
            self._event(Kind.CONTRACT_EXPIRES, self._silo(), self._random.randint(2, 8)),
            self._event(Kind.CONTRACT_AMENDED, self._silo()),
        ]

    def machines(self) -> list[Event]:
        """Upgrades, wrong clocks, kills, and a night on which hardly anybody is there."""
        clocks = self._silo()
        return [
            *(Event(next(self._nights), 0, Kind.UPGRADE, nights=5) for _ in range(2)),
            Event(next(self._nights), 0, Kind.CLOCK_AHEAD, clocks, 1),
            Event(next(self._nights), 0, Kind.CLOCK_BEHIND, self._silo(), 1),
            *(self._event(Kind.AGENT_KILLED, self._random.choice(FOUNDERS)) for _ in range(3)),
            *(self._event(Kind.COORDINATOR_KILLED) for _ in range(3)),
            Event(next(self._nights), 0, Kind.NO_QUORUM, nights=1),
        ]

    def _event(self, kind: Kind, silo: str = "", nights: int = 0) -> Event:
        return Event(next(self._nights), self._random.randint(0, 4), kind, silo, nights)

    def _silo(self) -> str:
        """One that nothing else was drawn for."""
        return self._silos.pop()
