"""A contract counts only when silo and coordinator have both signed it.

The agreement lies beside the contract as `<name>.agreement.json`. Whoever signs first makes it,
the other adds a signature to the same bytes; a contract that changed afterwards has no agreement.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from data_contracts.dataset.contract.document import DataContract
from data_contracts.errors import DataStewardError, UntrustedInputError
from data_contracts.protocol.dsse import MAX_ENVELOPE_BYTES, Signer, countersign
from data_contracts.protocol.envelope import Quorum, Verified, seal, verify, verify_quorums
from data_contracts.protocol.records.contract_agreement import ContractAgreement
from data_contracts.protocol.records.membership import Membership


@dataclass(frozen=True)
class Parties:
    """Who has to sign: either side, with any of its keys (Ed25519, hex) since the founding."""

    federation: str
    silo: str
    silo_keys: frozenset[str]
    coordinator_keys: frozenset[str]

    @classmethod
    def at_plan(cls, named: Membership, known: Iterable[Membership], silo: str) -> "Parties":
        """Who may have agreed to what a plan under the membership `named` pins.

        `known` are all memberships at hand. Keys count that `named` does not revoke: no contract is
        signed again because a key was rotated.
        """
        revoked = {entry.public_key for entry in named.revoked}
        members = tuple(known)
        silo_keys = {key for m in members if (key := m.key_of(silo)) is not None}
        coordinator_keys = {m.coordinator_key for m in members}
        return cls(
            named.federation,
            silo,
            frozenset(silo_keys - revoked),
            frozenset(coordinator_keys - revoked),
        )

    def quorums(self) -> list[Quorum]:
        """One signature of each side."""
        return [Quorum(self.silo_keys), Quorum(self.coordinator_keys)]


def agreement_path(contract: Path) -> Path:
    """Where the agreement to a contract file lies."""
    return contract.with_suffix(".agreement.json")


def first_signature(
    contract: DataContract, federation: str, silo: str, now: datetime, signer: Signer
) -> bytes:
    """An agreement with one signature; it counts for nothing until the other party signs."""
    return seal(_statement(contract, federation, silo, now), signer).envelope


def second_signature(
    envelope: bytes,
    contract: DataContract,
    parties: Parties,
    other_keys: Collection[str],
    signer: Signer,
) -> bytes:
    """The other party's agreement with one more signature.

    Raises DataStewardError unless it says of this very contract and these parties what we would
    have said ourselves.
    """
    if signer.public_key_hex in other_keys:
        raise _not_agreed("keys of two sides", "one key for both")
    first = verify(envelope, ContractAgreement, other_keys)
    ours = _statement(contract, parties.federation, parties.silo, first.record.issued_at)
    if first.record != ours:
        raise _not_agreed("an agreement to this contract", "one that says something else")
    return countersign(first.envelope, signer)


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
    return open_agreement(envelope, digest, parties)


def open_agreement(envelope: bytes, digest: str, parties: Parties) -> Verified[ContractAgreement]:
    """As `read_agreement`, of an envelope that came another way."""
    try:
        agreement = verify_quorums(envelope, ContractAgreement, parties.quorums())
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
        contract_name=contract.name,
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
