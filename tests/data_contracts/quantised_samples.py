"""A small quantised file, as tensors and as bytes, and what the gate says of bytes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.adapters.adapter_format import (
    expected_shapes,
    lora_a_name,
    lora_b_name,
)
from data_contracts.adapters.block_quantisation import SCHEMES, Scheme, quantise
from data_contracts.adapters.quantised_format import (
    check_quantised,
    codes_name,
    scales_name,
)
from data_contracts.adapters.starting_adapter import (
    AdapterSource,
    Float32Array,
    InitialAdapter,
)
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget

LAYOUT = AdapterLayout(
    rank=3,
    alpha=6,
    seed=1,
    targets=(
        AdapterTarget(module="model.layers.0.q_proj", in_features=7, out_features=5),
        AdapterTarget(module="model.layers.0.up_proj", in_features=9, out_features=1500),
    ),
)
FIRST, SECOND = LAYOUT.targets
A_NAME, B_NAME = lora_a_name(FIRST.module), lora_b_name(FIRST.module)
NAMES = list(expected_shapes(LAYOUT))
START = InitialAdapter(LAYOUT)
INT8, INT4 = SCHEMES["int8"], SCHEMES["int4"]
BOTH = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES.keys())
Tensors = dict[str, np.ndarray[Any, Any]]


def differences(scale: float = 0.01) -> dict[str, Float32Array]:
    rng = np.random.default_rng(0)
    return {
        name: (rng.standard_normal(shape) * scale).astype(np.float32)
        for name, shape in expected_shapes(LAYOUT).items()
    }


def content(scheme: Scheme, scale: float = 0.01) -> Tensors:
    entries: Tensors = {}
    for name, values in differences(scale).items():
        blocks = quantise(values, scheme)
        codes = blocks.codes.view(np.int8) if scheme is INT8 else blocks.codes
        entries |= {codes_name(name): codes.copy(), scales_name(name): blocks.scales.copy()}
    return entries


def rule_of(path: Path, raw: bytes, scheme: Scheme, start: AdapterSource = START) -> str:
    path.write_bytes(raw)
    with pytest.raises(UntrustedInputError) as caught:
        check_quantised(path, LAYOUT, scheme, start)
    return caught.value.rule.removeprefix("adapter.")


class Constant:
    """An adapter whose every value is the same."""

    def __init__(self, value: float) -> None:
        self.layout, self._value = LAYOUT, np.float32(value)

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        a = np.full((LAYOUT.rank, target.in_features), self._value, dtype=np.float32)
        return a, np.full((target.out_features, LAYOUT.rank), self._value, dtype=np.float32)
