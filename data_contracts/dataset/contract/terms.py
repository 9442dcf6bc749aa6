"""The terms of a data contract: custom properties named `fl.*`, each a closed value.

Every policy has a default that refuses more rather than less, but for what only the steward can
know (licences, minimum number of records, expiry), which must be stated. Shares are stated as
records per thousand, whole numbers, because a contract must mean the same to every reader.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from data_contracts.dataset.contract.canaries import Canaries
from data_contracts.dataset.contract.closed_terms import Terms
from data_contracts.dataset.contract.privacy_budget import PrivacyBudget
from data_contracts.dataset.contract.refused_key import KeyRefusedError, refused_value
from data_contracts.dataset.forms import TRAINED_FORMS
from data_contracts.dataset.personal_data.kinds import DEFAULT_KINDS, KINDS
from data_contracts.protocol.records.licence_terms import LicenceTerms, Use
from data_contracts.protocol.wire_types import (
    Instant,
    LicenceId,
    PositiveCount,
    PublicKeyHex,
    Text,
)
from data_contracts.shown_text import is_blank

DEFAULT_MINIMUM_COHORT = 10
MIN_CLASSES, MAX_CLASSES = 2, 1000
Egress = Literal[
    "status", "rule-counts", "licence-counts", "local-adapter", "losses", "leak-figures"
]
EGRESS: tuple[Egress, ...] = ("status", "rule-counts", "licence-counts", "local-adapter", "losses")
"""What leaves a silo where nothing is said, in the order in which it does. Outcomes of rules always
leave."""
NAMED_EGRESS: tuple[Egress, ...] = ("leak-figures",)
"""What leaves only where it is named."""

Cohort = Annotated[int, Field(ge=2, le=2**53 - 1)]
PerMille = Annotated[int, Field(ge=0, le=1000)]
Days = Annotated[int, Field(ge=1, le=3650)]
DuoCode = Annotated[str, StringConstraints(pattern=r"^DUO:[0-9]{7}$")]
RegistryName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
SafeHarborLetter = Annotated[str, StringConstraints(pattern=r"^[A-R]$")]


def _known_kind(kind: Any) -> Any:
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError("expected one of " + ", ".join(sorted(KINDS)))
    return kind


PersonalDataKind = Annotated[str, BeforeValidator(_known_kind)]


def _plain(word: str) -> str:
    """A class is what a model is to answer: it says something, and has no spaces around it."""
    if is_blank(word) or word != word.strip():
        raise ValueError("expected a word without spaces around it")
    return word


def _known_form(form: Any) -> Any:
    if form not in TRAINED_FORMS:
        raise ValueError(f"expected one of {', '.join(TRAINED_FORMS)}; formats stand under servers")
    return form


def _classes(stated: Any) -> Any:
    """Words alone stand for themselves."""
    if isinstance(stated, list) and all(isinstance(word, str) for word in stated):
        if len(set(stated)) != len(stated):
            raise ValueError("expected each class once")
        stated = {word: word for word in stated}
    if not isinstance(stated, dict) or len(set(map(str, stated.values()))) < MIN_CLASSES:
        raise ValueError("expected the words of two or more classes, or a word for each value")
    return stated


FormName = Annotated[str, BeforeValidator(_known_form)]
ClassWord = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_plain)]
Classes = Annotated[dict[str, ClassWord], BeforeValidator(_classes), Field(max_length=MAX_CLASSES)]


class RegisteredLicence(Terms):
    """What a `LicenseRef-` of this contract allows; the steward has read the licence and says so.

    `source` says where its text can be read.
    """

    id: Annotated[str, StringConstraints(pattern=r"^LicenseRef-[A-Za-z0-9.-]{1,60}$")]
    commercial: bool
    derivatives: bool
    share_alike: bool
    attribution: bool
    no_ai: bool
    source: Text

    def terms(self) -> LicenceTerms:
        """As the table of licences has them; what a contract registers needs no acceptance."""
        return LicenceTerms(licence=self.id, conditional=False, **self.model_dump(exclude={"id"}))


class Attestation(Terms):
    """A person vouches for what software cannot check: a DUO code or a Safe Harbor identifier."""

    of: DuoCode | SafeHarborLetter
    by: Text
    on: Instant


class TrustedRegistry(Terms):
    """A rights holder's registry, by name and by the key that its manifest is signed with."""

    name: RegistryName
    signer: PublicKeyHex


class CopyrightPolicy(Terms):
    """Registries that must be probed, and how much of a record they may hold.

    A record breaks the rule when it contains a chain of `MIN_CHAIN` tiles or more of one registry
    and more than `maxCoveragePerMille` of its words; `maxRecordsPerMille` records may.
    """

    registries: Annotated[tuple[TrustedRegistry, ...], Field(max_length=20)] = ()
    max_coverage_per_mille: PerMille = 0
    max_records_per_mille: PerMille = 0


class DuplicatePolicy(Terms):
    """Records per thousand that may repeat an earlier one, or be in both splits.

    Repetitions and leaking records are never trained on; the limits say when a data set with that
    many is refused as a whole.
    """

    max_exact_per_mille: PerMille = 100
    max_near_per_mille: PerMille = 300
    max_leaking_per_mille: PerMille = 50


