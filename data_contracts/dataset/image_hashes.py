"""Perceptual hashes of images, against a registry of images that must not be trained on.

The hash is PDQ (`pdq.py`): 256 bits of which re-encoding, scaling and light edits change few; two
images with at most 31 different bits are taken for the same. It does not survive rotation,
mirroring or cropping, and it is made for photographs: of small pictograms (3,786 emoji of 64
pixels) 58% are that near to another one, so a match is a reason to look and to leave out, and
proves nothing.

How an image file is read is `pictures.picture_file`.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from data_contracts.dataset.pdq import HASH_BYTES, PdqHash, pdq_hash
from data_contracts.dataset.pictures.picture_file import UnreadableImage, decoded, read_image
from data_contracts.errors import DataStewardError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

MAX_REGISTRY_BYTES = 256 * 1024 * 1024
MAX_DISTANCE = 31
"""Bits of 256 in which two hashes of the same image may differ, after the paper."""

_HEX_HASH = re.compile(rb"[0-9a-fA-F]{64}")
# The hash is of 64 x 64 box averages. Above twice this side, averaging whole pixels first changes
# a few bits at most and makes the time that one image can take independent of its size.
_ENOUGH_PIXELS_A_SIDE = 1024


def hash_image(path: Path) -> PdqHash | UnreadableImage:
    """The hash of the first frame, transparency over white, or why there is none.

    Pillow is loaded with the first image.
    """
    data = read_image(path)
    return data if isinstance(data, UnreadableImage) else hash_picture(data)


def hash_picture(data: bytes) -> PdqHash | UnreadableImage:
    """As `hash_image`, of the bytes of a file; as the image is stored, which lists are made of."""
    pixels = decoded(data, _pixels)
    return pixels if isinstance(pixels, UnreadableImage) else pdq_hash(pixels)


@dataclass(frozen=True, eq=False)
class ImageHashRegistry:
    """Hashes of images that must not be there.

    `words` is uint64 [hashes, 4], `digest` the SHA-256 of the hashes in order of their bytes.
    """

    words: npt.NDArray[np.uint64]
    digest: str

    @classmethod
    def from_file(cls, path: Path) -> "ImageHashRegistry":
        """The registry in a file of one hash a line, 64 hexadecimal digits each.

        Raises DataStewardError when it cannot be read, is empty or too large, or has other lines.
        """
        try:
            with path.open("rb") as file:
                data = file.read(MAX_REGISTRY_BYTES + 1)
        except OSError as error:
            raise _refused(path, "a readable file", error.strerror or "another fault") from None
        if len(data) > MAX_REGISTRY_BYTES:
            raise _refused(path, f"at most {MAX_REGISTRY_BYTES} bytes", "more")
        lines = [line.strip() for line in data.splitlines()]
        for number, line in enumerate(lines, start=1):
            if line and not _HEX_HASH.fullmatch(line):
                expected = "64 hexadecimal digits a line"
                raise _refused(path, expected, f"something else in line {number}")
        hashes = sorted({bytes.fromhex(line.decode()) for line in lines if line})
        if not hashes:
            raise _refused(path, "at least one hash", "none")
        return cls.of(hashes)

    @classmethod
    def of(cls, hashes: list[bytes]) -> "ImageHashRegistry":
        """The registry of these hashes, HASH_BYTES bytes each."""
        joined = b"".join(sorted(hashes))
        words = np.frombuffer(joined, dtype=np.uint64).reshape(len(hashes), HASH_BYTES // 8)
        return cls(words, sha256(joined).hexdigest())


def nearest_distance(image: PdqHash, registry: ImageHashRegistry) -> int:
    """Bits, 0 to 256, between `image` and the hash of `registry` that is nearest to it."""
    mine = np.frombuffer(image.bits, dtype=np.uint64)
    distances = np.bitwise_count(registry.words ^ mine).sum(axis=1, dtype=np.uint16)
    return int(distances.min(initial=8 * HASH_BYTES))


def matches(image: PdqHash, registry: ImageHashRegistry, max_distance: int = MAX_DISTANCE) -> bool:
    """Whether `image` is within `max_distance` bits of one in `registry`, whatever its quality."""
    return nearest_distance(image, registry) <= max_distance


def _pixels(image: "PillowImage") -> npt.NDArray[np.uint8]:
    factors = (
        max(1, image.width // _ENOUGH_PIXELS_A_SIDE),
        max(1, image.height // _ENOUGH_PIXELS_A_SIDE),
    )
    return np.asarray(image.reduce(factors), dtype=np.uint8)


def _refused(path: Path, expected: str, found: str) -> DataStewardError:
    return DataStewardError(
        f"registry of image hashes {ascii(path.name)[1:-1][:120]}",
        expected=expected,
        found=found,
        action="ask the registry's keeper for the file again",
    )
