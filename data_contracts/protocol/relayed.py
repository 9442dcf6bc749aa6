"""Other silos' signed records, as the coordinator passes them on: each verified under its own key.

A coordinator can leave a silo out, which the threshold bounds, but it can put no word into a silo's
mouth: whoever reads a list of relayed records verifies every signature in it.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.dsse import from_base64, to_base64
from data_contracts.protocol.envelope import Verified, verify
from data_contracts.protocol.records import Membership, RoundPlan, SiloRecord
from data_contracts.protocol.records.mask_keys import Relayed, RelayedRecord

SiloRecordT = TypeVar("SiloRecordT", bound=SiloRecord)


def relay(words: Iterable[Verified[SiloRecordT]]) -> Relayed:
    """As they were signed, in the order of their silos."""
    ordered = sorted(words, key=lambda word: word.record.silo)
    return tuple(
        RelayedRecord(silo=word.record.silo, envelope=to_base64(word.envelope)) for word in ordered
    )


def relayed(
    entries: Relayed,
    record_type: type[SiloRecordT],
    plan: Verified[RoundPlan],
    membership: Membership,
) -> Mapping[str, Verified[SiloRecordT]]:
    """The records by silo, in the order of the list.

    Raises UntrustedInputError, with rule `masking.relayed` for a silo that is not of the cohort or
    is there twice, and for a record on another plan, and as `verify` does.
    """
    found: dict[str, Verified[SiloRecordT]] = {}
    for entry in entries:
        key = membership.key_of(entry.silo)
        if entry.silo not in plan.record.cohort or key is None or entry.silo in found:
            raise _refused(record_type, entry.silo, "a silo outside the cohort, or one twice")
        verified = verify(from_base64(entry.envelope), record_type, {key})
        if verified.record.silo != entry.silo or verified.record.plan_digest != plan.digest:
            raise _refused(record_type, entry.silo, "one of another silo, or of another attempt")
        found[entry.silo] = verified
    return found


def _refused(record_type: type[SiloRecord], silo: str, found: str) -> UntrustedInputError:
    return UntrustedInputError(
        f"{record_type.kind} of {silo}, as the coordinator passes it on",
        expected="one of each silo of the cohort at most, that it signed on this plan",
        found=found,
        action="take no further part in this attempt, and ask the federation operator; the "
        "coordinator's key may be in use by someone else",
        rule="masking.relayed",
    )
