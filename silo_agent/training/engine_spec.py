"""What a DeepSpeed engine cannot change once it is built, as a value."""

import math
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.model_family import CAUSAL_TASK, FamilyTask
from data_contracts.protocol.records.training_recipe import TrainedFactors

Device = Literal["cpu", "cuda"]
Offload = Literal["none", "cpu", "nvme"]
Precision = Literal["float32", "bfloat16"]
BaseWeights = Literal["full", "8-bit", "4-bit"]

Stage = Literal[1, 2, 3]


@dataclass(frozen=True)
class HeldAs:
    """How a model is held in memory: in which precision, its base weights whole or quantised."""

    precision: Precision
    base_weights: BaseWeights = "full"

    def measures_on(self, device: Device) -> bool:
        """Whether held-out losses are those of the pinned base model, which may leave."""
        return self == PINNED[device]


PINNED: dict[Device, HeldAs] = {"cpu": HeldAs("float32"), "cuda": HeldAs("bfloat16")}
"""How the pinned model is held on which held-out losses are measured: by no setting of a silo."""


def measuring_stage(zero_stage: Stage, held: HeldAs, ranks: int) -> Stage:
    """The ZeRO stage at which ranks measure that train at `zero_stage` with a model held so."""
    return 3 if held.base_weights != "full" and ranks > 1 else zero_stage


class EngineSpec(BaseModel):
    """Jobs with the same one can be done with one engine, one after the other.

    `residual_layout` None means that no residual acts beside the adapter; `sequences_per_rank` are
    those of one step, of which `micro_batch` at a time go through the model. `offload` goes with
    stage 3; `offload_dir` is where "nvme" writes. `precision` is that of all numbers but those of
    the optimizer; quantised `base_weights` go with stages 1 and 2. A `private` one is given
    gradients, at stage 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_dir: Path
    layout: AdapterLayout
    residual_layout: AdapterLayout | None
    trained: TrainedFactors
    sequences_per_rank: Annotated[int, Field(ge=1)]
    weight_decay: Decimal
    max_gradient_norm: Decimal
    zero_stage: Stage
    ranks: Annotated[int, Field(ge=1)]
    device: Device
    micro_batch: Annotated[int, Field(ge=1)] = 1
    gradient_checkpointing: bool = False
    offload: Offload = "none"
    offload_dir: Path | None = None
    precision: Precision = "float32"
    base_weights: BaseWeights = "full"
    task: Annotated[FamilyTask, Field(exclude_if=lambda value: value == CAUSAL_TASK)] = CAUSAL_TASK
    private: Annotated[bool, Field(exclude_if=lambda value: not value)] = False

    @property
    def held(self) -> HeldAs:
        """How its model is held."""
        return HeldAs(self.precision, self.base_weights)

    @property
    def measures(self) -> bool:
        """As `HeldAs.measures_on` its device."""
        return self.held.measures_on(self.device)

    @property
    def for_measuring(self) -> "EngineSpec":
        """With the pinned base model, on which held-out losses are measured that leave.

        Where only a quantised one fits, several ranks share the weights out.
        """
        if self.measures:
            return self
        return self.model_copy(
            update={
                **vars(PINNED[self.device]),
                "zero_stage": measuring_stage(self.zero_stage, self.held, self.ranks),
            }
        )

    @property
    def backward_passes(self) -> int:
        """Those of one step on one rank; the last may have fewer sequences than the others.

        Of a private one there is one, of the gradient that was made before.
        """
        if self.private:
            return 1
        return math.ceil(self.sequences_per_rank / self.micro_batch)

    def measures_as(self, other: "EngineSpec") -> bool:
        """Whether the model is the same, so that held-out losses are."""
        return self._model == other._model

    @property
    def _model(self) -> tuple[object, ...]:
        layouts = (self.layout, self.residual_layout)
        return (self.model_dir, self.task, *layouts, self.device, self.held)
