"""The agent's endless loop: poll, take part, wait; one line per fault, and go on.

A fault of storage or of one round must not end an agent that a hospital started a month ago, so
faults are logged once per change and tried again. What only the silo operator can mend (keys,
configuration, marks) ends the loop with the error.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from data_contracts.errors import (
    ConsortiaError,
    DataStewardError,
    SiloOperatorError,
    StorageError,
    UntrustedInputError,
)
from infra.durable_files import write_durably
from silo_agent.agent import Silo, Step, poll_once
from silo_agent.release import ReleaseForbiddenError
from silo_agent.training.launch import TrainingInterruptedError

log = logging.getLogger("silo-agent")

PID_NAME = "agent.pid"
LONGEST_WAIT_SECONDS = 60.0
RETRIED = (StorageError, UntrustedInputError, DataStewardError, TrainingInterruptedError)
BACK_OFF_FACTOR = 2.0


def run_agent(silo: Silo, *, once: bool = False) -> None:
    """Take part in rounds until the kill switch is on; with `once`, until one round is over."""
    with only_agent(silo.config.home):
        wait, last_fault = silo.config.agent.poll_seconds, ""
        while not silo.is_stopped():
            try:
                step = poll_once(silo)
            except ReleaseForbiddenError as error:
                log.warning("%s", error)
                return
            except RETRIED as error:
                last_fault = _log_fault(error, last_fault)
                wait = min(wait * BACK_OFF_FACTOR, LONGEST_WAIT_SECONDS)
                silo.clock.sleep(wait)
                continue
            wait, last_fault = silo.config.agent.poll_seconds, ""
            if once and step in (Step.FINISHED, Step.EVALUATED, Step.REFUSED):
                return
            if step in (None, Step.WAITING, Step.FINISHED):
                silo.clock.sleep(wait)
        log.info("the kill switch is on: the agent has stopped")


@contextmanager
def only_agent(home: Path) -> Iterator[None]:
    """Refuse a second agent on the same home directory: both would answer the same plan."""
    path = home / PID_NAME
    running = running_agent(home)
    if running is not None:
        raise SiloOperatorError(
            f"agent in {home}",
            expected="no other agent on this home directory",
            found=f"process {running}",
            action="stop it with `silo-agent stop`, or use another home directory",
        )
    created = psutil.Process().create_time()
    write_durably(path, f"{os.getpid()} {created!r}\n".encode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def running_agent(home: Path) -> int | None:
    """Process id of the agent on `home`, if it still runs; a recycled id does not count."""
    try:
        pid, created = (home / PID_NAME).read_text().split()
        process = psutil.Process(int(pid))
        alive = process.create_time() == float(created) and process.is_running()
    except (OSError, ValueError, psutil.Error):
        return None
    return int(pid) if alive else None


def _log_fault(error: ConsortiaError, last: str) -> str:
    """Log a fault when it is not the one that was logged last."""
    text = str(error)
    if text != last:
        log.error("%s", text)
    return text
