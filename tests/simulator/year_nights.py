"""A federation's nights: one scheduled start each, as `flows.round.federated_training` serves it.

A step of the coordinator that is killed begins again, storage that is away is waited for as the
flow waits, and where everybody only waits for a deadline the clock jumps there.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import TypeVar

from prefect.server.schemas.schedules import CronSchedule

from aggregator.coordinator import Coordinator
from aggregator.decisions.stage import Stage
from aggregator.evidence.look import look
from aggregator.federated_round import (
    advance,
    finish_latest_report,
    open_round,
    report_round,
    unreported_abort,
)
from aggregator.feed.reading import next_round, read_federation, read_report
from aggregator.settings.federation import ScheduleSection
from data_contracts.errors import ConsortiaError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan
from flows.round.storage_outage import OutageWait
from tests.simulator.fake_clock import START
from tests.simulator.year import Night, YearFederation
from tests.simulator.year_calendar import NIGHTS
from tests.simulator.year_parts import COORDINATOR, KilledError

SCHEDULE = ScheduleSection(cron="30 2 * * *", timezone="Europe/Berlin")
STEP_SECONDS = 60
MOST_STEPS = 60
FIRST_ADVANCE = 3
"""Before the third step no silo has submitted; asking earlier would only take time."""

log = logging.getLogger(__name__)
_T = TypeVar("_T")

Happen = Callable[[int], None]
"""Lets all that is due before a step of the night happen; 0 is before the round is opened."""


@dataclass
class Nights:
    """Plays the nights of one federation, in order."""

    federation: YearFederation
    _happen: Happen = field(default=lambda step: None)

    def play(self, happen: Happen) -> Night:
        """One scheduled start."""
        federation = self.federation
        expects = "late" if self._was_cut_off() else "published"
        federation.night, federation.expects = federation.night + 1, expects
        self._happen = happen
        self._wait_for_start()
        self._expire_statuses()
        for name in federation.silos:
            federation.restart_if_ended(name)
        night = self._night()
        federation.nights.append(night)
        return night

    def _night(self) -> Night:
        number, started_at = self.federation.night, self.federation.clock.now()
        try:
            self._happen(0)
            outcome, rule = self._training()
        except ConsortiaError as error:
            return Night(number, started_at, self._expected(), fault=str(error))
        return Night(number, started_at, self._expected(), outcome, rule)

    def _was_cut_off(self) -> bool:
        """Whether the last round that was played was left in the middle by an outage."""
        last = self.federation.nights[-1:]
        return any(night.expects == "away" and night.outcome == "" for night in last)

    def skip(self) -> None:
        """A night without a round; everybody is on, and nobody has anything to do."""
        self.federation.night += 1
        self._wait_for_start()

    def _expire_statuses(self) -> None:
        """As the storage's lifecycle rule does."""
        for bucket in self.federation.storage.values():
            for info in bucket.list_keys("status/"):
                bucket.erase(info.key)

    def _wait_for_start(self) -> None:
        start = self._start()
        self.federation.starts.append(start)
        self.federation.clock.sleep((start - self.federation.clock.now()).total_seconds())

    def _start(self) -> datetime:
        now = self.federation.clock.now()
        return next(start for start in starts_of_the_year() if start > now)

    def _expected(self) -> str:
        return (
            "expired"
            if self.federation.newest.expires_at < self.federation.clock.now()
            else self.federation.expects
        )

    def _training(self) -> tuple[str, str]:
        """As `flows.round.federated_training` does on a scheduled night."""
        wait = OutageWait(self.federation.clock, log.warning)
        self.through(wait, None, finish_latest_report)
        last = self.through(wait, None, _upcoming)
        outcome, rule, attempts = "", "", 0
        while self.through(wait, None, _upcoming) <= last:
            outcome, rule = self._round(wait, last)
            attempts += outcome == "aborted"
            if attempts >= self.federation.settings.round.max_attempts:
                break
        return outcome, rule

    def through(
        self, wait: OutageWait, deadline: datetime | None, step: Callable[[Coordinator], _T]
    ) -> _T:
        """A step of the coordinator, begun again where it was killed in it."""
        while True:
            try:
                with self.federation.weather.asked_by(COORDINATOR):
                    return wait.through(deadline, lambda: step(self.federation.process()))
            except KilledError:
                self.federation.restart(COORDINATOR)

    def _round(self, wait: OutageWait, number: int) -> tuple[str, str]:
        """Open, and go on until there is a report."""
        aborted = self.through(wait, None, unreported_abort)
        if aborted is not None:
            self.through(wait, None, lambda c: report_round(c, look(c, aborted)))
        plan = self.through(wait, None, lambda c: open_round(c, number))
        for step in range(1, MOST_STEPS):
            self._happen(step)
            acted = self.federation.poll_all()
            self.federation.clock.sleep(STEP_SECONDS)
            if acted and step < FIRST_ADVANCE:
                continue
            found = self._go_on(wait, plan, jump=not acted)
            if found is Stage.VOID:
                return "void", ""
            if found is Stage.REPORTED:
                return self._reported(wait, plan)
        raise AssertionError(f"night {self.federation.night}: round {number} is not over")

    def _go_on(self, wait: OutageWait, plan: Verified[RoundPlan], *, jump: bool) -> Stage:
        """All that is due; where everybody only waits, time passes until the deadline."""
        deadline = plan.record.expires_at
        while True:
            found = self.through(wait, deadline, lambda c: advance(c, plan))
            if found in (Stage.COLLECTING, Stage.EVALUATING):
                break
            if found in (Stage.REPORTED, Stage.VOID):
                return found
        until = plan.record.submit_by if found is Stage.COLLECTING else plan.record.evaluate_by
        left = (until - self.federation.clock.now()).total_seconds()
        if not jump or left <= 0 or self.federation.weather.is_away():
            return found
        self.federation.clock.sleep(left)
        return self._go_on(wait, plan, jump=False)

    def _reported(self, wait: OutageWait, plan: Verified[RoundPlan]) -> tuple[str, str]:
        report = self.through(wait, None, lambda c: read_report(c, read_federation(c), plan))
        if report is None:
            raise AssertionError("reported, and without a report")
        self.federation.reports.append((plan, report))
        return report.record.outcome, report.record.rule


@cache
def starts_of_the_year() -> tuple[datetime, ...]:
    """When Prefect starts the nightly rounds; `schedule_words` asks the same schedule."""
    schedule = CronSchedule(cron=SCHEDULE.cron or "", timezone=SCHEDULE.timezone)
    dates = asyncio.run(schedule.get_dates(NIGHTS + 2, START))
    return tuple(datetime.fromtimestamp(date.timestamp(), UTC) for date in dates)


def _upcoming(c: Coordinator) -> int:
    return next_round(c, read_federation(c))
