"""What policy and release ask of a silo's data contract."""

from dataclasses import dataclass
from datetime import datetime

from data_contracts.dataset.contract import DataContract
from data_contracts.dataset.contract.privacy_budget import PrivacyBudget
from data_contracts.dataset.contract.terms import EGRESS
from data_contracts.protocol.records.licence_terms import LicenceTerms


@dataclass(frozen=True)
class ContractTerms:
    """What policy and release need of the silo's data contract, which both sides have signed."""

    digest: str
    purposes: tuple[str, ...]
    expires_at: datetime
    uses: tuple[str, ...] = ("research",)
    duo_codes: tuple[str, ...] = ()
    attested: frozenset[str] = frozenset()
    egress: tuple[str, ...] = EGRESS
    registered_licences: tuple[LicenceTerms, ...] = ()
    form: str = "instruction"
    classes: frozenset[str] = frozenset()
    agreement: bytes = b""
    privacy: PrivacyBudget | None = None

    @classmethod
    def of(cls, contract: DataContract, agreement: bytes = b"") -> "ContractTerms":
        """The terms of a contract that was read, with the envelope that both sides signed; without
        it for whoever only wants to know what the policy says."""
        terms = contract.terms
        return cls(
            digest=contract.digest,
            purposes=contract.purposes,
            expires_at=terms.expires,
            uses=terms.uses,
            duo_codes=terms.duo_codes,
            attested=terms.attested(),
            egress=terms.egress.allow,
            registered_licences=tuple(licence.terms() for licence in terms.licence_terms),
            form=contract.source.record_form.name,
            classes=frozenset(word for _, word in contract.source.classes),
            agreement=agreement,
            privacy=terms.privacy,
        )
