"""The seeds that revealed shares give: what takes the pads out of a sum."""

from aggregator.attempt import Attempt
from aggregator.decisions.opening import shown_of, usable_shares
from data_contracts.confidential.attempt import group_of
from data_contracts.masking.rebuilt_seeds import RebuiltSeeds, rebuilt_seeds


def opening_seeds(attempt: Attempt) -> RebuiltSeeds:
    """The seeds that `usable_shares` give: those of a closed attempt of a masked plan.

    Raises FederationOperatorError below the threshold and UntrustedInputError, against the owner,
    where its shares give another seed than it committed to.
    """
    if attempt.roster is None or attempt.close is None:
        raise ValueError("expected an attempt with a roster and a close record")
    group = group_of(attempt.plan, attempt.roster, attempt.membership.record)
    handed_out = [share for own in usable_shares(attempt).values() for share in own]
    admitted = [item.silo for item in attempt.close.record.admitted]
    return rebuilt_seeds(handed_out, group, shown_of(attempt), admitted)
