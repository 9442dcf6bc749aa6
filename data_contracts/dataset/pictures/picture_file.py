"""The pixels of an image file, which is untrusted input: one reading for check and training.

In this order: the file's size, its format, the number of pixels its header states, and only then is
it decoded, the first frame alone. Whatever a decoder says is one of the fixed reasons of an
`UnreadableImage`. The decoders themselves are Pillow's C libraries, in this process: keep Pillow
current. What the check could decode, training can, with the same versions of the libraries.
"""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

MAX_FILE_BYTES = 32 * 1024 * 1024
MAX_PIXELS = 50_000_000
MIN_SIDE_PIXELS = 16

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")

ABSENT = "image.absent"
TOO_LARGE = "image.too_large"
TOO_MANY_PIXELS = "image.too_many_pixels"
TOO_SMALL = "image.too_small"
UNKNOWN_FORMAT = "image.unknown_format"
UNDECODABLE = "image.undecodable"

MadeT = TypeVar("MadeT")
_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class UnreadableImage:
    """An image without pixels; `rule` is one of the ids of this module."""

    rule: str


def read_image(path: Path) -> bytes | UnreadableImage:
    """The bytes of the file at `path`, read once, or why there are none to decode."""
    try:
        if not path.is_file():  # a named pipe would be waited for
            return UnreadableImage(ABSENT)
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError):  # ValueError: a name that no file can have.
        return UnreadableImage(ABSENT)
    return UnreadableImage(TOO_LARGE) if len(data) > MAX_FILE_BYTES else data


def decoded(
    data: bytes, make: Callable[["PillowImage"], MadeT], *, is_turned: bool = False
) -> MadeT | UnreadableImage:
    """What `make` makes of the first frame, or why there is none.

    It is given red, green, blue in 8 bits, transparency over white; with `is_turned` turned and
    mirrored as the EXIF says. Pillow is loaded with the first image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # A warning may quote what an image says of itself.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            problem = _problem_of_size(image.width, image.height)
            if problem is not None:
                return UnreadableImage(problem)
            flat = _flat(image)
            return make(_turned(flat, _orientation(image)) if is_turned else flat)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return UnreadableImage(TOO_MANY_PIXELS)
    except UnidentifiedImageError:
        return UnreadableImage(UNKNOWN_FORMAT)
    except Exception:  # Decoders of untrusted bytes raise whatever they trip over.
        return UnreadableImage(UNDECODABLE)


def _problem_of_size(width: int, height: int) -> str | None:
    if width * height > MAX_PIXELS:
        return TOO_MANY_PIXELS
    return TOO_SMALL if min(width, height) < MIN_SIDE_PIXELS else None


def _flat(image: "PillowImage") -> "PillowImage":
    from PIL import Image

    image.load()
    if image.mode.startswith("I"):
        image = _in_8_bits(image)
    if image.has_transparency_data:
        # What lies under transparent pixels is seen by nobody, so it must decide nothing.
        layer = image.convert("RGBA")
        flat = Image.new("RGB", image.size, "white")
        flat.paste(layer, mask=layer.getchannel("A"))
        return flat
    return image.convert("RGB")


def _turned(image: "PillowImage", orientation: int) -> "PillowImage":
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    turn = turns.get(orientation)
    return image if turn is None else image.transpose(turn)


def _orientation(image: "PillowImage") -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except (
        Exception
    ):  # EXIF is as untrusted as the rest, and a broken one is no fault of the pixels.
        return 1


def _in_8_bits(image: "PillowImage") -> "PillowImage":
    """Of 16 bits of grey the upper 8; Pillow itself would make white of all but the darkest."""
    from PIL import Image

    grey = np.asarray(image).astype(np.int64)
    scaled = np.clip((grey * 255 + 32767) // 65535, 0, 255).astype(np.uint8)
    through = image.info.get("transparency")
    if isinstance(through, int):
        scaled = np.where(grey == through, np.uint8(255), scaled)
    return Image.fromarray(scaled)
