"""What opens a masked sum: revealed shares, each held against its owner's commitment.

Pure, over the records of an attempt, so that an auditor who has them rebuilds the same seeds.
"""

from collections import Counter
from collections.abc import Mapping

from aggregator.attempt import Attempt, SiloRecords
from data_contracts.confidential.attempt import commitments_of, group_of, terms_of
from data_contracts.errors import UntrustedInputError
from data_contracts.masking.mask_group import MaskGroup
from data_contracts.masking.shares import (
    Share,
    ShareCommitments,
    check_share,
)
from data_contracts.protocol.records import SealedShares
from data_contracts.protocol.relayed import relayed

NOT_OPENED = "masking.not_opened"


def usable_shares(attempt: Attempt) -> Mapping[str, tuple[Share, ...]]:
    """By silo, the shares of each that revealed what it was asked for, and nothing else.

    Left out is a silo whose record is on another close, or has a share that its owner did not give
    it: the others' are enough, or the attempt ends.
    """
    found: dict[str, tuple[Share, ...]] = {}
    if attempt.roster is None or attempt.book is None or attempt.close is None:
        return found
    group = group_of(attempt.plan, attempt.roster, attempt.membership.record)
    shown = shown_of(attempt)
    admitted = {item.silo for item in attempt.close.record.admitted}
    for silo in sorted(admitted):
        shares = _revealed(attempt, attempt.of(silo))
        asked = {(o, "self_seed" if o in admitted else "mask_seed") for o in shown}
        if {(share.owner, share.seed) for share in shares} == asked and all(
            _is_good(share, group, shown[share.owner]) for share in shares
        ):
            found[silo] = shares
    return found


def lacking(attempt: Attempt, usable: Mapping[str, tuple[Share, ...]]) -> tuple[str, ...]:
    """The silos of whose seed fewer shares than the threshold are there."""
    counts = Counter(share.owner for shares in usable.values() for share in shares)
    threshold = terms_of(attempt.plan.record).threshold
    return tuple(owner for owner in shown_of(attempt) if counts[owner] < threshold)


def shown_of(attempt: Attempt) -> Mapping[str, ShareCommitments]:
    """By owner, what each silo of the share book committed to."""
    if attempt.book is None:
        return {}
    words = relayed(
        attempt.book.record.shares, SealedShares, attempt.plan, attempt.membership.record
    )
    return {silo: commitments_of(word.record) for silo, word in words.items()}


def _revealed(attempt: Attempt, own: SiloRecords) -> tuple[Share, ...]:
    word, listed = own.revealed_shares, attempt.countersigned
    if word is None or listed is None or word.record.countersigned_digest != listed.digest:
        return ()
    return tuple(
        Share(share.owner, own.silo, share.secret, bytes.fromhex(share.share))
        for share in word.record.shares
    )


def _is_good(share: Share, group: MaskGroup, shown: ShareCommitments) -> bool:
    try:
        check_share(share, group, shown)
    except UntrustedInputError:
        return False
    return True
