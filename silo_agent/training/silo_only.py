"""What a silo trains beside its part in the federation, to compare with."""

from pathlib import Path

from silo_agent.training.job_value import JobValue


class SiloOnlyBaseline(JobValue):
    """The adapter that this silo would have without the federation, trained for comparison.

    `previous_adapter` is the newest silo-only adapter of the run; None starts from the seed.
    """

    enabled: bool = False
    previous_adapter: Path | None = None
