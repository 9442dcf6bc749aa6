"""A contract counts only when silo and coordinator have both signed it.

The agreement lies beside the contract as `<name>.agreement.json`. Whoever signs first makes it,
the other adds a signature to the same bytes; a contract that changed afterwards has no agreement.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from data_contracts.dataset.contract.document import DataContract
from data_contracts.envelope import (
    MAX_ENVELOPE_BYTES,
    Signer,
    Verified,
    countersign,
    seal,
    verify,
)
from data_contracts.errors import DataStewardError, UntrustedInputError
from data_contracts.records.contract_agreement import ContractAgreement


@dataclass(frozen=True)
class Parties:
    """Who has to sign; keys are Ed25519 public keys in hex."""

    federation: str
    silo: str
    silo_key: str
    coordinator_key: str

    def keys(self) -> set[str]:
        """Both keys."""
        return {self.silo_key, self.coordinator_key}


def agreement_path(contract: Path) -> Path:
    """Where the agreement to a contract file lies."""
    return contract.with_suffix(".agreement.json")


def first_signature(
    contract: DataContract, federation: str, silo: str, now: datetime, signer: Signer
) -> bytes:
    """An agreement with one signature; it counts for nothing until the other party signs."""
    return seal(_statement(contract, federation, silo, now), signer).envelope


def second_signature(
    envelope: bytes, contract: DataContract, parties: Parties, other_key: str, signer: Signer
) -> bytes:
    """The other party's agreement with one more signature.

    Raises DataStewardError unless it says of this very contract and these parties what we would
    have said ourselves.
    """
    first = verify(envelope, ContractAgreement, {other_key})
    ours = _statement(contract, parties.federation, parties.silo, first.record.issued_at)
    if first.record != ours:
        raise _not_agreed("an agreement to this contract", "one that says something else")
    return countersign(first, signer)


def read_agreement(contract: Path, digest: str, parties: Parties) -> Verified[ContractAgreement]:
    """The agreement beside a contract file whose bytes have `digest`, with both signatures.

    Raises DataStewardError when there is none, when a signature is missing or of another key, or
    when it is to another contract, federation or silo. Whether it has expired is for the caller.
    """
    path = agreement_path(contract)
    try:
        with path.open("rb") as file:
            envelope = file.read(MAX_ENVELOPE_BYTES + 1)
    except OSError as error:
        raise _not_agreed(f"a file {path.name}", error.strerror or "no file") from None
    try:
        agreement = verify(envelope, ContractAgreement, parties.keys(), threshold=2)
    except UntrustedInputError as error:
        found = f"{error.problem}: {error.found}"
        raise _not_agreed("signatures of silo and coordinator", found) from None
    record = agreement.record
    if (record.federation, record.silo) != (parties.federation, parties.silo):
        raise _not_agreed("an agreement of this silo and federation", "one of another")
    if record.contract_digest != digest:
        raise _not_agreed("an agreement to these very bytes", "a contract that changed since")
    return agreement


def _statement(
    contract: DataContract, federation: str, silo: str, now: datetime
) -> ContractAgreement:
    return ContractAgreement(
        federation=federation,
        issued_at=now,
        silo=silo,
        contract_id=contract.id,
        contract_version=contract.version,
        contract_digest=contract.digest,
        expires_at=contract.terms.expires,
    )


def _not_agreed(expected: str, found: str) -> DataStewardError:
    return DataStewardError(
        "data contract's agreement",
        expected=expected,
        found=found,
        action="run `consortia contract sign` at the silo and at the coordinator",
    )
