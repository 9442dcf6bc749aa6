"""The tensors that a training run copies into its model before the first step."""

from collections.abc import Iterator
from pathlib import Path

from data_contracts.adapter_format import lora_a_name, lora_b_name, open_adapter
from data_contracts.records.round_plan import AdapterSpec
from data_contracts.starting_adapter import Float32Array, InitialAdapter, tensors_of


def starting_tensors(spec: AdapterSpec, path: Path | None) -> Iterator[tuple[str, Float32Array]]:
    """(name, array) of the adapter in `path`, through the gate, or of the initial one.

    Raises UntrustedInputError when the file is not an adapter of this spec.
    """
    if path is None:
        yield from tensors_of(InitialAdapter(spec)).items()
        return
    for target, a, b in open_adapter(path, spec).modules():
        yield lora_a_name(target.module), a
        yield lora_b_name(target.module), b
