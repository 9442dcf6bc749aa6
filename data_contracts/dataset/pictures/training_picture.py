"""A picture for training: the very bytes that were checked, as a square of pixels.

Without PyTorch, and the same for the same bytes with the same versions of Pillow and NumPy. The
shorter side is scaled to the square's with bicubic weights and the middle is kept, as CLIP's
preprocessing does (Radford et al., Learning Transferable Visual Models From Natural Language
Supervision, 2021); only what is kept is computed, so a long strip costs no more than a square.
"""

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from data_contracts.dataset.pictures.picture_file import (
    UnreadableImage,
    decoded,
    read_image,
)
from data_contracts.errors import SiloOperatorError
from data_contracts.shown_text import quoted

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

_CHECK_AGAIN = (
    "let nobody change the pictures while a round is on, and start the round again: that runs the "
    "data check again (`silo-agent check --data` shows what it says)"
)


def training_picture(path: Path, digest: str, side: int) -> npt.NDArray[np.uint8]:
    """Red, green, blue as uint8 [side, side, 3] of the file at `path`, turned as its EXIF says.

    `digest` is the SHA-256 of the bytes that were checked, 64 hexadecimal digits; `side` is in
    pixels, at least 1. The file is read once. Raises SiloOperatorError when its bytes are others,
    or give no picture.
    """
    if side < 1:
        raise ValueError("expected a side of at least one pixel")
    data = read_image(path)
    if isinstance(data, UnreadableImage):
        raise _refused(path, f"no such picture ({data.rule})")
    if sha256(data).hexdigest() != digest:
        raise _refused(path, "others")
    pixels = decoded(data, lambda image: np.array(_square(image, side)), is_turned=True)
    if isinstance(pixels, UnreadableImage):
        raise _refused(path, f"those, and no picture in them ({pixels.rule})")
    return pixels


def _square(image: "PillowImage", side: int) -> "PillowImage":
    from PIL.Image import Resampling

    short, long = sorted(image.size)
    scaled = side * long // short
    begin = (scaled - side) // 2
    # The part of the long side, in its own pixels, that the middle of the scaled one is made of.
    first, last = begin * long / scaled, min((begin + side) * long / scaled, long)
    is_wide = image.width > image.height
    box = (first, 0, last, short) if is_wide else (0, first, short, last)
    return image.resize((side, side), Resampling.BICUBIC, box=box)


def _refused(path: Path, found: str) -> SiloOperatorError:
    return SiloOperatorError(
        f"picture {quoted(path.name)}",
        expected="the bytes that were checked",
        found=found,
        action=_CHECK_AGAIN,
    )
