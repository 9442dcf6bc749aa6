"""A simulated silo's data contract: bytes, what they allow, and who has signed them.

Files and agreements are real, as the coordinator reads them; only the terms are stated here rather
than parsed. A test changes a field to say that the contract was changed, withdrawn or has expired.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from data_contracts.dataset.contract.agreement import Parties, agreement_path
from data_contracts.dataset.contract.privacy_budget import PrivacyBudget
from data_contracts.dataset.contract.terms import EGRESS
from data_contracts.protocol.artifact import digest_of_bytes
from data_contracts.protocol.dsse import Signer
from data_contracts.protocol.envelope import seal
from data_contracts.protocol.records import ContractAgreement
from data_contracts.protocol.records.licence_terms import LicenceTerms
from infra.disk.durable_files import write_durably
from silo_agent.policy.contract_terms import ContractTerms

PURPOSE = "testing"


@dataclass
class SimulatedContract:
    """One silo's contract. `agreed_with` is the coordinator's key, empty when nobody signed;
    `agreed` is the envelope of the agreement."""

    silo: str
    data: bytes
    expires_at: datetime
    agreed_with: str = ""
    agreed: bytes = b""
    purposes: tuple[str, ...] = (PURPOSE,)
    uses: tuple[str, ...] = ("research",)
    duo_codes: tuple[str, ...] = ()
    attested: frozenset[str] = frozenset()
    egress: tuple[str, ...] = EGRESS
    registered_licences: tuple[LicenceTerms, ...] = ()
    form: str = "instruction"
    classes: frozenset[str] = frozenset()
    privacy: PrivacyBudget | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return digest_of_bytes(self.data)

    def terms(self, parties: Parties) -> ContractTerms | None:
        """What the silo's gate says of it; None unless this very coordinator has signed it."""
        if self.agreed_with not in parties.coordinator_keys:
            return None
        return ContractTerms(
            digest=self.digest,
            purposes=self.purposes,
            expires_at=self.expires_at,
            uses=self.uses,
            duo_codes=self.duo_codes,
            attested=self.attested,
            egress=self.egress,
            registered_licences=self.registered_licences,
            form=self.form,
            classes=self.classes,
            agreement=self.agreed,
            privacy=self.privacy,
        )

    def agreement(self, federation: str, now: datetime) -> ContractAgreement:
        """What both sides sign."""
        return ContractAgreement(
            federation=federation,
            issued_at=now,
            silo=self.silo,
            contract_id=f"contract-of-{self.silo}",
            contract_version="1.0.0",
            contract_name=f"Notes of {self.silo}",
            contract_digest=self.digest,
            expires_at=self.expires_at,
        )


def file_contract(
    directory: Path, contract: SimulatedContract, agreement: ContractAgreement, *signers: Signer
) -> Path:
    """Write contract and signed agreement where the coordinator looks for them."""
    path = directory / f"{contract.silo}.yaml"
    write_durably(path, contract.data)
    write_durably(agreement_path(path), seal(agreement, *signers).envelope)
    return path
