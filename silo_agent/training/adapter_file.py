"""Writing an adapter: float32 with PEFT's names, complete or absent, checked by the gate."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save

from data_contracts.adapters.adapter_format import expected_shapes, open_adapter
from data_contracts.adapters.starting_adapter import Float32Array
from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from infra.disk.durable_files import write_durably


def write_adapter(path: Path, layout: AdapterLayout, tensors: dict[str, Float32Array]) -> None:
    """Write `tensors` to `path`, then open what was written through the gate.

    Raises SiloOperatorError when a tensor is missing, empty, of another shape or not finite.
    """
    for name, shape in expected_shapes(layout).items():
        tensor = tensors.get(name)
        if tensor is None or tensor.shape != shape:
            raise _unfit(name, f"shape {shape}", "none" if tensor is None else f"{tensor.shape}")
        if not np.isfinite(tensor).all():
            raise _unfit(name, "finite values", "NaN or infinity")
    ordered = {name: np.ascontiguousarray(tensors[name], dtype="<f4") for name in sorted(tensors)}
    write_durably(path, save(ordered))
    for _ in open_adapter(path, layout).modules():
        continue


def _unfit(name: str, expected: str, found: str) -> SiloOperatorError:
    return SiloOperatorError(
        f"trained adapter tensor {name}",
        expected=expected,
        found=found,
        action="look into the training log; if the loss rose, ask for a lower learning rate",
    )
