"""Who the adapters of a round are encrypted to, or why there is no such plan. Pure."""

from aggregator.planning.feasibility import impossible
from aggregator.planning.inputs import PlanInputs
from aggregator.settings.federation import FederationSettings


def require_recipients(
    settings: FederationSettings, inputs: PlanInputs, cohort: tuple[str, ...]
) -> frozenset[str] | None:
    """The recipients of a round's adapters, the coordinator's among them; None where the settings
    do not encrypt. Raises FederationOperatorError where the membership lacks one."""
    if settings.storage.encryption is None:
        return None
    membership = inputs.membership.record
    found = {silo: membership.recipient_of(silo) for silo in cohort}
    lacking = sorted(silo for silo, recipient in found.items() if recipient is None)
    if lacking:
        raise impossible(
            f"a recipient of every silo of the cohort in membership {membership.number}",
            f"none of {', '.join(lacking)}",
            "ask each for what `silo-agent key --recipient` prints and name it with `consortia "
            "federation rotate-key --silo NAME --recipient AGE`, or take encryption out of "
            "[storage] in federation.toml",
        )
    if membership.coordinator_recipient is None:
        raise impossible(
            f"a recipient of the coordinator in membership {membership.number}",
            "none",
            "make one with `consortia federation rotate-key --coordinator-recipient`",
        )
    given = {recipient for recipient in found.values() if recipient is not None}
    return frozenset({*given, membership.coordinator_recipient})
