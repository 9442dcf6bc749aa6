"""Readiness of the partners that the policy names: whether the membership has them, and their keys.

A key that was replaced is no fault of anybody, and still has to be compared anew before it counts.
"""

from data_contracts.protocol.dsse import fingerprint
from data_contracts.protocol.records import Membership
from silo_agent.policy.known_silos import is_known
from silo_agent.policy.policy_file import Policy
from silo_agent.readiness.checklist import Item, there, wrong
from silo_agent.readiness.facts import Facts

NAME = "known silos"


def known_silos(facts: Facts) -> list[Item]:
    """How many of them a sum could have, and why not the rest; nothing where none is named."""
    policy, membership, own = facts.policy.policy, facts.membership, facts.config.silo
    if policy is None or not policy.known_silos:
        return []
    if membership is None:
        return [Item(NAME, "not checked", "they need a membership")]
    faults = [
        fault
        for silo in sorted(policy.known_silos)
        if (fault := _fault(silo, policy, membership, own)) is not None
    ]
    count, least = len(policy.known_silos) - len(faults), policy.limits.min_known_silos or 0
    detail = f"{count} of {len(policy.known_silos)} count, and a sum needs {least}"
    if not faults:
        return [there(NAME, detail)]
    detail = "; ".join([detail, *faults])
    step = "compare keys by telephone, then correct known_silos in the policy"
    if count < least:
        return [wrong(NAME, f"{detail}; every confidential plan is refused", step)]
    return [Item(NAME, "warning", detail, step)]


def _fault(silo: str, policy: Policy, membership: Membership, own: str) -> str | None:
    key = membership.key_of(silo)
    if silo == own:
        return f"{silo} is this silo itself"
    if key is None:
        return f"{silo} is no member"
    if not is_known(silo, policy, membership):
        return f"the key of {silo} is another one, {fingerprint(key)}"
    return None
