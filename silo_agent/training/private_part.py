"""What makes a job a private one: every number that its guarantee rests on, and its secret."""

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from data_contracts.protocol.records.privacy_terms import JOINT_LOSSES, PrivacyUnit
from silo_agent.training.job_value import JobValue

if TYPE_CHECKING:
    from silo_agent.training.job import TrainingJob


class PrivatePart(JobValue):
    """Differentially private steps; see `data_contracts.protocol.records.privacy_terms`.

    `expected_units`: what a noisy sum is divided by, whatever was drawn. `secret`: a file of 32
    random bytes that no plan knows; with the job's fingerprint it decides what is drawn in each
    step and which noise is added, so that a step done again after a kill is the same one.
    `units`: a file with the unit of each training record, little-endian uint32 in the records'
    order, counted from 0; None: every record is one.
    """

    unit: PrivacyUnit
    clipping_norm: Annotated[Decimal, Field(gt=0)]
    noise_multiplier: Annotated[Decimal, Field(ge=0)]
    sampling_rate: Annotated[Decimal, Field(gt=0, le=1)]
    expected_units: Annotated[int, Field(ge=1)]
    records_per_unit: Annotated[int, Field(ge=1)] = 1
    secret: Path
    units: Path | None = None


def require_private(job: "TrainingJob") -> None:
    """Raises ValueError for what would not be private, or not be what a plan says that it is."""
    for is_asked, what, why in _refusals(job):
        if is_asked:
            raise ValueError(f"a private training cannot have {what}: {why}")


def _refusals(job: "TrainingJob") -> list[tuple[bool, str, str]]:
    parts = "gradients of the data are taken apart there before they are cut and noised"
    merged = "how a private adapter does is told of the merged one alone"
    compared = "it would be trained on the same records without privacy"
    return [
        (job.zero_stage != 1, f"zero_stage {job.zero_stage}, only 1", parts),
        (job.offload != "none", f"offload {job.offload}", parts),
        (
            job.task.family in JOINT_LOSSES,
            f"the family {job.task.family}",
            "its contrastive loss is no sum over records, so no record has a gradient of its own",
        ),
        (
            job.recipe.proximal_mu != 0,
            f"a proximal term of {job.recipe.proximal_mu}",
            "its gradient is none of a unit's, and would be left out",
        ),
        (
            job.base_weights == "8-bit" and job.device == "cuda",
            "8-bit base_weights on cuda",
            "how a record's numbers are rounded there depends on the records beside it",
        ),
        (job.personal is not None, "a personal part", compared),
        (job.silo_only.enabled, "a silo-only baseline", compared),
        (job.measure_local, "measure_local", merged),
    ]
