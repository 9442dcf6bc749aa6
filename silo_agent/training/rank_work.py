"""What a rank trains, and what a silo can choose about it: what its memory depends on."""

from dataclasses import dataclass

from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.model_family import CAUSAL, ModelFamily
from data_contracts.protocol.records.training_recipe import TrainedFactors
from infra.base_model.model_shape import ModelShape
from silo_agent.training.engine_spec import Device, HeldAs, Offload, Stage
from silo_agent.training.weights_memory import NUMBER_BYTES


@dataclass(frozen=True)
class Work:
    """What a rank trains, as a plan and a silo say it; lengths and counts in tokens.

    `round_tokens` are those of all packed sequences of a round, which every rank holds.
    `private_records`: how many a step of a private training draws for a rank on average, each with
    a gradient of its own; None of a plain one.
    """

    layout: AdapterLayout
    residual_layout: AdapterLayout | None
    trained: TrainedFactors
    sequence_length: int
    round_tokens: int
    ranks: int
    device: Device
    held: HeldAs
    family: ModelFamily = CAUSAL
    private_records: int | None = None

    def row_tokens(self, shape: ModelShape) -> int:
        """Of one row of text at its longest: records that share none are cut to what a model was
        made for."""
        if self.family == CAUSAL or shape.context is None:
            return self.sequence_length
        return min(self.sequence_length, shape.context)

    @property
    def number_bytes(self) -> int:
        """Of a weight that is not quantised, and of an activation."""
        return NUMBER_BYTES[self.held.precision]


@dataclass(frozen=True)
class Choice:
    """What a silo can do to make its work fit."""

    zero_stage: Stage = 2
    micro_batch: int = 1
    gradient_checkpointing: bool = False
    offload: Offload = "none"
