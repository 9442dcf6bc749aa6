"""Gradients of records become those of units, each cut to one norm over all tensors, and their sum.

Norms follow from the products of the records' gradients with each other, so that a unit's own
gradient, a weighted sum of some of them, is never made. Only where the records of a unit do not all
go through the model at once is what was found so far kept, as a record of its own.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

BELOW = 1 - 1e-6
"""Of the norm that units are cut to: sums in float32 may come out larger by some 1e-7 of it."""


@dataclass(frozen=True)
class Part:
    """A record's part of the gradient of its unit."""

    unit: int
    weight: float


class ClippedSum:
    """The sum over units, for tensors of these shapes, one behind the other in `values`."""

    def __init__(self, shapes: Mapping[str, torch.Size], norm: float, device: torch.device) -> None:
        sizes = [shape.numel() for shape in shapes.values()]
        self.values = torch.zeros(sum(sizes), device=device)
        self._shapes, self._norm = shapes, norm
        self._sums = dict(zip(shapes, torch.split(self.values, sizes), strict=True))
        self._kept: dict[str, torch.Tensor] = {}
        self._kept_parts: list[Part] = []

    def add(
        self, gradients: Mapping[str, torch.Tensor], parts: Sequence[Part], done: Collection[int]
    ) -> list[float]:
        """Add the units that are `done` with these records (records x shape); the norms that they
        had, by the order of their numbers. Records without finite gradients count as nothing."""
        rows = self._with_kept(gradients, len(parts))
        parts = [*self._kept_parts, *parts]
        units = sorted({part.unit for part in parts})
        weights = torch.zeros(len(units), len(parts), dtype=torch.float64)
        for row, part in enumerate(parts):
            weights[units.index(part.unit), row] = part.weight
        norms = _norms(rows, weights)
        is_done = torch.tensor([unit in done for unit in units])
        factors = (self._norm * BELOW / norms.clamp_min(1e-300)).clamp_max(1) * is_done
        of_records = factors @ weights
        for name, of_tensor in rows.items():
            self._sums[name].addmv_(of_tensor.T, of_records.to(of_tensor))
        self._keep(rows, weights[~is_done], [u for u in units if u not in done])
        return norms[is_done].tolist()

    def by_name(self) -> dict[str, torch.Tensor]:
        """The sums in their shapes: views of `values`."""
        return {name: own.view(self._shapes[name]) for name, own in self._sums.items()}

    def _with_kept(
        self, gradients: Mapping[str, torch.Tensor], records: int
    ) -> dict[str, torch.Tensor]:
        """(Records x numbers of the tensor), those of units that are not done before the others."""
        rows = {name: each.flatten(1) for name, each in gradients.items()}
        for name, kept in self._kept.items():
            new = rows.get(name)
            others = kept.new_zeros(records, kept.shape[1]) if new is None else new
            rows[name] = torch.cat([kept, others])
        missing = len(self._kept_parts)
        for name in rows.keys() - self._kept.keys() if missing else ():
            rows[name] = torch.cat([rows[name].new_zeros(missing, rows[name].shape[1]), rows[name]])
        return rows

    def _keep(
        self, rows: Mapping[str, torch.Tensor], weights: torch.Tensor, units: Sequence[int]
    ) -> None:
        self._kept_parts = [Part(unit, 1.0) for unit in units]
        kept = {name: weights.to(each) @ each for name, each in rows.items()} if units else {}
        self._kept = kept


def _norms(rows: Mapping[str, torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    """Of each unit, float64 on the CPU. Rows that are not finite become zero in place."""
    records = weights.shape[1]
    products = torch.zeros(records, records, dtype=torch.float64)
    if rows:
        products = torch.stack([each @ each.T for each in rows.values()]).double().sum(0).cpu()
    is_bad = ~products.diagonal().isfinite()
    if is_bad.any():
        products[is_bad] = products[:, is_bad] = 0
        for each in rows.values():
            each[is_bad.to(each.device)] = 0
    squares = torch.einsum("ur,rs,us->u", weights, products, weights)
    return squares.clamp_min(0).sqrt()
