"""Several adapters that act together, as one LoRA: ranks side by side, the sum of products exact.

scaling * B @ A of the joined one is the sum of those of its parts: rows of A follow one another,
and so do columns of B, each part's multiplied with its own scaling, so that the joined one is 1.
Nothing but that product is rounded, and it is exact where the scaling is a power of two. A tensor
that is trained whole is that of the one part which has it: two of them are two heads, no sum.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_contracts.adapters.starting_adapter import AdapterSource, Float32Array, tensors_of
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from silo_agent.training.adapter_file import write_adapter


@dataclass(frozen=True)
class JoinedAdapter:
    """The parts as one; a module that a part lacks has zeros for its ranks.

    Raises ValueError where two parts have a tensor that is trained whole.
    """

    parts: Sequence[AdapterSource]

    @property
    def layout(self) -> AdapterLayout:
        """That of all together."""
        return joined_layout([part.layout for part in self.parts])

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        """A (sum of ranks x in) and B (out x sum of ranks) of one module."""
        if target.whole is not None:
            return next(p.module(target) for p in self.parts if target in p.layout.targets)
        pairs = [_of(part, target) for part in self.parts]
        a = np.concatenate([a for a, _ in pairs])
        return a, np.concatenate([b for _, b in pairs], axis=1)


def joined_layout(layouts: Sequence[AdapterLayout]) -> AdapterLayout:
    """Of adapters that act together: all their modules and all their ranks, scaling 1."""
    wholes = [target.module for layout in layouts for target in layout.wholes]
    if len(set(wholes)) != len(wholes):
        raise ValueError("expected each tensor that is trained whole in one of the adapters only")
    targets = {target.module: target for layout in layouts for target in layout.targets}
    rank = sum(layout.rank for layout in layouts)
    return AdapterLayout(
        rank=rank, alpha=rank, seed=layouts[0].seed, targets=tuple(targets.values())
    )


def joined_file(path: Path, parts: Sequence[AdapterSource]) -> None:
    """Write the parts as one adapter; raises as `write_adapter`."""
    joined = JoinedAdapter(parts)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_adapter(path, joined.layout, tensors_of(joined))


def _of(part: AdapterSource, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
    rank = part.layout.rank
    if target not in part.layout.targets:
        zeros = np.zeros((rank, target.in_features), dtype=np.float32)
        return zeros, np.zeros((target.out_features, rank), dtype=np.float32)
    a, b = part.module(target)
    return a, b * np.float32(part.layout.scaling)