class OptOutPolicy(Terms):
    """Opt-outs of text and data mining (Directive (EU) 2019/790, article 4(3)).

    A stated opt-out is always refused. `evidenceRequired` also refuses records without evidence
    that somebody looked, not longer than `maxAgeDays` ago.
    """

    evidence_required: bool = False
    max_age_days: Days = 365


class PersonalDataPolicy(Terms):
    """Kinds of personal data that are looked for, and records per thousand that may have any.

    `safeHarbor` says that the 18 identifiers of 45 CFR 164.514(b)(2)(i) matter: the contract then
    needs an attestation of each that no detector fully covers.
    """

    kinds: Annotated[tuple[PersonalDataKind, ...], Field(min_length=1, max_length=100)] = tuple(
        sorted(DEFAULT_KINDS)
    )
    max_records_per_mille: PerMille = 0
    safe_harbor: bool = False


class BalancePolicy(Terms):
    """Largest share of one label, per thousand records; only for data with labels."""

    max_majority_per_mille: PerMille


class DriftPolicy(Terms):
    """Largest population stability index against the last accepted round, in thousandths.

    Siddiqi, Credit Risk Scorecards, 2006: below 0.1 no change, above 0.25 a shift.
    """

    max_psi_thousandths: Annotated[int, Field(ge=1, le=10_000)] = 250


class ImagePolicy(Terms):
    """Images that must not be there: by perceptual hash, and by LAION's scores per thousand."""

    registry: RegistryName | None = None
    max_hamming_distance: Annotated[int, Field(ge=0, le=128)] = 31
    max_unsafe_per_mille: PerMille = 100
    max_watermark_per_mille: PerMille = 800


class RetentionPolicy(Terms):
    """How long a silo keeps what it made from the data: findings and training splits."""

    days: Days = 30


class EgressPolicy(Terms):
    """What may leave the silo; what is not named here does not."""

    allow: Annotated[
        tuple[Egress, ...], Field(min_length=1, max_length=len(EGRESS) + len(NAMED_EGRESS))
    ] = EGRESS


class DataTerms(Terms):
    """Everything a contract says as `fl.*`; each name is the property's name after `fl.`."""

    licences: Annotated[tuple[LicenceId, ...], Field(min_length=1, max_length=100)]
    minimum_records: PositiveCount
    expires: Instant
    minimum_cohort: Cohort = DEFAULT_MINIMUM_COHORT
    uses: Annotated[tuple[Use, ...], Field(min_length=1, max_length=2)] = ("research",)
    duo_codes: Annotated[tuple[DuoCode, ...], Field(max_length=30)] = ()
    attestations: Annotated[tuple[Attestation, ...], Field(max_length=50)] = ()
    licence_terms: Annotated[tuple[RegisteredLicence, ...], Field(max_length=50)] = ()
    licence_acceptances: Annotated[tuple[Text, ...], Field(max_length=50)] = ()
    package_licence: LicenceId | None = None
    form: FormName | None = None
    classes: Classes | None = None
    copyright: CopyrightPolicy = CopyrightPolicy()
    duplicates: DuplicatePolicy = DuplicatePolicy()
    opt_out: OptOutPolicy = OptOutPolicy()
    personal_data: PersonalDataPolicy = PersonalDataPolicy()
    balance: BalancePolicy | None = None
    drift: DriftPolicy = DriftPolicy()
    images: ImagePolicy = ImagePolicy()
    retention: RetentionPolicy = RetentionPolicy()
    egress: EgressPolicy = EgressPolicy()
    privacy: PrivacyBudget | None = None
    canaries: Canaries | None = None

    def attested(self) -> frozenset[str]:
        """DUO codes and Safe Harbor letters that somebody vouches for."""
        return frozenset(attestation.of for attestation in self.attestations)


PREFIX = "fl."
KNOWN = frozenset(PREFIX + to_camel(name) for name in DataTerms.model_fields)


def read_terms(properties: list[dict[str, Any]]) -> DataTerms:
    """The terms among ODCS custom properties; raises KeyRefusedError with the key's path.

    Properties that name another `vendor` are that vendor's; every other one must be known.
    """
    values: dict[str, Any] = {}
    for entry in properties:
        name = entry["property"]
        path = f"customProperties[{name[:60]}]"
        if entry.get("vendor", "consortia") != "consortia":
            if name.startswith(PREFIX):
                raise KeyRefusedError(path, "fl.* without another vendor", "another vendor's")
            continue
        if name not in KNOWN:
            raise KeyRefusedError(path, "one of " + ", ".join(sorted(KNOWN)), "an unknown key")
        if name in values:
            raise KeyRefusedError(path, "the property once", "it a second time")
        values[name] = entry["value"]
    stated = {name.removeprefix(PREFIX): value for name, value in values.items()}
    try:
        return DataTerms.model_validate_json(json.dumps(stated))
    except ValidationError as error:
        raise refused_value(error, PREFIX) from None


def refuse_misplaced(node: Any, path: str) -> None:
    """A term below the top level would bind nobody, although its author thinks it does."""
    if isinstance(node, list):
        for position, member in enumerate(node):
            refuse_misplaced(member, f"{path}[{position}]")
    elif isinstance(node, dict):
        name = node.get("property")
        if isinstance(name, str) and name.startswith(PREFIX):
            raise KeyRefusedError(f"{path}.property", "fl.* at the top level only", name[:60])
        for key, member in node.items():
            refuse_misplaced(member, f"{path}.{key}".removeprefix("."))
