"""What is looked for in a record: the detectors of a contract, made once for a data set.

Everything heavy (registries, recognisers, image hashes) is loaded before a pass over a million
records begins, so that the pass only calls it.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from data_contracts.dataset.contract import DataContract
from data_contracts.dataset.contract.terms import DataTerms
from data_contracts.dataset.copyright.registry import Registry
from data_contracts.dataset.findings.image_check import ImageCheck
from data_contracts.dataset.forms.form import Form
from data_contracts.dataset.image_hashes import ImageHashRegistry
from data_contracts.dataset.licence_policy import LicencePolicy
from data_contracts.dataset.personal_data.scanner import PersonalDataScanner
from data_contracts.licences.model_licence import accepted_terms
from data_contracts.licences.package_claims import licences_agree
from data_contracts.licences.stated_of_pictures import NOTHING_STATED, StatedOfPictures
from data_contracts.protocol.records.licence_terms import Use


@dataclass(frozen=True)
class References:
    """What a silo holds to compare its data with; `images` is the contract's image registry."""

    registries: tuple[Registry, ...] = ()
    images: ImageHashRegistry | None = None

    def expires_at(self) -> datetime | None:
        """When the first of the registries expires."""
        return min((r.manifest.expires_at for r in self.registries), default=None)


def licence_policy(terms: DataTerms) -> LicencePolicy:
    """What a contract's terms say of any licence: its own list, its use, its accepted terms."""
    use: Use = "commercial" if "commercial" in terms.uses else "research"
    registered = tuple(licence.terms() for licence in terms.licence_terms)
    accepted = accepted_terms("; ".join(terms.licence_acceptances))
    return LicencePolicy(terms.licences, use=use, registered=registered, accepted=accepted)


@dataclass(frozen=True)
class Checks:
    """The detectors of one contract at one moment (`now`, an aware datetime)."""

    contract: DataContract
    references: References
    now: datetime
    beside: StatedOfPictures = NOTHING_STATED

    @cached_property
    def form(self) -> Form:
        """What a record of the contract is, and with it which of its texts are looked at."""
        return self.contract.source.record_form

    @cached_property
    def licences(self) -> LicencePolicy:
        """Judges a record's licence by the contract's list and by what the licence permits."""
        return licence_policy(self.contract.terms)

    @cached_property
    def personal_data(self) -> PersonalDataScanner:
        """Looks for the kinds of personal data that the contract names."""
        return PersonalDataScanner(frozenset(self.contract.terms.personal_data.kinds))

    @cached_property
    def images(self) -> ImageCheck:
        """Judges the image of an image-text pair."""
        return ImageCheck(self.contract.terms.images, self.references.images)

    def licence_agrees(self, licence: str) -> bool | None:
        """Whether a record's licence is what the package claims; None when nothing is claimed."""
        claimed = self.contract.terms.package_licence
        return None if claimed is None else licences_agree(licence, claimed)
