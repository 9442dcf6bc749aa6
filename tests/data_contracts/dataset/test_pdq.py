"""PDQ is the published hash: the digests below were made by its reference implementation.

They are of pdqhash 0.2.8, which compiles the C++ of the algorithm's authors. A list of hashes that
somebody else made would otherwise match nothing.
"""

import numpy as np
import numpy.typing as npt
import pytest

from data_contracts.dataset.pdq import pdq_hash

REFERENCE = [
    (23, 31, "224d2cdd44c99c82a399ea3936621c616e46e3ad87d21e6dc53a83dd25eeb8f3", 0),
    (64, 64, "8e8a6a8a2aaa3a2aaa2aaeaaaaaaebaaa2aa8aeaaaaaaabaaaaaaaaeaaaaaaab", 0),
    (65, 129, "fc54f928ec54ba9e885499f88d54199e8554d1d86d54e79a57c45568573c5556", 0),
    (37, 1000, "17f717ae5ff77e9e7eff7e5e645f675605575750555557505450549040004000", 95),
    (480, 640, "dde7ac0a5d562c5cdd036c5f312b8c54a70356fc026b539a024557ff02d053bf", 100),
    (1536, 1100, "a15d70aa9d544001847f7ffc800377ac80037fd5882277fd8aab557e855575dd", 100),
    (2047, 24, "f7d5d15fac80345fef8045dd83e0dd95b3602b357c6027659e68cd55898031e5", 100),
]


def landscape(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Waves in whole numbers, so that every machine draws the same picture."""
    y, x = np.mgrid[:height, :width]
    red = (3 * x * x + 5 * y * y) // (7 * (height + width))
    green = (x * y) // (height + width) + 2 * y
    blue = 4 * np.abs(x - y) + x // 3
    return np.stack([np.abs(w % 510 - 255) for w in (red, green, blue)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(("height", "width", "bits", "quality"), REFERENCE)
def test_the_reference_gives_the_same_bits(
    height: int, width: int, bits: str, quality: int
) -> None:
    found = pdq_hash(landscape(height, width))
    assert (found.bits.hex(), found.quality) == (bits, quality)


def test_an_image_in_memory_order_of_columns_has_the_same_hash() -> None:
    pixels = landscape(48, 96)
    assert pdq_hash(np.asfortranarray(pixels)) == pdq_hash(pixels)


def test_half_of_the_bits_are_set_in_anything_that_is_not_plain() -> None:
    bits = np.frombuffer(pdq_hash(landscape(300, 200)).bits, dtype=np.uint8)
    assert np.bitwise_count(bits).sum() == 128


def test_a_plain_image_has_no_quality() -> None:
    assert pdq_hash(np.full((80, 80, 3), 130, dtype=np.uint8)).quality == 0
