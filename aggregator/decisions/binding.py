"""Whether a record belongs to the attempt that it was found in."""

from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan, RoundRecord


def binding_fault(record: RoundRecord, plan: Verified[RoundPlan]) -> str | None:
    """The first field by which a record belongs to something else, as a rule, or None.

    In the order federation, run, round, attempt, plan digest.
    """
    asked = plan.record
    pairs = (
        ("federation", record.federation, asked.federation),
        ("run", record.run, asked.run),
        ("round", record.round, asked.round),
        ("attempt", record.attempt, asked.attempt),
        ("plan", record.plan_digest, plan.digest),
    )
    return next((f"binding.{name}" for name, found, wanted in pairs if found != wanted), None)
