"""The perceptual hash PDQ of an image in memory, bit for bit as lists of such hashes are made.

Facebook, "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm", 2019. The
luminance is smoothed and sampled to 64 x 64, and a bit says of each of its lowest 16 x 16
frequencies, the constant left out, whether it is above their median. Smoothing is twice a mean over
1/128 of a side; being linear and separable, it is one small matrix for each side of the image.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

HASH_BYTES = 32
RELIABLE_QUALITY = 50
"""Images of a lower quality (0 to 100) are so plain that their hashes collide, after the paper."""

_SIDE = 64
_FREQUENCIES = 16
_LUMINANCE = np.array([0.299, 0.587, 0.114])
_QUALITY_DIVISOR = 90

_Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PdqHash:
    """`bits` are 32 bytes, the first bit first; `quality` is 0 (plain) to 100."""

    bits: bytes
    quality: int

    @property
    def is_reliable(self) -> bool:
        """Whether a match of this hash means anything."""
        return self.quality >= RELIABLE_QUALITY


def pdq_hash(pixels: npt.NDArray[np.uint8]) -> PdqHash:
    """The hash of `pixels`: red, green, blue as uint8 [height, width, 3], no side empty."""
    height, width, _ = pixels.shape
    # Reference implementations hold the luminance as float32; what is finer would turn other ties.
    luminance = (pixels @ _LUMINANCE).astype(np.float32)
    small = _sampling(height) @ luminance @ _sampling(width).T
    frequencies = (_cosines() @ small @ _cosines().T).ravel()
    # The lower of the two values in the middle, as in the reference, so 128 bits are set.
    median = np.partition(frequencies, frequencies.size // 2 - 1)[frequencies.size // 2 - 1]
    # A hash is written from its highest frequency down.
    bits = np.packbits((frequencies > median)[::-1]).tobytes()
    return PdqHash(bits, _quality(small))


def _quality(small: _Matrix) -> int:
    """How much there is to see: the gradients of the sampled image, in whole percents of white."""
    steps = (np.trunc(np.diff(small, axis=axis) * 100 / 255) for axis in (0, 1))
    return min(100, int(sum(np.abs(step).sum() for step in steps)) // _QUALITY_DIVISOR)


@lru_cache(maxsize=64)
def _sampling(side: int) -> _Matrix:
    """Smooths and samples `side` pixels to 64: float64 [64, side], each row a weighted mean."""
    window = -(-side // (2 * _SIDE))
    after = window // 2  # An even window reaches one pixel further ahead than back.
    first = np.maximum(np.arange(side) - (window - 1 - after), 0)
    last = np.minimum(np.arange(side) + after, side - 1)
    centres = ((np.arange(_SIDE) + 0.5) * side / _SIDE).astype(np.intp)
    weights = np.zeros((_SIDE, side))
    for row, centre in zip(weights, centres, strict=True):
        neighbours = np.arange(first[centre], last[centre] + 1)
        for neighbour in neighbours:
            length = last[neighbour] + 1 - first[neighbour]
            row[first[neighbour] : last[neighbour] + 1] += 1 / (length * neighbours.size)
    return weights


@lru_cache(maxsize=1)
def _cosines() -> _Matrix:
    """Rows 1 to 16 of the discrete cosine transform (type II) of length 64: float64 [16, 64]."""
    frequencies = np.arange(1, _FREQUENCIES + 1, dtype=np.float64)
    positions = 2 * np.arange(_SIDE, dtype=np.float64) + 1
    cosines: _Matrix = np.cos(np.pi / (2 * _SIDE) * np.outer(frequencies, positions))
    return cosines * math.sqrt(2 / _SIDE)
