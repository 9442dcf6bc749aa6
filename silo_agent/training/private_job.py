"""The private part of a training job: from the plan, the silo's statement, and its ledger."""

from datetime import datetime
from pathlib import Path

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records import RoundPlan, Verdict
from silo_agent.gate.splits import Splits
from silo_agent.privacy.ledger import PrivacyLedger
from silo_agent.training.job import TrainingJob
from silo_agent.training.private_part import PrivatePart

NO_SECRET = Path("secret-of-the-training")
"""In place of the secret while a job is named: it is the same job whatever its secret is called."""


def private_part(
    home: Path, plan: RoundPlan, verdict: Verdict, splits: Splits
) -> PrivatePart | None:
    """None for a plain plan; `with_secret` adds what its noise is drawn from."""
    terms, statement = plan.privacy, verdict.privacy
    if terms is None:
        return None
    if statement is None:
        raise SiloOperatorError(
            f"verdict of round {plan.round} in {home}",
            expected="a statement of what its private training was charged",
            found="none",
            action="let the round end; nothing is trained on what was not charged",
        )
    return PrivatePart(
        unit=terms.unit,
        clipping_norm=terms.clipping_norm,
        noise_multiplier=statement.noise_multiplier,
        sampling_rate=statement.sampling_rate,
        expected_units=plan.recipe.sequences_per_step,
        records_per_unit=terms.records_per_unit,
        secret=NO_SECRET,
        units=splits.units if terms.unit == "subject" else None,
    )


def with_secret(home: Path, verdict: Verdict, job: TrainingJob, now: datetime) -> TrainingJob:
    """The job with the secret that its charge has; the same job always finds the same one.

    Raises NotTrainedError where it was released, or would have to be charged over the budget.
    """
    if job.private is None:
        return job
    plan, findings = verdict.plan_digest, verdict.findings_digest
    secret = PrivacyLedger(home).secret_for(plan, findings, job.fingerprint(), now)
    return job.model_copy(update={"private": job.private.model_copy(update={"secret": secret})})
