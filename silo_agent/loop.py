"""The agent's endless loop: poll, take part, wait; one line per fault, and go on.

A fault of storage or of one round must not end an agent that a hospital started a month ago, so
faults are logged once per change and tried again. What only the silo operator can mend (keys,
configuration, marks) ends the loop with the error.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import date
from pathlib import Path
from threading import Thread

from data_contracts.errors import ConsortiaError, SiloOperatorError
from infra.backup.home_restore import is_restored
from infra.disk.durable_files import write_durably
from infra.disk.file_lock import held_alone, is_held
from silo_agent.agent import poll_once
from silo_agent.federation.feed import refresh_feed
from silo_agent.privacy.ledger import PrivacyLedger
from silo_agent.release.release import ReleaseForbiddenError
from silo_agent.restarts import ProcessDiedError
from silo_agent.silo import Silo
from silo_agent.steps.own_attempt import Step, own_attempt
from silo_agent.training.processes.launch import TrainingInterruptedError

log = logging.getLogger("silo-agent")

PID_NAME = "agent.pid"
LOCK_NAME = "agent.lock"
LONGEST_WAIT_SECONDS = 60.0
FAREWELL_SECONDS = 5.0
FAULTS_OF_A_ROUND = (TrainingInterruptedError, ReleaseForbiddenError, ProcessDiedError)
BACK_OFF_FACTOR = 2.0


def run_agent(silo: Silo, *, once: bool = False) -> None:
    """Take part in rounds until the kill switch is on; with `once`, until one round is over.

    Raises SiloOperatorError at once for a privacy ledger that was changed or put back.
    """
    home = silo.config.home
    with only_agent(home), silo.metrics, _told_when_it_stops(silo), closing(silo.trainer):
        if not is_restored(home):
            PrivacyLedger(home).read()
        wait, last_fault, day = silo.config.agent.poll_seconds, "", None
        while not silo.is_stopped():
            day = _forget_daily(silo, day)
            silo.trainer.give_back_idle()
            try:
                step = poll_once(silo)
            except ConsortiaError as error:
                if silo.is_stopped():
                    break
                if _needs_the_operator(error):
                    raise
                last_fault = _log_fault(error, last_fault)
                wait = min(wait * BACK_OFF_FACTOR, LONGEST_WAIT_SECONDS)
                _sleep(silo, wait)
                continue
            wait, last_fault = silo.config.agent.poll_seconds, ""
            if once and step in (Step.FINISHED, Step.EVALUATED, Step.REFUSED):
                return
            if step in (None, Step.WAITING, Step.FINISHED):
                _sleep(silo, wait)
        log.info("the kill switch is on: the agent has stopped")


@contextmanager
def _told_when_it_stops(silo: Silo) -> Iterator[None]:
    """However the agent ends, but killed: say so where its part of a round is not done.

    A storage that does not answer must not hold up a stop, so nothing is waited for longer than
    FAREWELL_SECONDS; whoever looks then sees a silo that is silent.
    """
    try:
        yield
    finally:
        farewell = Thread(target=_say_stopped, args=(silo,), name="farewell", daemon=True)
        farewell.start()
        farewell.join(FAREWELL_SECONDS)


def _say_stopped(silo: Silo) -> None:
    with suppress(ConsortiaError):
        _say_stopped_in_round(silo)


def _say_stopped_in_round(silo: Silo) -> None:
    if is_restored(silo.config.home):
        return
    feed = refresh_feed(silo)
    plan = feed.plan
    if plan is None or feed.aborted or silo.name not in plan.record.cohort:
        return
    attempt = own_attempt(silo, feed, plan)
    if silo.clock.now() < plan.record.evaluate_by and not attempt.is_over:
        attempt.report.say_stopped()


@contextmanager
def only_agent(home: Path) -> Iterator[None]:
    """Refuse a second agent on the same home directory: both would answer the same plan.

    Held by a lock that the kernel gives back however the agent ends.
    """
    refusal = SiloOperatorError(
        f"agent in {home}",
        expected="no other agent on this home directory",
        found=f"process {_pid(home)}",
        action="stop it with `silo-agent stop`, or use another home directory",
    )
    with held_alone(home / LOCK_NAME, refusal):
        write_durably(home / PID_NAME, f"{os.getpid()}\n".encode())
        yield


def running_agent(home: Path) -> int | None:
    """Process id of the agent on `home`, None when none runs: then nobody holds the lock."""
    return _pid(home) if is_held(home / LOCK_NAME) else None


def _pid(home: Path) -> int:
    try:
        return int((home / PID_NAME).read_text())
    except (OSError, ValueError):
        return 0


def _forget_daily(silo: Silo, last: date | None) -> date:
    """Let the data gate forget what is past its retention, also where no round asks for a check."""
    today = silo.clock.now().date()
    if today != last:
        silo.gate.forget_unused()
    return today


def _needs_the_operator(error: ConsortiaError) -> bool:
    """Keys, configuration, models and GPUs only a person at the silo can mend."""
    return isinstance(error, SiloOperatorError) and not isinstance(error, FAULTS_OF_A_ROUND)


def _sleep(silo: Silo, seconds: float) -> None:
    """Sleep in slices, so that the kill switch, and who needs memory, count within a second."""
    while seconds > 0 and not silo.is_stopped():
        silo.trainer.give_back_idle()
        silo.clock.sleep(min(1.0, seconds))
        seconds -= 1.0


def _log_fault(error: ConsortiaError, last: str) -> str:
    """Log a fault when it is not the one that was logged last."""
    text = str(error)
    if text != last:
        log.error("%s", text)
    return text
