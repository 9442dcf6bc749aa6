"""Whether this silo's key counts; without that, everything it signs would be ignored."""

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Membership, RoundPlan
from silo_agent.federation.feed import FeedView
from silo_agent.silo import Silo


def signs_from_the_next_plan(silo: Silo, feed: FeedView, plan: Verified[RoundPlan]) -> bool:
    """Whether this silo's key was replaced since the plan: the old one would have to finish it."""
    own = silo.release.outbox.public_key
    return own != feed.membership_of(plan).key_of(silo.name) and own == feed.newest.key_of(
        silo.name
    )


def require_own_key(silo: Silo, membership: Membership) -> None:
    """A record under another key than the membership's would be ignored by everybody."""
    known = membership.key_of(silo.name)
    if known != silo.release.outbox.public_key:
        raise SiloOperatorError(
            f"signing key of {silo.name}",
            expected=f"the key that membership {membership.number} names for this silo",
            found="another key" if known else "a membership without this silo",
            action="restore the silo's key, or give its public key to the federation operator "
            "and compare fingerprints",
        )


def require_not_revoked(silo: Silo, feed: FeedView, plan: Verified[RoundPlan]) -> None:
    """Raise SiloOperatorError for a key that does not count on a plan any more."""
    if feed.feed.silo_key(plan, silo.name) is None:
        raise SiloOperatorError(
            f"signing key of {silo.name}",
            expected="a key that counts",
            found=f"one that was revoked, as membership {feed.newest.number} knows",
            action="make a new key, and give its public key to the federation operator",
        )
