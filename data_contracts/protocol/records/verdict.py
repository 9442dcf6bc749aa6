"""The signed outcome of a silo's data contract, reduced to what may leave the silo."""

from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from data_contracts.protocol.records.licence_terms import LicenceTerms
from data_contracts.protocol.records.privacy_terms import PrivacyStatement
from data_contracts.protocol.records.round_record import SiloRecord
from data_contracts.protocol.wire_types import Count, Digest, Instant, LicenceId, Part, RuleId

VERDICT_VALIDITY = timedelta(days=7)
"""A verdict counts for no longer than this after it was issued, whatever else it rests on."""

MAX_LICENCES = 200


class RuleOutcome(Part):
    """One contract rule's outcome.

    Small cells are suppressed: `unexpected_count` is None when it, its complement or the total is
    between 1 and 9, and `element_count` is 0 below 10 records. `tolerated_per_mille` is how many of
    1000 records may break the rule; `at_least` and `at_most` bound one number about the whole set.
    """

    rule: RuleId
    type: RuleId
    success: bool
    severity: Literal["critical", "warning"]
    element_count: Count
    unexpected_count: Count | None
    tolerated_per_mille: Count | None = None
    at_least: Count | None = None
    at_most: Count | None = None


class LicenceCount(Part):
    """Records under one licence.

    `records` is None when fewer than 10, or when a small count followed from it by subtraction.
    """

    licence: LicenceId
    records: Count | None


class Verdict(SiloRecord):
    """Outcome of the contract, bound to plan, contract, findings (keyed digest), silo and expiry.

    `registered_licences` are the terms that the contract gives to ids of its own. Counts that the
    contract's egress policy keeps in the silo are 0 or None; `evaluates` says whether it lets
    losses out, so that nobody waits for them in vain. `offered` are the records of the data set,
    and `used` those that may be trained on or held out, or up to 9 fewer: what is left out is
    rounded down to tens, so that no small number follows by subtraction. None where fewer than 10
    are offered or counts may not leave. `privacy`: what the training that the verdict allows was
    charged, there for a plan that asks for privacy.
    """

    kind: ClassVar[str] = "verdict"
    added_fields: ClassVar[tuple[str, ...]] = ("privacy",)

    contract_digest: Digest
    findings_digest: Digest
    passed: bool
    outcomes: Annotated[tuple[RuleOutcome, ...], Field(max_length=100)]
    licences: Annotated[tuple[LicenceCount, ...], Field(max_length=MAX_LICENCES)]
    registered_licences: Annotated[tuple[LicenceTerms, ...], Field(max_length=50)] = ()
    evaluates: bool = True
    offered: Count | None = None
    used: Count | None = None
    expires_at: Instant
    privacy: PrivacyStatement | None = None
