"""How much memory ranks take at least, from the headers of the base model's files."""

from pathlib import Path

from data_contracts.errors import ConsortiaError
from infra.base_model.folder_check import elements
from infra.base_model.weight_files import read_weights
from silo_agent.training.engine_spec import Device

RANK_BYTES = 500_000_000
"""What a rank needs besides the model: PyTorch, DeepSpeed and activations of a small batch."""

BYTES_PER_PARAMETER = {"cpu": 4, "cuda": 2}


def ranks_bytes(parameters: int, ranks: int, device: Device) -> int:
    """Main memory that `ranks` with a base model of so many parameters take, at least."""
    weights = parameters * BYTES_PER_PARAMETER[device]
    return ranks * (RANK_BYTES + (weights if device == "cpu" else 0))


def model_parameters(model: Path) -> int:
    """How many parameters the model's files hold, from their headers; 0 where they are none."""
    try:
        return elements(read_weights(model))
    except (ConsortiaError, OSError):
        return 0
