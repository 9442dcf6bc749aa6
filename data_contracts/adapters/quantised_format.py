"""The gate for a quantised difference to a starting adapter, and the adapter that it stands for.

One safetensors file. For each tensor of the layout that `adapter_format` describes it holds
`<name>.codes` and `<name>.scales` of the difference of factors, dA = A - A_start and dB = B -
B_start, or of the tensor that is trained whole (codes: `block_quantisation`). As with adapters in
full the header is read first, with a size cap; only exact names, shapes and dtypes without gaps
pass; then every code and scale is checked and the decoded adapter must be finite, within bounds,
not its start, and add something. Where the scales, and what is remembered of the start, say that
already, nothing is decoded.

The decoded adapter is start + float32(code) * scale in float32: one product, then one sum, the same
bits at silo and coordinator. One module is in memory at a time.
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_contracts.adapters.adapter_format import (
    MAX_ABSOLUTE_VALUE,
    Float32Array,
    expected_shapes,
    expected_shapes_of,
    require_contribution,
)
from data_contracts.adapters.block_quantisation import (
    SCALE_BYTES,
    SMALLEST_SCALE,
    ByteArray,
    Scheme,
    code_values,
    has_unused_code,
    padding_of,
    scaled,
)
from data_contracts.adapters.remembered_start import RememberedStart
from data_contracts.adapters.starting_adapter import AdapterSource, narrowed
from data_contracts.adapters.tensor_layout import Entry, bytes_limit, open_layout, rejected
from data_contracts.adapters.whole_tensors import adds_something, pair_of, stored
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget

CODES_SUFFIX = ".codes"
SURELY_WITHIN = MAX_ABSOLUTE_VALUE * (1 - 1e-6)
"""A sum of magnitudes up to which the rounded float32 sum is within `MAX_ABSOLUTE_VALUE` too."""


def codes_name(name: str) -> str:
    """Name of the codes of an adapter tensor."""
    return f"{name}{CODES_SUFFIX}"


def scales_name(name: str) -> str:
    """Name of the scales of an adapter tensor."""
    return f"{name}.scales"


def quantised_entries(layout: AdapterLayout, scheme: Scheme) -> dict[str, Entry]:
    """Every entry of a quantised file, in the order in which this project writes them."""
    entries: dict[str, Entry] = {}
    for name, shape in expected_shapes(layout).items():
        count = math.prod(shape)
        code_bytes, blocks = scheme.code_bytes_of(count), scheme.blocks_of(count)
        entries[codes_name(name)] = Entry(scheme.dtype, (code_bytes,), code_bytes)
        entries[scales_name(name)] = Entry("F32", (blocks,), blocks * SCALE_BYTES)
    return entries


def quantised_bytes_limit(layout: AdapterLayout, scheme: Scheme) -> int:
    """Largest file in bytes that can hold a quantised adapter of this layout, header included."""
    return bytes_limit(quantised_entries(layout, scheme))


@dataclass(frozen=True)
class _Factor:
    """One tensor as it lies in the file, its codes and scales checked."""

    shape: tuple[int, ...]
    codes: ByteArray
    scales: Float32Array

    @property
    def count(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class CheckedModule:
    """What a module says without being decoded.

    `is_within`: no value of start + difference can be beyond `MAX_ABSOLUTE_VALUE`; False where that
    takes decoding to say. `keeps_a`, `keeps_b`: every code is zero, so the factor is the start's.
    """

    is_within: bool
    keeps_a: bool
    keeps_b: bool


@dataclass(frozen=True)
class QuantisedFile:
    """A quantised file whose header passed the gate; an `AdapterSource` of what it decodes to.

    `starting` has `layout`. Reading raises UntrustedInputError where values are refused.
    """

    path: Path
    layout: AdapterLayout
    scheme: Scheme
    starting: AdapterSource
    data_start: int
    offsets: dict[str, tuple[int, int]]

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        """A (rank x in) and B (out x rank) of one module in float32: start + difference."""
        factors = self._factors(target)
        is_within = self._is_within(target, factors)
        starts = stored(target, *self.starting.module(target))
        sums = [
            self._sum(target, factor, start, is_within)
            for factor, start in zip(factors, starts, strict=True)
        ]
        return pair_of(target, sums)

    def modules(self) -> Iterator[tuple[AdapterTarget, Float32Array, Float32Array]]:
        """Every module in the order of the layout."""
        for target in self.layout.targets:
            a, b = self.module(target)
            yield target, a, b

    def difference(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        """dA (rank x in) and dB (out x rank) of one module in float32."""
        differences = [self._difference(factor) for factor in self._factors(target)]
        if target.whole is None:
            a, b = differences
            return a, b
        _, b = pair_of(target, differences)
        return np.broadcast_to(np.float32(0), (target.in_features, target.in_features)), b

    def checked(self, target: AdapterTarget) -> CheckedModule:
        """Check codes and scales of one module, and what they say of it undecoded."""
        factors = self._factors(target)
        *a, b = factors
        keeps_a = not any(factor.codes.any() for factor in a)
        return CheckedModule(self._is_within(target, factors), keeps_a, not b.codes.any())

    def check(self) -> None:
        """Read everything once; raises UntrustedInputError where the file adds nothing."""
        changes = contributes = False
        for target in self.layout.targets:
            if changes and contributes and self.checked(target).is_within:
                continue
            differences = (self._difference(factor) for factor in self._factors(target))
            changes = changes or any(difference.any() for difference in differences)
            b = self.module(target)[1]
            contributes = contributes or adds_something(self.layout, target, b)
        if not changes:
            raise rejected("adapter", "a non-zero difference", "zeros only", "zero_delta")
        require_contribution(contributes)

    def _is_within(self, target: AdapterTarget, factors: Sequence[_Factor]) -> bool:
        """Whether scales and start say that no value can be too large; see `CheckedModule`."""
        if not isinstance(self.starting, RememberedStart):
            return False
        largest = self.starting.largest(target)[-len(factors) :]
        return all(
            start + self.scheme.levels * float(factor.scales.max()) <= SURELY_WITHIN
            for start, factor in zip(largest, factors, strict=True)
        )

    def _sum(
        self, target: AdapterTarget, factor: _Factor, start: Float32Array, is_within: bool
    ) -> Float32Array:
        """start + difference, held against the bounds unless it `is_within` them anyway."""
        total = self._difference(factor)
        np.add(start, total, out=total)
        largest = 0.0 if is_within else max(float(total.max()), -float(total.min()))
        if not largest <= MAX_ABSOLUTE_VALUE:
            limit = f"values of at most {MAX_ABSOLUTE_VALUE:g}"
            raise rejected(target.module, limit, f"{largest:g}", "value_too_large")
        return total

    def _factors(self, target: AdapterTarget) -> list[_Factor]:
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            shapes = expected_shapes_of(self.layout.rank, target)
            return [self._factor(descriptor, name, shape) for name, shape in shapes]
        finally:
            os.close(descriptor)

    def _factor(self, descriptor: int, name: str, shape: tuple[int, ...]) -> _Factor:
        scales = self._bytes(descriptor, scales_name(name)).view("<f4")
        _require_scales(name, scales, self.scheme)
        codes = self._bytes(descriptor, codes_name(name))
        factor = _Factor(shape, codes, scales)
        _require_codes(name, codes, factor.count, self.scheme)
        return factor

    def _difference(self, factor: _Factor) -> Float32Array:
        values = code_values(factor.codes, self.scheme)[: factor.count]
        return scaled(values, factor.scales, self.scheme).reshape(factor.shape)

    def _bytes(self, descriptor: int, name: str) -> ByteArray:
        start, end = self.offsets[name]
        raw: ByteArray = np.empty(end - start, dtype=np.uint8)
        read = os.preadv(descriptor, [raw.data], self.data_start + start)
        if read != end - start:
            raise rejected(name, f"{end - start} bytes", f"{read}", "truncated")
        return raw


def open_quantised(
    path: Path, layout: AdapterLayout, scheme: Scheme, starting: AdapterSource
) -> QuantisedFile:
    """Check size, header, names, shapes and dtypes before any tensor is read.

    `starting` is what the silo started from, in `layout` or the wider one of its run.
    """
    opened = open_layout(path, quantised_entries(layout, scheme), "quantised file")
    source = narrowed(starting, layout)
    return QuantisedFile(path, layout, scheme, source, opened.data_start, opened.offsets)


def check_quantised(
    path: Path, layout: AdapterLayout, scheme: Scheme, starting: AdapterSource
) -> QuantisedFile:
    """The whole gate: `open_quantised`, then every code, scale and decoded value."""
    adapter = open_quantised(path, layout, scheme, starting)
    adapter.check()
    return adapter


def _require_scales(name: str, scales: Float32Array, scheme: Scheme) -> None:
    if not np.isfinite(scales).all():
        raise rejected(name, "finite scales", "NaN or infinity", "not_finite")
    if ((scales < SMALLEST_SCALE) & (scales != 0)).any():
        raise rejected(name, "scales of zero or normal positive size", "others", "bad_scale")
    if scales.max() > scheme.largest_scale:
        limit = f"scales of at most {scheme.largest_scale:g}"
        raise rejected(name, limit, f"{scales.max():g}", "value_too_large")


def _require_codes(name: str, codes: ByteArray, count: int, scheme: Scheme) -> None:
    """No code for -128 (int8) or -8 (int4), which the encoder never writes, and zero padding."""
    if has_unused_code(codes, scheme):
        raise rejected(
            name, f"codes of -{scheme.levels} or more", f"-{scheme.levels + 1}", "bad_code"
        )
    padding = padding_of(codes, count, scheme)
    if padding:
        raise rejected(name, "zero in the unused half byte", f"{padding}", "bad_padding")
