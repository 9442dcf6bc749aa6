"""Tensors that are trained whole: how they lie in files, and what they start as.

Such a tensor acts as a pair with A = the identity and B = the tensor (see
`protocol.records.adapter_layout`). In a file there is the tensor alone, in its own shape, under the
name that PEFT gives what it has in `modules_to_save`; the identity is made here, as a view that
takes no memory of its size.

What a tensor starts as has to be the same bits at every silo and at the coordinator. So values
that are normal are looked up in a table, by 16 bits of the generator each: a method with logarithms
or rejections could differ between two C libraries, and from one such value on in all that follow.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from data_contracts.protocol.records.adapter_layout import (
    A_SUFFIX,
    NORMAL_DEVIATION,
    AdapterLayout,
    AdapterTarget,
)

Float32Array = npt.NDArray[np.float32]
Pair = tuple[Float32Array, Float32Array]

TABLE_SIZE = 1 << 16
BLOCK_VALUES = 1 << 20
"""Drawn at a time; a multiple of four, so that blocks are pieces of one stream."""


def whole_name(module: str) -> str:
    """PEFT's name of a parameter that is saved as it is."""
    return f"base_model.model.{module}"


def whole_shape(target: AdapterTarget) -> tuple[int, ...]:
    """That of the tensor itself: (out, in) of a matrix, (out,) of a vector."""
    if target.whole == "vector":
        return (target.out_features,)
    return target.out_features, target.in_features


def identity(size: int) -> Float32Array:
    """1 on the diagonal of (size x size), read-only, in memory for one diagonal after the other.

    A stride of it is negative, which `torch.from_numpy` refuses: nobody should multiply with it
    where the tensor itself can be taken.
    """
    line = np.zeros(2 * size - 1, dtype=np.float32)
    line[size - 1] = 1
    step = line.itemsize
    return np.lib.stride_tricks.as_strided(
        line[size - 1 :], (size, size), (-step, step), writeable=False
    )


def pair_of(target: AdapterTarget, tensors: Sequence[Float32Array]) -> Pair:
    """(A, B) of one module from its tensors in the order of a file."""
    if target.whole is None:
        a, b = tensors
        return a, b
    (tensor,) = tensors
    return identity(target.in_features), tensor.reshape(target.out_features, target.in_features)


def stored(target: AdapterTarget, a: Float32Array, b: Float32Array) -> tuple[Float32Array, ...]:
    """What lies in a file of one module with the factors A and B, in their order there."""
    return (a, b) if target.whole is None else (b.reshape(whole_shape(target)),)


def as_vector(target: AdapterTarget, b: Float32Array) -> Pair:
    """B of a whole tensor as a pair of rank 1: A = 1 (1 x 1), B all its entries (out in x 1).

    Sums, inner products and norms of such vectors are those of the matrices, and an identity is
    nowhere multiplied.
    """
    return np.ones((1, 1), dtype=np.float32), b.reshape(target.out_features * target.in_features, 1)


def initial_whole(layout: AdapterLayout, target: AdapterTarget) -> Float32Array:
    """B (out x in) that a whole tensor starts as."""
    values: Float32Array = np.empty(target.out_features * target.in_features, dtype=np.float32)
    at = 0
    for block in _initial_blocks(layout, target):
        values[at : at + len(block)] = block
        at += len(block)
    return values.reshape(target.out_features, target.in_features)


def adds_something(layout: AdapterLayout, target: AdapterTarget, b: Float32Array) -> bool:
    """Whether a model with this B (out x rank) of one target is another than one as it starts.

    A pair starts with B = 0. A whole tensor has to be another than what it starts as, and not zero
    everywhere, which is what a file that nobody filled looks like and never the end of a training.
    """
    if not b.any():
        return False
    return target.whole is None or not _is_initial(layout, target, b)


def generator_of(layout: AdapterLayout, module: str) -> np.random.Generator:
    """A generator for one module of a layout, numpy's PCG64 of (seed, name)."""
    name_words = np.frombuffer(hashlib.sha256(module.encode()).digest(), dtype="<u4")
    seed_words = [layout.seed & 0xFFFFFFFF, layout.seed >> 32]
    return np.random.Generator(np.random.PCG64([*seed_words, *name_words.tolist()]))


def drawn_a(generator: np.random.Generator, in_features: int, count: int) -> Float32Array:
    """The next `count` values of a factor A: uniform within 1/sqrt(in_features).

    That is Kaiming uniform with a = sqrt(5), PEFT's default for A (He et al. 2015).
    """
    bound = np.float32(1.0 / np.sqrt(in_features))
    drawn: Float32Array = generator.random(count, dtype=np.float32)
    drawn *= 2
    drawn -= 1
    drawn *= bound
    return drawn


def _is_initial(layout: AdapterLayout, target: AdapterTarget, b: Float32Array) -> bool:
    """Mostly the first block tells, so that nothing of the size of the tensor is drawn."""
    flat, at = b.reshape(-1), 0
    for block in _initial_blocks(layout, target):
        if not np.array_equal(flat[at : at + len(block)], block):
            return False
        at += len(block)
    return True


def _initial_blocks(layout: AdapterLayout, target: AdapterTarget) -> Iterator[Float32Array]:
    """The initial values in C order, some at a time."""
    count = target.out_features * target.in_features
    # A that is exchanged by itself is drawn as that of its module, whose name has no suffix.
    generator = generator_of(layout, target.module.removesuffix(A_SUFFIX))
    for start in range(0, count, BLOCK_VALUES):
        size = min(BLOCK_VALUES, count - start)
        if target.initial == "normal":
            yield _normal_table()[np.frombuffer(generator.bytes(2 * size), dtype="<u2")]
        elif target.initial == "lora_a":
            yield drawn_a(generator, target.in_features, size)
        else:
            yield np.full(size, target.initial == "ones", dtype=np.float32)


@lru_cache(maxsize=1)
def _normal_table() -> Float32Array:
    """Quantiles in the middle of 2^16 equal shares of a normal distribution: up to 4.3 deviations.

    Their own deviation is that of the distribution to one part in 100,000.
    """
    normal = NormalDist(0, NORMAL_DEVIATION)
    shares = (np.arange(TABLE_SIZE) + 0.5) / TABLE_SIZE
    return np.array([normal.inv_cdf(share) for share in shares], dtype=np.float32)
