"""What makes a job a private one: every number that its guarantee rests on, and its secret."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated

from pydantic import Field

from data_contracts.protocol.records.privacy_terms import PrivacyUnit
from silo_agent.training.job_value import JobValue


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
