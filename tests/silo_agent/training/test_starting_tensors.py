from pathlib import Path

import numpy as np
import pytest

from data_contracts.adapters.adapter_format import lora_b_name
from data_contracts.adapters.starting_adapter import InitialAdapter, tensors_of
from data_contracts.errors import SiloOperatorError, UntrustedInputError
from silo_agent.training.ranks.adapter_file import write_adapter
from silo_agent.training.ranks.starting_tensors import starting_tensors
from tests.tiny_model import tiny_adapter_layout


def test_a_written_adapter_is_what_the_next_round_starts_from(tmp_path: Path) -> None:
    layout = tiny_adapter_layout()
    tensors = {name: array + 0.5 for name, array in tensors_of(InitialAdapter(layout)).items()}
    write_adapter(tmp_path / "adapter.safetensors", layout, tensors)
    read = dict(starting_tensors(layout, tmp_path / "adapter.safetensors"))
    assert all(np.array_equal(read[name], tensors[name]) for name in tensors)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter.safetensors"]


def test_starting_adapter_passes_through_the_gate(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    write_adapter(
        path, tiny_adapter_layout(rank=4), tensors_of(InitialAdapter(tiny_adapter_layout(rank=4)))
    )
    with pytest.raises(UntrustedInputError, match="adapter"):
        list(starting_tensors(tiny_adapter_layout(rank=8), path))


@pytest.mark.parametrize("damage", ["missing", "empty", "not finite"])
def test_an_unfit_tensor_is_never_written(tmp_path: Path, damage: str) -> None:
    layout = tiny_adapter_layout()
    tensors = tensors_of(InitialAdapter(layout))
    name = lora_b_name(layout.targets[3].module)
    if damage == "missing":
        del tensors[name]
    elif damage == "empty":
        tensors[name] = np.zeros((0,), dtype=np.float32)
    else:
        tensors[name][0, 0] = np.nan
    with pytest.raises(SiloOperatorError, match=f"trained adapter tensor {name}"):
        write_adapter(tmp_path / "adapter.safetensors", layout, tensors)
    assert list(tmp_path.iterdir()) == []
