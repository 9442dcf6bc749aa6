"""How much memory ranks take at least, from the headers of the base model's files."""

import json
import struct
from math import prod
from pathlib import Path

from data_contracts.errors import ConsortiaError
from infra.disk.model_files import model_files
from silo_agent.training.engine_spec import Device

RANK_BYTES = 500_000_000
"""What a rank needs besides the model: PyTorch, DeepSpeed and activations of a small batch."""

BYTES_PER_PARAMETER = {"cpu": 4, "cuda": 2}


def ranks_bytes(parameters: int, ranks: int, device: Device) -> int:
    """Main memory that `ranks` with a base model of so many parameters take, at least."""
    weights = parameters * BYTES_PER_PARAMETER[device]
    return ranks * (RANK_BYTES + (weights if device == "cpu" else 0))


def model_parameters(model: Path) -> int:
    """How many parameters the model's files hold, from their headers; 0 where there is none."""
    try:
        files = model_files(model)
    except ConsortiaError:
        return 0
    return sum(_in_header(path) for path in files.values() if path.suffix == ".safetensors")


def _in_header(path: Path) -> int:
    """Elements in a safetensors file: 8 bytes of length, then JSON by tensor."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, path.stat().st_size)))
        return sum(
            prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"
        )
    except (OSError, ValueError, struct.error, LookupError, TypeError, AttributeError):
        return 0
