"""The server optimizer's state as a safetensors file, read one module at a time.

It comes from the coordinator's own bucket by the digest in the signed candidate, and its header is
still checked as strictly as an adapter's: names, shapes, types, sizes, no gaps.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from aggregator.merge.server_optimizer import State, state_names
from data_contracts.adapters.tensor_layout import Entry, open_layout, rejected
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.merge_spec import ServerOptimizer


def state_entries(target: AdapterTarget, optimizer: ServerOptimizer) -> dict[str, Entry]:
    """The entries of one module, in the order of `state_names`."""
    entry = Entry.float32(target.out_features, target.in_features)
    return {f"{target.module}.{name}": entry for name in state_names(optimizer)}


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


def open_server_state(path: Path, layout: AdapterLayout, optimizer: ServerOptimizer) -> ServerState:
    """Check the header of a state file against the run's modules and the plan's optimizer.

    Raises UntrustedInputError when it is not their state; a plan with another optimizer than the
    one whose state the run has is refused when it is made.
    """
    entries: dict[str, Entry] = {}
    for target in layout.targets:
        entries |= state_entries(target, optimizer)
    opened = open_layout(path, entries, "server state")
    return ServerState(path, optimizer, opened.data_start, opened.offsets)
