"""An attempt in confidential mode as the arithmetic of masks sees it: from records to values.

Silo, coordinator and auditor all read the coordinator's lists here, so that they see the same
group, the same commitments and the same binding.
"""

from data_contracts.masking.mask_group import MaskGroup, mask_group
from data_contracts.masking.shares import ShareCommitments
from data_contracts.masking.silo_secrets import AdvertisedKeys
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import (
    MaskKeys,
    MaskRoster,
    Membership,
    RoundPlan,
    SealedShares,
)
from data_contracts.protocol.records.masking_terms import MaskingTerms
from data_contracts.protocol.relayed import relayed


def binding_of(plan: Verified[RoundPlan]) -> bytes:
    """What all of an attempt's masks are bound to: its plan, which names federation, run, round,
    attempt, cohort and base model."""
    return bytes.fromhex(plan.digest)


def terms_of(plan: RoundPlan) -> MaskingTerms:
    """The masking of a plan that has one; ValueError for any other."""
    if plan.masking is None:
        raise ValueError("expected a plan in confidential mode")
    return plan.masking


def group_of(
    plan: Verified[RoundPlan], roster: Verified[MaskRoster], membership: Membership
) -> MaskGroup:
    """The silos of a roster with their keys, each verified under its silo's signature.

    Raises UntrustedInputError for a roster that no honest coordinator signs.
    """
    words = relayed(roster.record.keys, MaskKeys, plan, membership)
    keys = [advertised_keys(word.record) for word in words.values()]
    return mask_group(binding_of(plan), terms_of(plan.record).threshold, keys)


def advertised_keys(record: MaskKeys) -> AdvertisedKeys:
    """A silo's keys as values."""
    mask_key, sealing_key = bytes.fromhex(record.mask_key), bytes.fromhex(record.sealing_key)
    return AdvertisedKeys(record.silo, mask_key, sealing_key)


def commitments_of(record: SealedShares) -> ShareCommitments:
    """What a silo committed to, in the order of the holders' ids."""
    shares = sorted(record.shares, key=lambda share: share.holder)
    return ShareCommitments(
        owner=record.silo,
        self_seed=record.self_seed,
        mask_seed_shares=tuple(share.mask_commitment for share in shares),
        self_seed_shares=tuple(share.self_commitment for share in shares),
    )
