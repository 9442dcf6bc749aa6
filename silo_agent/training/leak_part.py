"""What a job says about the leak check of what it trains; ranks know no limits."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from silo_agent.training.job_value import JobValue


class CanaryPart(JobValue):
    """The last training records are `planted` canaries, in so many `copies`: the first copy of
    each, then the second of each. `records` is a file with each once, then candidates."""

    records: Path
    planted: Annotated[int, Field(ge=1)]
    copies: Annotated[int, Field(ge=1)]


class LeakPart(JobValue):
    """At most `most_records` on each side are measured, and in at most `share_of_training` of the
    seconds that the steps took."""

    most_records: Annotated[int, Field(ge=2)] = 1000
    share_of_training: Annotated[float, Field(gt=0)] = 0.2
    canaries: Annotated[CanaryPart | None, Field(exclude_if=lambda value: value is None)] = None

    @property
    def reference_canaries(self) -> Path | None:
        """The file of the canaries, where some are planted."""
        return self.canaries.records if self.canaries else None
