"""Whether enough silos that people here know are in a sum, by the keys that their membership names.

A threshold counts silos, whoever they are, and the coordinator picks of whom it asks what. So a
policy can name partners, each with the fingerprint of its key or for whichever key the federation's
root keys have signed, and how many of them have to be among those whose changes are summed. It is
asked of the cohort, of those that gave keys, of those between which pads lie, and of those that are
summed: only the last decides, and before it nobody has trained for nothing.
"""

from collections.abc import Iterable

from data_contracts.protocol.dsse import fingerprint
from data_contracts.protocol.records import Membership
from silo_agent.policy.plan_context import PolicyRefusal
from silo_agent.policy.policy_file import ANY_KEY, Policy, PolicyFile

UNREADABLE = PolicyRefusal("policy.unreadable", "The silo has no readable policy.")
FEW_KNOWN = PolicyRefusal(
    "policy.known_silos",
    "The plan's sum has fewer of the silos that the silo knows than it asks for.",
)


def objection_to_sum(
    silos: Iterable[str], file: PolicyFile, membership: Membership, own: str
) -> PolicyRefusal | None:
    """Why the silo `own` has no part in a sum of `silos`, or None."""
    if file.policy is None:
        return UNREADABLE
    is_known = knows_enough(silos, file.policy, membership, own)
    return None if is_known else FEW_KNOWN


def knows_enough(silos: Iterable[str], policy: Policy, membership: Membership, own: str) -> bool:
    """Whether as many others among `silos` are known as the policy asks for."""
    known = sum(silo != own and is_known(silo, policy, membership) for silo in set(silos))
    return known >= (policy.limits.min_known_silos or 0)


def is_known(silo: str, policy: Policy, membership: Membership) -> bool:
    """Whether the membership names this silo with a key that the policy takes for its own."""
    wanted, key = policy.known_silos.get(silo), membership.key_of(silo)
    if wanted is None or key is None:
        return False
    return wanted in (ANY_KEY, digits_of(fingerprint(key)))


def digits_of(text: str) -> str:
    """A fingerprint as it is compared, without what people group it by."""
    return "".join(text.split()).lower()
