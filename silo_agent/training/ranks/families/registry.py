"""The families that ranks can train, by name."""

from data_contracts.protocol.records.model_family import FamilyTask, ModelFamily
from silo_agent.training.ranks.families.causal_lm import CausalLm
from silo_agent.training.ranks.families.denoising import Denoising
from silo_agent.training.ranks.families.dual_encoder import DualEncoder
from silo_agent.training.ranks.families.family import Family
from silo_agent.training.ranks.families.masked_lm import MaskedLm
from silo_agent.training.ranks.families.sequence_classification import SequenceClassification

FAMILIES: dict[ModelFamily, type[Family]] = {
    "causal-lm": CausalLm,
    "masked-lm": MaskedLm,
    "sequence-classification": SequenceClassification,
    "dual-encoder": DualEncoder,
    "denoising": Denoising,
}


def family_of(task: FamilyTask) -> Family:
    """The family of a plan's task."""
    return FAMILIES[task.family](task)
