"""In which way a private plan is trained: each rank has every gradient whole, so stage 1 alone."""

from silo_agent.config import TrainingSection
from silo_agent.training.engine_spec import Stage

PRIVATE_STAGE: Stage = 1


def is_private_stage(training: TrainingSection) -> bool:
    """Whether what a person has set leaves that open; a default is nobody's decision."""
    is_set = "zero_stage" in training.model_fields_set
    is_open = not is_set or training.zero_stage in ("auto", PRIVATE_STAGE)
    # Rounded to 8 bits on a GPU, a record's numbers depend on the records beside it.
    is_whole = not (training.base_weights == "8-bit" and training.device == "cuda")
    return is_open and is_whole and training.offload == "none"


def in_private_stage(training: TrainingSection) -> TrainingSection:
    """The settings with that stage; what else they leave open stays so."""
    return training.model_copy(update={"zero_stage": PRIVATE_STAGE, "offload": "none"})
