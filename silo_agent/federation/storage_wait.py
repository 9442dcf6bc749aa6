"""An agent that starts while the storage is away waits for it, and then tries its promises.

A power cut takes agent and storage down together, and a hospital's machine is often the first to be
back. Nothing is said of the promises of a storage that nobody reaches.
"""

import logging
from collections.abc import Callable
from datetime import datetime

from infra.clock import Clock
from infra.storage.object_store import Bucket, StorageUnavailableError
from infra.storage.probe import ProbeOutcome, probe_inbox

log = logging.getLogger("silo-agent")

RETRY_SECONDS = 60


def probe_when_reachable(
    inbox: Bucket, clock: Clock, is_stopped: Callable[[], bool], *, role: str
) -> ProbeOutcome | None:
    """What `probe_inbox` finds once the storage answers, one line a minute until then.

    None when `is_stopped` says so first. Raises the other StorageErrors of `probe_inbox`.
    """
    since = clock.now()
    while not is_stopped():
        try:
            return probe_inbox(inbox, clock.now(), role=role)
        except StorageUnavailableError as error:
            log.warning("waiting for the storage since %s: %s", _shown(since), error)
        _sleep(clock, is_stopped)
    return None


def _shown(since: datetime) -> str:
    return f"{since:%Y-%m-%d %H:%M:%S} UTC"


def _sleep(clock: Clock, is_stopped: Callable[[], bool]) -> None:
    """In slices, so that the kill switch counts within a second."""
    for _ in range(RETRY_SECONDS):
        if is_stopped():
            return
        clock.sleep(1)
