"""What is masked under the rule `sketch`: two thin images of the product that a silo changed.

Of each pair the change P = s (B A - B_g A_g), (out x in), goes as S = P O (out x k) and T = Y P
(l x in). O (in x k) and Y (l x out) have entries +-1/sqrt(in) and +-1/sqrt(out) that follow from
the plan, so they are everybody's, and images of several silos add up to those of the sum of their
changes. From its images a sum is rebuilt (Tropp et al. 2017, algorithm 4): P ~ Q (Y Q)^+ T, where
Q is an orthonormal basis of S. Exact where the rank of the sum is at most k, which is so from k =
sum of all ranks on; below that as good as the spectrum of the sum beyond k is small.

An entry of S is as large as one of P, on average over a row, and one of T over a column. In a sum
of n changes each is off by at most n quanta over the sum of factors (see `fixed_point`), and since
the least singular value of Y Q is about 1 - sqrt(k/l) = 0.18 times sqrt(l / out), what is rebuilt
is off by about six times the error of T as a matrix.

A pair for which two images are more numbers than the product itself goes as the product.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from data_contracts.adapters.starting_adapter import AdapterSource
from data_contracts.masking.extra_numbers import ExtraNumber, require_clear, scaled_values
from data_contracts.masking.fixed_point import FixedPoint, Float64Array
from data_contracts.masking.pads import keystream
from data_contracts.masking.pieces import in_pieces, require_short, whole_change
from data_contracts.masking.product_norm import changed_factors, squared_change
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget

WIDER = 1.5
"""l / k; with 1 what is rebuilt would be as bad as the worst direction of Y Q."""


@dataclass(frozen=True)
class Images:
    """S (out x k) and T (l x in) of one pair; or the product itself as T, and S without columns."""

    columns: Float64Array
    rows: Float64Array


@dataclass(frozen=True)
class SketchPayload:
    """What is masked of adapters of `layout` and of those of lower rank for the same modules.

    `width` is k, `seed` decides O and Y. A tensor that is trained whole goes as in `Payload`.
    """

    layout: AdapterLayout
    width: int
    seed: int
    extras: tuple[ExtraNumber, ...] = ()

    def __post_init__(self) -> None:
        """Raises FederationOperatorError for more entries than a pad has, or unclear extras."""
        require_clear(self.extras)
        require_short(self.entries)

    @cached_property
    def entries(self) -> int:
        """All numbers, the one at the end included."""
        return sum(map(self.entries_of, self.layout.targets)) + len(self.extras) + 1

    def entries_of(self, target: AdapterTarget) -> int:
        """Numbers of one target."""
        if target.whole is not None:
            return target.out_features * target.in_features
        columns, rows = self.shapes(target)
        return math.prod(columns) + math.prod(rows)

    def shapes(self, target: AdapterTarget) -> tuple[tuple[int, int], tuple[int, int]]:
        """Of the images of one pair."""
        out, into, k = target.out_features, target.in_features, self.width
        wider = math.ceil(WIDER * k)
        if out * k + wider * into >= out * into:
            return (out, 0), (out, into)
        return (out, k), (wider, into)

    def rank_of(self, target: AdapterTarget) -> int:
        """The most that what is rebuilt of a pair can have."""
        (out, k), _ = self.shapes(target)
        return k or min(out, target.in_features)

    def images(self, target: AdapterTarget, b: Float64Array, a: Float64Array) -> Images:
        """Those of the product B A (out x n, n x in) of one pair."""
        (_, k), _ = self.shapes(target)
        if not k:
            return Images(np.empty((target.out_features, 0)), b @ a)
        columns, rows = self._onto_columns(target), self._onto_rows(target)
        return Images(b @ (a @ columns), (rows @ b) @ a)

    def rebuilt(self, target: AdapterTarget, images: Images) -> tuple[Float64Array, Float64Array]:
        """B (out x n) and A (n x in) of the product with these images, n = `rank_of`."""
        out, into = target.out_features, target.in_features
        if not images.columns.shape[1]:
            wide = out <= into
            return (np.eye(out), images.rows) if wide else (images.rows, np.eye(into))
        basis = np.linalg.qr(images.columns)[0]
        q, r = np.linalg.qr(self._onto_rows(target) @ basis)
        return basis, np.linalg.solve(r, q.T @ images.rows)

    def _onto_columns(self, target: AdapterTarget) -> Float64Array:
        (_, k), _ = self.shapes(target)
        return self._signs("columns", target, target.in_features, k)

    def _onto_rows(self, target: AdapterTarget) -> Float64Array:
        _, (wider, _) = self.shapes(target)
        return self._signs("rows", target, target.out_features, wider).T

    def _signs(self, side: str, target: AdapterTarget, size: int, images: int) -> Float64Array:
        """(size x images) of +-1/sqrt(size): bits of the keystream that pads are made of, so the
        same on every machine and in every release."""
        named = f"consortia sketch 1\n{self.seed}\n{side}\n{target.module}"
        words = keystream(hashlib.sha256(named.encode()).digest(), 0, -(-size * images // 32))
        bits = np.unpackbits(words.view(np.uint8), count=size * images).reshape(size, images)
        signs: Float64Array = np.where(bits, 1.0, -1.0)
        return signs / math.sqrt(size)


@dataclass(frozen=True)
class SketchedChange:
    """What a silo trained and what it started from, both in the layout that the silo has; and the
    values of the payload's extra numbers by name."""

    payload: SketchPayload
    local: AdapterSource
    starting: AdapterSource
    extras: Mapping[str, float] = field(default_factory=dict)

    def norm(self) -> float:
        """Frobenius norm of all products' changes and of those of whole tensors."""
        return math.sqrt(
            sum(
                squared_change(target, self.local, self.starting)
                for target in self.payload.layout.targets
            )
        )

    def pieces(
        self, fixed_point: FixedPoint, kept: float = 1.0
    ) -> Iterator[tuple[int, Float64Array]]:
        """See `pieces.MaskedChange`; an extra number comes by its degree, and scaled."""
        return in_pieces(self._parts(fixed_point, kept))

    def images(self, target: AdapterTarget, kept: float = 1.0) -> Images:
        """Those of the change of one pair times `kept`; raises SiloOperatorError as `pieces`."""
        b, a = changed_factors(target, self.local, self.starting)
        return self.payload.images(target, b * kept, a)

    def _parts(self, fixed_point: FixedPoint, kept: float) -> Iterator[Float64Array]:
        for target in self.payload.layout.targets:
            if target.whole is not None:
                for part in whole_change(target, self.local, self.starting):
                    yield part * kept
                continue
            images = self.images(target, kept)
            yield from (images.columns.reshape(-1), images.rows.reshape(-1))
        yield from scaled_values(self.payload.extras, self.extras, fixed_point, kept)
        yield np.zeros(1)
