"""The server optimizer's state as a safetensors file, read one module at a time.

It comes from the coordinator's own bucket by the digest in the signed candidate, and its header is
still checked as strictly as an adapter's: names, shapes, types, sizes, no gaps.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from aggregator.merge.server_optimizer import State, require_state, state_names
from data_contracts.adapter_format import FLOAT32_BYTES
from data_contracts.records.merge_spec import ServerOptimizer
from data_contracts.records.round_plan import AdapterSpec, AdapterTarget
from data_contracts.tensor_layout import (
    HEADER_LENGTH_BYTES,
    Entry,
    checked_offsets,
    header_limit,
    payload_bytes,
    read_header,
    rejected,
)


def state_entries(target: AdapterTarget, optimizer: ServerOptimizer) -> dict[str, Entry]:
    """The entries of one module, in the order of `state_names`."""
    shape = (target.out_features, target.in_features)
    length = shape[0] * shape[1] * FLOAT32_BYTES
    return {
        f"{target.module}.{name}": Entry("F32", shape, length) for name in state_names(optimizer)
    }


@dataclass(frozen=True)
class ServerState:
    """A state file whose header was checked."""

    path: Path
    optimizer: ServerOptimizer
    data_start: int
    offsets: dict[str, tuple[int, int]]

    def module(self, target: AdapterTarget) -> State:
        """The matrices of one module (out x in); raises UntrustedInputError if not finite."""
        matrices = []
        with self.path.open("rb") as file:
            for name, entry in state_entries(target, self.optimizer).items():
                start, end = self.offsets[name]
                file.seek(self.data_start + start)
                values = np.frombuffer(bytearray(file.read(end - start)), dtype="<f4")
                if not np.isfinite(values).all():
                    raise rejected(name, "finite values", "NaN or infinity", "not_finite")
                matrices.append(torch.from_numpy(values.reshape(entry.shape)))
        return tuple(matrices)


def open_server_state(path: Path, spec: AdapterSpec, optimizer: ServerOptimizer) -> ServerState:
    """Check the header of a state file against the run's modules and the plan's optimizer.

    Raises FederationOperatorError when it is another optimizer's, UntrustedInputError when it does
    not fit in any other way.
    """
    entries: dict[str, Entry] = {}
    for target in spec.targets:
        entries |= state_entries(target, optimizer)
    size = path.stat().st_size
    header, data_start = read_header(path, size, HEADER_LENGTH_BYTES + 2 * header_limit(entries))
    first = f"{spec.targets[0].module}."
    require_state(optimizer, [n.removeprefix(first) for n in header if n.startswith(first)])
    offsets = checked_offsets(header, entries)
    if data_start + payload_bytes(entries) != size:
        expected = f"{data_start + payload_bytes(entries)} bytes"
        raise rejected("state file", expected, f"{size}", "wrong_size")
    return ServerState(path, optimizer, data_start, offsets)
