"""The adapter that round 1 starts from, drawn from the plan's seed and from nothing else.

Every silo of a cohort has to start from the same A, so the draw depends on neither rank, device,
ZeRO stage, library version of PyTorch nor the order of modules: each module has a generator of its
own (numpy PCG64) seeded from (seed, module name).
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_contracts.adapter_format import lora_a_name, lora_b_name, open_adapter
from data_contracts.records.round_plan import AdapterSpec, AdapterTarget

Float32Array = npt.NDArray[np.float32]


def initial_a(spec: AdapterSpec, target: AdapterTarget) -> Float32Array:
    """A of one module, rank x in_features: uniform within 1/sqrt(in_features).

    That is Kaiming uniform with a = sqrt(5), PEFT's default for A (He et al. 2015).
    """
    name_words = np.frombuffer(hashlib.sha256(target.module.encode()).digest(), dtype="<u4")
    seed_words = [spec.seed & 0xFFFFFFFF, spec.seed >> 32]
    generator = np.random.Generator(np.random.PCG64([*seed_words, *name_words.tolist()]))
    bound = 1.0 / np.sqrt(target.in_features)
    drawn = generator.random((spec.rank, target.in_features), dtype=np.float32)
    return ((drawn * 2 - 1) * np.float32(bound)).astype(np.float32)


def initial_adapter(spec: AdapterSpec) -> dict[str, Float32Array]:
    """Every tensor of the first starting adapter: A from the seed, B zero."""
    tensors: dict[str, Float32Array] = {}
    for target in spec.targets:
        tensors[lora_a_name(target.module)] = initial_a(spec, target)
        tensors[lora_b_name(target.module)] = np.zeros(
            (target.out_features, spec.rank), dtype=np.float32
        )
    return tensors


def starting_tensors(spec: AdapterSpec, path: Path | None) -> Iterator[tuple[str, Float32Array]]:
    """(name, array) of the adapter in `path`, through the gate, or of the initial one.

    Raises UntrustedInputError when the file is not an adapter of this spec.
    """
    if path is None:
        yield from initial_adapter(spec).items()
        return
    for target, a, b in open_adapter(path, spec).modules():
        yield lora_a_name(target.module), a
        yield lora_b_name(target.module), b
