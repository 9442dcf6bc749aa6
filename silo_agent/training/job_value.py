"""What agent and training processes say to each other: values that travel as JSON."""

from pydantic import BaseModel, ConfigDict


class JobValue(BaseModel):
    """Frozen, closed, and without numbers that JSON does not have."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
