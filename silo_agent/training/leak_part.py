"""What a job says about the leak check of what it trains; ranks know no limits."""

from typing import Annotated

from pydantic import Field

from silo_agent.training.job_value import JobValue


class LeakPart(JobValue):
    """At most `most_records` on each side are measured, and in at most `share_of_training` of the
    seconds that the steps took."""

    most_records: Annotated[int, Field(ge=2)] = 1000
    share_of_training: Annotated[float, Field(gt=0)] = 0.2
