"""Plays the year that a seed decides and holds it against every invariant, night by night.

A breach ends the year with the seed, the night, what is wrong, and the events so far, so that
`pytest -m campaign "tests/year/test_year.py::test_a_year[N]"` plays it again.
"""

import json
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from statistics import mean
from zoneinfo import ZoneInfo

from psutil import Process

from data_contracts.protocol.wire_types import INSTANT_FORMAT
from infra.records.kept_feed import STATE_NAME
from silo_agent.federation.marks import CLOCK_NAME
from tests.simulator import invariants as hold
from tests.simulator.invariants import History, PlayedRound
from tests.simulator.year import Night, YearFederation
from tests.simulator.year_calendar import FOUNDERS, NIGHTS, calendar_of, nights_to_play
from tests.simulator.year_events import YearEvents
from tests.simulator.year_nights import SCHEDULE, Nights
from tests.simulator.year_parts import CANARY, COORDINATOR

ATTENDING = 4
"""Silos whose machines are on in a night, one more than the quorum."""
THOROUGH_EVERY = 20
"""Played nights between two checks of what takes as long as a round itself."""
MEASURED_EVERY = 10
POLLS_GROW_AT_MOST = 1.25
"""Mean requests of a poll in the last month, measured by those of the second."""

KEPT = {"members", "keys", "contracts"}
GROWTH = {
    "a silo's disk": 300,
    "the coordinator's disk": 500,
    "reports on disk": 800_000,
    "memory": 600_000,
}
"""Bytes by which each may grow with a round. Reports are kept for good, and each has every version
of the membership until then; the disks are flat, but for memberships, contracts and keys, which are
not counted."""
FAULTS = {"expired": "federation renew", "away": "expected an answer"}
"""What the coordinator says in a night that ends with a fault, by what the year expects."""


class YearError(AssertionError):
    """An invariant did not hold."""


@dataclass
class Year:
    """One year of one federation; `stride` 1 plays every night, see `nights_to_play`."""

    seed: int
    directory: Path
    model_dir: Path
    stride: int = 1
    attending: int = ATTENDING

    def __post_init__(self) -> None:
        self.calendar = calendar_of(self.seed)
        self.federation = YearFederation(self.directory, self.model_dir, attendance=self._on)
        for silo in FOUNDERS:
            self.federation.add_silo(silo)
        self.federation.found()
        self.nights = Nights(self.federation)
        self.events = YearEvents(self.federation, self.calendar)
        self.history = History()
        self._checked = 0
        self._attendance: dict[int, frozenset[str]] = {}
        self.sizes: dict[str, list[tuple[int, float]]] = {name: [] for name in GROWTH}

    def play(self) -> None:
        """All nights; raises YearError at the first breach."""
        todo = nights_to_play(self.calendar, self.stride)
        with _listening() as said:
            for number in range(NIGHTS):
                if number not in todo:
                    self.nights.skip()
                    continue
                night = self.nights.play(self.events.happen)
                self._hold(night, self._breaches(night, said.take()))
                if len(self.federation.nights) % MEASURED_EVERY == 0:
                    self._measure()
        self._hold(self.federation.nights[-1], self._over_the_year())

    def _on(self, night: int) -> frozenset[str]:
        """As drawn when the night's first poll is due: who is on then stays on."""
        if night not in self._attendance:
            self._attendance[night] = self._drawn(night)
        return self._attendance[night]

    def _drawn(self, night: int) -> frozenset[str]:
        """Enough for a quorum of whom nothing is amiss, and all members of whom something is."""
        members = {member.silo for member in self.federation.newest.silos}
        able = sorted(silo for silo in members if self._is_able(silo, night))
        drawn = Random(f"{self.seed}-{night}").sample(able, min(self.attending, len(able)))
        return frozenset(drawn) | (members - set(able))

    def _is_able(self, silo: str, night: int) -> bool:
        federation = self.federation
        contract, clock = federation.silos[silo].contract, federation.silos[silo].clock
        now = federation.clock.now()
        is_right = clock.now() == now and now < contract.expires_at
        return is_right and federation.offline.get(silo, -1) < night

    def _hold(self, night: Night, breaches: list[str]) -> None:
        if not breaches:
            return
        happened = [str(event) for event in self.calendar if event.night <= night.number]
        raise YearError(
            "\n".join(
                [
                    f"seed {self.seed}, night {night.number}:",
                    *breaches,
                    f"outcome {night.outcome or 'none'} {night.rule} {night.fault}",
                    "events until then:",
                    *happened,
                ]
            )
        )

    def _breaches(self, night: Night, said: bytes) -> list[str]:
        federation = self.federation
        new = list(self.history.new_objects(federation.storage))
        breaches = as_expected(night)
        secrets = self._secrets()
        breaches += hold.nowhere(secrets, new)
        # A silo's own log may speak of its own records.
        del secrets["the canary"]
        breaches += hold.nowhere(secrets, [("a log", said)])
        breaches += self.history.nothing_is_lost(federation.storage)
        breaches += self.history.marks_never_fall(self._marks(), federation.rewound)
        federation.rewound.clear()
        rounds, self._checked = federation.reports[self._checked :], len(federation.reports)
        for plan, report in rounds:
            played = PlayedRound(federation.coordinator(), plan, report)
            breaches += self._of_round(played)
        if rounds and len(federation.nights) % THOROUGH_EVERY == 0:
            breaches += self._thoroughly(played)
        return breaches

    def _of_round(self, played: PlayedRound) -> list[str]:
        breaches = hold.quorum_or_abort(played) + hold.only_what_may_count_counts(played)
        breaches += hold.counted_once(played) + hold.absent_or_complete(played)
        return breaches

    def _thoroughly(self, played: PlayedRound) -> list[str]:
        federation = self.federation
        ends = [federation.pinned, federation.memberships[-1]]
        head = played.c.feed.refresh().head.number
        numbers = (head, federation.newest.number)
        breaches = hold.merge_is_recomputed(played)
        breaches += hold.auditor_finds_nothing(played, ends)
        breaches += hold.log_verifies(federation.plans, federation.pinned, *numbers)
        return breaches + hold.rerun_writes_nothing(played, federation.storage)

    def _over_the_year(self) -> list[str]:
        zone = ZoneInfo(SCHEDULE.timezone)
        starts = [start.astimezone(zone).date() for start in self.federation.starts]
        breaches = hold.once_a_night(starts)
        breaches += hold.polls_cost_the_same(self.federation.polls, POLLS_GROW_AT_MOST)
        for what, per_round in GROWTH.items():
            breaches += hold.flat(what, self.sizes[what][1:], per_round)
        return breaches

    def _measure(self) -> None:
        """Sizes in bytes; what storage holds is memory only here, and no process's own."""
        federation = self.federation
        reports = federation.settings.home / "reports"
        homes = [silo.home for name, silo in federation.silos.items() if federation.is_on(name)]
        stored = sum(len(o) for b in federation.storage.values() for o in b.objects.values())
        found = {
            "a silo's disk": mean(_size(home, KEPT) for home in homes),
            "the coordinator's disk": _size(federation.settings.home, {"reports", *KEPT}),
            "reports on disk": _size(reports),
            "memory": Process().memory_info().rss - stored,
        }
        for what, size in found.items():
            self.sizes[what].append((len(federation.nights), size))

    def _secrets(self) -> dict[str, bytes]:
        """Every private key on any disk, and what only a silo's disk may have."""
        found = {"the canary": CANARY.encode()}
        for pattern in ("keys/*.pem", "operator/keys/*.pem", "silos/*/keys/*.pem"):
            for path in self.directory.glob(pattern):
                found[f"private key {path}"] = path.read_bytes().splitlines()[1]
        return found

    def _marks(self) -> dict[str, tuple[int, ...]]:
        homes = {name: silo.home for name, silo in self.federation.silos.items()}
        marks = {name: _feed_mark(home / "feed") + _instant(home) for name, home in homes.items()}
        marks[COORDINATOR] = _feed_mark(self.federation.settings.home / "feed")
        return {party: mark for party, mark in marks.items() if mark}


