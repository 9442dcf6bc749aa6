"""Every promise that the coordinator needs of its storage, tried bucket by bucket."""

from dataclasses import dataclass

from aggregator.coordinator import Coordinator
from aggregator.evidence.transfers import several_at_a_time
from data_contracts.errors import StorageError
from data_contracts.protocol.bucket_layout import PROBE_PREFIX
from infra.storage.probe import ProbeOutcome, probe_locks, probe_storage

ROLE = "coordinator"


@dataclass(frozen=True)
class StorageCheck:
    """What was tried, and why some inboxes could not be, by silo: their silo comes first."""

    outcomes: tuple[ProbeOutcome, ...]
    untried: dict[str, str]


def check_storage(c: Coordinator) -> StorageCheck:
    """Try plans, then each member's inbox, or the ledger bucket where copies are kept.

    Raises StorageError where the coordinator's own buckets cannot be reached.
    """
    own = [c.plans] if c.settings.ledger.place == "inbox" else [c.plans, c.ledger]
    outcomes = [probe_storage(bucket, role=ROLE) for bucket in own]
    if c.settings.ledger.place == "copy":
        return StorageCheck(tuple(outcomes), {})
    members = c.feed.refresh_as_far_as_it_is_clear().membership.record.silos
    silos = [member.silo for member in members]
    found = several_at_a_time(lambda silo: _inbox(c, silo), silos)
    tried = [outcome for outcome in found if isinstance(outcome, ProbeOutcome)]
    untried = {silo: why for silo, why in zip(silos, found, strict=True) if isinstance(why, str)}
    return StorageCheck((*outcomes, *tried), untried)


def require_ledger(c: Coordinator) -> None:
    """Try that copies can be put where they will go, before anybody trains for them.

    Raises StorageError. It leaves one small object, the same each time; `check_storage` tries more.
    """
    if c.settings.ledger.place == "copy":
        c.ledger.put_once(f"{PROBE_PREFIX}reachable", b"reachable")


def _inbox(c: Coordinator, silo: str) -> ProbeOutcome | str:
    """One silo without a bucket yet must not keep the others waiting."""
    try:
        outcome = probe_locks(c.inbox(silo), c.clock.now(), role=ROLE)
    except StorageError as error:
        return error.found
    return outcome or "nothing there to try it on: `silo-agent check` leaves something"
