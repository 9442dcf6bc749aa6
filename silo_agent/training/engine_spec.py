"""What a DeepSpeed engine cannot change once it is built, as a value."""

import math
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from data_contracts.protocol.records.round_plan import AdapterLayout, TrainedFactors

Device = Literal["cpu", "cuda"]
Offload = Literal["none", "cpu", "nvme"]


class EngineSpec(BaseModel):
    """Jobs with the same one can be done with one engine, one after the other.

    `residual_layout` None means that no residual acts beside the adapter; `sequences_per_rank` are
    those of one step, of which `micro_batch` at a time go through the model. `offload` goes with
    stage 3; `offload_dir` is where "nvme" writes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_dir: Path
    layout: AdapterLayout
    residual_layout: AdapterLayout | None
    trained: TrainedFactors
    sequences_per_rank: Annotated[int, Field(ge=1)]
    weight_decay: Decimal
    max_gradient_norm: Decimal
    zero_stage: Literal[1, 2, 3]
    ranks: Annotated[int, Field(ge=1)]
    device: Device
    micro_batch: Annotated[int, Field(ge=1)] = 1
    gradient_checkpointing: bool = False
    offload: Offload = "none"
    offload_dir: Path | None = None

    @property
    def backward_passes(self) -> int:
        """Those of one step on one rank; the last may have fewer sequences than the others."""
        return math.ceil(self.sequences_per_rank / self.micro_batch)

    def measures_as(self, other: "EngineSpec") -> bool:
        """Whether the model is the same, so that held-out losses are."""
        return (self.model_dir, self.layout, self.residual_layout, self.device) == (
            other.model_dir,
            other.layout,
            other.residual_layout,
            other.device,
        )