def _size(directory: Path, but_for: Collection[str] = ()) -> int:
    """Bytes of all files below a directory, without those in folders of these names."""
    return sum(
        path.stat().st_size
        for path in directory.rglob("*")
        if path.is_file() and not set(path.parts) & set(but_for)
    )


def as_expected(night: Night) -> list[str]:
    """A night ends with a report of what was to come, or with the fault that the year knows of."""
    if night.expects in FAULTS:
        said = FAULTS[night.expects]
        # A storage that comes back before the round's deadline is waited for.
        fine = said in night.fault or (night.expects == "away" and night.outcome != "")
        return [] if fine else [f"expected a fault that says {said!r}"]
    # Silos that trained and could not evaluate in time leave a candidate that nobody published.
    wanted = ("published", "held") if night.expects == "late" else (night.expects,)
    return [] if night.outcome in wanted else [f"expected {' or '.join(wanted)}"]


def _feed_mark(directory: Path) -> tuple[int, ...]:
    """Membership and feed entry that a party has seen; nothing before its first poll."""
    try:
        found = json.loads((directory / STATE_NAME).read_bytes())
    except FileNotFoundError:
        return ()
    return found["membership_number"], found["feed_number"]


def _instant(home: Path) -> tuple[int, ...]:
    """The latest instant that a silo has seen, in seconds."""
    try:
        found = json.loads((home / CLOCK_NAME).read_bytes())
    except FileNotFoundError:
        return ()
    return (int(datetime.strptime(found["instant"], INSTANT_FORMAT).timestamp()),)


class _Said(logging.Handler):
    """What the product's loggers have said since it was last taken."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())

    def take(self) -> bytes:
        """Everything, once."""
        text = "\n".join(self._lines).encode()
        self._lines.clear()
        return text


@contextmanager
def _listening() -> Iterator[_Said]:
    """Hear every logger at the level of a service's log."""
    root, said = logging.getLogger(), _Said()
    before = root.level
    root.setLevel(logging.INFO)
    root.addHandler(said)
    try:
        yield said
    finally:
        root.removeHandler(said)
        root.setLevel(before)
