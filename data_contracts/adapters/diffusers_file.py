"""An adapter of a pipeline's UNet as diffusers' own `load_lora_weights` takes it.

The tensors are those of the adapter file under other names. Such a file has no place for alpha that
every reader knows (diffusers reads it from newer files' metadata, others from tensors of other
names) and one that knows none takes 1: so B carries the scaling, and is right for all of them.
"""

from pathlib import Path

import numpy as np

from data_contracts.adapters.adapter_format import AdapterFile
from data_contracts.adapters.tensor_layout import Entry, safetensors_header

DIFFUSERS_NAME = "pytorch_lora_weights.safetensors"
PREFIX = "unet"


def write_for_diffusers(path: Path, adapter: AdapterFile) -> None:
    """Write the file, the same bytes for the same adapter; of its modules one is in memory.

    Raises UntrustedInputError where a tensor is not finite.
    """
    rank, pairs = adapter.layout.rank, adapter.layout.pairs
    entries: dict[str, Entry] = {}
    for target in pairs:
        names = (f"{PREFIX}.{target.module}.lora_{factor}.weight" for factor in "AB")
        shapes = ((rank, target.in_features), (target.out_features, rank))
        entries |= {n: Entry.float32(*shape) for n, shape in zip(names, shapes, strict=True)}
    scaling = np.float32(adapter.layout.scaling)
    with path.open("wb") as file:
        file.write(safetensors_header(entries))
        for target in pairs:
            a, b = adapter.module(target)
            file.write(np.ascontiguousarray(a, "<f4").data)
            file.write(np.ascontiguousarray(b * scaling, "<f4").data)
