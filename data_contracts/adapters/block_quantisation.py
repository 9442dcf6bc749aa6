"""Blockwise int8 and int4: whole-number codes, and one float32 scale for each block of values.

A value is decoded as float32(code) * scale, one float32 product per value and nothing else, so silo
and coordinator decode the same bits on any machine. The scale is the block's largest magnitude over
the number of levels, and codes are rounded to the nearest, ties to even: nothing is off by more
than half a scale. A block whose scale would be subnormal (all values below 1.5e-36) is sent as
zeros, because machines that flush subnormal numbers to zero would decode it differently.

Sizes of long tensors: int8 takes 1 byte + 4 / 4096, 25.02% of float32; int4 takes half a byte +
4 / 64, 14.06%. One scale per block: Dettmers et al. 2022, "8-bit Optimizers via Block-wise
Quantization"; the codes here are uniform.
"""

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from data_contracts.adapters.adapter_format import MAX_ABSOLUTE_VALUE, Float32Array

SchemeName = Literal["int8", "int4"]
ByteArray = npt.NDArray[np.uint8]
Number = TypeVar("Number", np.float32, np.int8)

SMALLEST_SCALE = float(np.finfo(np.float32).smallest_normal)
SCALE_BYTES = 4
LONG_ROW = 512


@dataclass(frozen=True)
class Scheme:
    """Values per block, the largest code, and how many codes one byte holds."""

    name: SchemeName
    block: int
    levels: int
    codes_per_byte: int
    dtype: Literal["I8", "U8"]

    @property
    def largest_scale(self) -> np.float32:
        """The scale of a block that reaches `MAX_ABSOLUTE_VALUE`."""
        return np.float32(MAX_ABSOLUTE_VALUE) / np.float32(self.levels)

    def blocks_of(self, count: int) -> int:
        """How many blocks, and so scales, `count` values take; the last may be short."""
        return -(-count // self.block)

    def code_bytes_of(self, count: int) -> int:
        """How many bytes the codes of `count` values take."""
        return -(-count // self.codes_per_byte)


SCHEMES: dict[SchemeName, Scheme] = {
    "int8": Scheme("int8", block=4096, levels=127, codes_per_byte=1, dtype="I8"),
    "int4": Scheme("int4", block=64, levels=7, codes_per_byte=2, dtype="U8"),
}


@dataclass(frozen=True)
class Blocks:
    """One tensor, flattened in C order: the bytes of its codes, and a scale per block.

    int8: (n,) bytes, two's complement from -127 to 127. int4: (ceil(n / 2),) bytes, the first
    value of each pair in the low four bits, two's complement from -7 to 7, zero where an odd n
    leaves half a byte.
    """

    codes: ByteArray
    scales: Float32Array


def quantise(values: Float32Array, scheme: Scheme) -> Blocks:
    """The nearest codes for finite `values` of any shape, read in C order."""
    flat = np.ascontiguousarray(values).ravel()
    scales: Float32Array = np.empty(scheme.blocks_of(flat.size), dtype=np.float32)
    steps = np.empty_like(flat)
    views = (_block_views(array, scheme.block) for array in (flat, steps))
    at = 0
    for view, step in zip(*views, strict=True):
        own = scales[at : at + len(view)]
        np.divide(_largest_of_rows(view), np.float32(scheme.levels), out=own)
        own[own < SMALLEST_SCALE] = 0
        np.divide(view, np.where(own > 0, own, np.float32(1))[:, None], out=step)
        at += len(view)
    codes = np.rint(steps, out=steps).astype(np.int8)
    return Blocks(codes.view(np.uint8) if scheme.codes_per_byte == 1 else _packed(codes), scales)


def dequantise(blocks: Blocks, count: int, scheme: Scheme) -> Float32Array:
    """The `count` values, flat: float32(code) * scale."""
    return scaled(code_values(blocks.codes, scheme)[:count], blocks.scales, scheme)


def code_values(codes: ByteArray, scheme: Scheme) -> Float32Array:
    """Every code as a float32 of its own, the padding of an odd count included."""
    if scheme.codes_per_byte == 1:
        return codes.view(np.int8).astype(np.float32)
    pairs: Float32Array = _PAIRS.take(codes, axis=0, mode="clip").reshape(-1)
    return pairs


def has_unused_code(codes: ByteArray, scheme: Scheme) -> bool:
    """Whether a code is there that no encoder writes: -128 (int8) or -8 (int4)."""
    if scheme.codes_per_byte == 1:
        return bool(codes.view(np.int8).min() < -scheme.levels)
    low, high = codes & np.uint8(0x0F), codes & np.uint8(0xF0)
    return bool((low == 0x08).any()) or bool((high == 0x80).any())


def padding_of(codes: ByteArray, count: int, scheme: Scheme) -> int:
    """What stands in the half byte that an odd `count` of int4 leaves; else 0."""
    return int(codes[-1]) >> 4 if scheme.code_bytes_of(count) * scheme.codes_per_byte > count else 0


def scaled(values: Float32Array, scales: Float32Array, scheme: Scheme) -> Float32Array:
    """`values`, flat, each multiplied in place by the scale of its block."""
    at = 0
    for view in _block_views(values, scheme.block):
        np.multiply(view, scales[at : at + len(view), None], out=view)
        at += len(view)
    return values


def _largest_of_rows(view: Float32Array) -> Float32Array:
    """The largest magnitude in each row; which way is quicker depends on the length of a row."""
    largest: Float32Array
    if view.shape[1] < LONG_ROW:
        largest = np.abs(view).max(axis=1)
    else:
        largest = np.maximum(view.max(axis=1), -view.min(axis=1))
    return largest


def _packed(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Two codes per byte."""
    nibbles = np.append(codes, np.int8(0)) if len(codes) % 2 else codes
    low, high = nibbles[0::2].view(np.uint8), nibbles[1::2].view(np.uint8)
    packed: npt.NDArray[np.uint8] = (low & np.uint8(0x0F)) | (high << np.uint8(4))
    return packed


def _block_views(flat: npt.NDArray[Number], block: int) -> list[npt.NDArray[Number]]:
    """The whole blocks as (blocks, block), then the short last one as (1, rest)."""
    whole = len(flat) // block * block
    views = [flat[:whole].reshape(-1, block), flat[whole:].reshape(1, -1)]
    return [view for view in views if view.size]


_PAIRS: Float32Array = np.array(
    [[((byte & 15) ^ 8) - 8, ((byte >> 4) ^ 8) - 8] for byte in range(256)], dtype=np.float32
)
"""What each byte of int4 decodes to: two's complement of its low, then of its high four bits."""
