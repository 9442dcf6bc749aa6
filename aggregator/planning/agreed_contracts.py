"""The data contracts that a plan may name: filed here, signed by silo and coordinator, in force.

A silo whose contract has no agreement, or one that has expired, is left out of the cohort and
named, so that one lapsed contract does not end everybody's rounds; the quorum decides about those.
"""

import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from data_contracts.dataset.contract import load_contract
from data_contracts.dataset.contract.agreement import Parties, read_agreement
from data_contracts.errors import DataStewardError
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.records.model_family import CAUSAL_TASK, FORMS_OF, FamilyTask
from data_contracts.protocol.trusted_feed import TrustedFeed

log = logging.getLogger("consortia")


@dataclass(frozen=True)
class AgreedContracts:
    """Digest of the contract by silo, and why other silos are left out."""

    digests: dict[str, str]
    left_out: dict[str, str]


def agreed_contracts(
    directory: Path, feed: TrustedFeed, now: datetime, task: FamilyTask = CAUSAL_TASK
) -> AgreedContracts:
    """As `read_agreed`, for a plan: only contracts over records that its task is learned from, and
    whoever is left out is named in the log."""
    agreed = read_agreed(directory, feed, now)
    for silo in list(agreed.digests):
        other = _other_task(directory / f"{silo}.yaml", task)
        if other is not None:
            del agreed.digests[silo]
            agreed.left_out[silo] = other
    for silo, why in agreed.left_out.items():
        log.warning("%s is left out of the round: %s", silo, why)
    return agreed


def read_agreed(directory: Path, feed: TrustedFeed, now: datetime) -> AgreedContracts:
    """Every `<silo>.yaml` in `directory` with its agreement, judged at `now`."""
    digests: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for path in sorted(directory.glob("*.yaml")):
        silo, digest = path.stem, artifact_of_file(path).digest
        try:
            agreement = read_agreement(path, digest, _parties(feed, silo))
        except DataStewardError as error:
            left_out[silo] = error.found
        else:
            if now < agreement.record.expires_at:
                digests[silo] = digest
            else:
                left_out[silo] = "one that has expired"
    return AgreedContracts(digests, left_out)


def _other_task(contract: Path, task: FamilyTask) -> str | None:
    """Why nothing can be learned from a contract's records for the task; None where it can."""
    try:
        source = load_contract(contract).source
    except DataStewardError:
        # Both sides signed it: the silo, which reads it to the end, will say what is wrong.
        return None
    form, forms = source.record_form.name, FORMS_OF[task.family]
    if form not in forms:
        return f"records of the form {form}; {task.family} is trained on {' or '.join(forms)}"
    others = sorted({word for _, word in source.classes} - set(task.classes or ()))
    if task.classes is not None and others:
        return f"the class {others[0]!r}, which the task does not name, and {len(others) - 1} more"
    return None


def _parties(feed: TrustedFeed, silo: str) -> Parties:
    federation = feed.membership.record.federation
    return Parties(federation, silo, feed.silo_keys(silo), feed.contract_keys())
