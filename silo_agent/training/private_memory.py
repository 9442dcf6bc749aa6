"""What private steps take beside plain ones: the gradients of a micro-batch, record by record."""

import math

from data_contracts.protocol.records.model_family import CAUSAL
from infra.base_model.model_shape import ModelShape
from silo_agent.training.activations_memory import Part
from silo_agent.training.rank_work import Choice, Work
from silo_agent.training.weights_memory import FLOAT32_BYTES

NAME = "gradients of single records"
RECORD_TOKENS = 64
"""Records that share a row are taken to be as long on average: how long they are is known only when
they are packed."""
DEVIATIONS = 3
"""By which a step draws more records than the average one: as often as once in some 700 steps."""


def record_gradients(
    shape: ModelShape, work: Work, choice: Choice, trained: int
) -> tuple[Part, ...]:
    """Of so many `trained` numbers, in float32, for each record that goes through the model at a
    time, and once for their sum; none of a plain training."""
    if work.private_records is None:
        return ()
    rows = records_at_once(shape, work, choice, work.private_records)
    return (Part(NAME, FLOAT32_BYTES * trained * (rows + 1)),)


def records_at_once(shape: ModelShape, work: Work, choice: Choice, drawn: int) -> int:
    """In a micro-batch, of those that a step draws at its largest (Poisson, so its variance is its
    mean)."""
    most = drawn + math.ceil(DEVIATIONS * math.sqrt(drawn))
    a_row = max(1, work.row_tokens(shape) // RECORD_TOKENS) if work.family == CAUSAL else 1
    return min(most, choice.micro_batch * a_row)
