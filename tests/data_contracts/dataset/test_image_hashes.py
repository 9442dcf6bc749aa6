"""Hashes of images: the same picture is found again, and no file can do more than be refused."""

import io
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_contracts.dataset.image_hashes import (
    ImageHashRegistry,
    hash_image,
    matches,
    nearest_distance,
)
from data_contracts.dataset.pdq import PdqHash
from data_contracts.dataset.pictures.picture_file import MAX_FILE_BYTES, UnreadableImage
from data_contracts.errors import DataStewardError


def picture(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """A smooth random picture, which has the low frequencies of a photograph."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def saved(path: Path, image: Image.Image, quality: int = 90) -> Path:
    image.save(path, quality=quality)
    return path


def hashed(path: Path) -> PdqHash:
    found = hash_image(path)
    assert isinstance(found, PdqHash)
    assert len(found.bits) == 32
    return found


def png_header(width: int, height: int) -> bytes:
    """A PNG that states a size and has hardly any pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0")), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.long
def test_a_picture_is_found_in_every_format_and_size(tmp_path: Path) -> None:
    original = hashed(saved(tmp_path / "a.png", picture(1)))
    registry = ImageHashRegistry.of([original.bits, bytes(32)])
    others = [
        saved(tmp_path / "a.jpg", picture(1), quality=60),
        saved(tmp_path / "a.webp", picture(1), quality=60),
        saved(tmp_path / "a.gif", picture(1)),
        saved(tmp_path / "small.png", picture(1).resize((160, 120))),
        saved(tmp_path / "large.png", picture(1, 3200, 2400)),
    ]
    distances = [nearest_distance(hashed(path), registry) for path in others]
    assert max(distances) <= 31
    assert original.is_reliable
    assert all(matches(hashed(path), registry) for path in others)


def test_other_pictures_are_far_away(tmp_path: Path) -> None:
    registry = ImageHashRegistry.of([hashed(saved(tmp_path / "a.png", picture(1))).bits])
    distances = [
        nearest_distance(hashed(saved(tmp_path / f"{seed}.png", picture(seed))), registry)
        for seed in range(2, 12)
    ]
    assert min(distances) > 60


def test_the_first_frame_counts(tmp_path: Path) -> None:
    path = tmp_path / "moving.gif"
    picture(1).save(path, save_all=True, append_images=[picture(2), picture(3)])
    first = hashed(saved(tmp_path / "first.png", picture(1)))
    assert matches(hashed(path), ImageHashRegistry.of([first.bits]))


def test_what_is_transparent_does_not_decide(tmp_path: Path) -> None:
    mask = Image.new("L", (320, 240), 0)
    mask.paste(255, (80, 60, 240, 180))
    white = Image.new("RGB", (320, 240), "white")
    seen = Image.composite(picture(1), white, mask)
    hidden = Image.composite(picture(1), picture(2), mask)
    hidden.putalpha(mask)
    one, other = (
        hashed(saved(tmp_path / name, image))
        for name, image in (("seen.png", seen), ("hidden.png", hidden))
    )
    assert one == other


def test_sixteen_bits_of_grey_are_the_picture_in_eight(tmp_path: Path) -> None:
    grey = picture(1).convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    one, other = (
        hashed(saved(tmp_path / name, image))
        for name, image in (("grey.png", grey), ("deep.png", deep))
    )
    assert one == other


@pytest.mark.filterwarnings("error")
def test_a_palette_with_transparency_is_hashed_without_a_word(tmp_path: Path) -> None:
    image = picture(1).convert("P")
    path = tmp_path / "a.png"
    image.save(path, transparency=bytes(range(256)))
    hashed(path)


def test_a_plain_image_is_not_reliable(tmp_path: Path) -> None:
    assert not hashed(saved(tmp_path / "a.png", Image.new("RGB", (64, 64), "red"))).is_reliable


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK"])
def test_every_kind_of_pixel_is_hashed(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    image = Image.new(mode, (64, 64)) if mode == "I;16" else picture(1).convert(mode)
    hashed(saved(tmp_path / f"a.{suffix}", image))


def test_files_that_are_no_images_have_a_reason(tmp_path: Path) -> None:
    whole = io.BytesIO()
    picture(1).save(whole, "JPEG")
    bitmap = io.BytesIO()
    picture(1).save(bitmap, "BMP")
    files = {
        "image.unknown_format": [b"", b"words", bitmap.getvalue(), b"%!PS-Adobe-3.0 EPSF-3.0\n"],
        "image.undecodable": [whole.getvalue()[:3000], png_header(64, 64)],
        "image.too_many_pixels": [png_header(8000, 8000), png_header(60_000, 60_000)],
        "image.too_small": [png_header(8, 4000)],
        "image.too_large": [b"\xff" * (MAX_FILE_BYTES + 1)],
    }
    path = tmp_path / "untrusted"
    for reason, contents in files.items():
        for content in contents:
            path.write_bytes(content)
            assert hash_image(path) == UnreadableImage(reason)


@pytest.mark.parametrize("name", ["absent.png", ".", "a\0b"])
def test_a_file_that_cannot_be_opened_is_absent(tmp_path: Path, name: str) -> None:
    assert hash_image(tmp_path / name) == UnreadableImage("image.absent")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]))
def test_damaged_files_are_judged_without_an_exception(seed: int, damage: int, kind: str) -> None:
    file = io.BytesIO()
    picture(1, 64, 48).save(file, kind)
    data = np.frombuffer(file.getvalue(), np.uint8).copy()
    random = np.random.default_rng(seed)
    data[random.integers(0, len(data), damage)] = random.integers(0, 256, damage)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged"
        path.write_bytes(data.tobytes())
        assert isinstance(hash_image(path), PdqHash | UnreadableImage)


def test_decoders_are_loaded_with_the_first_image_only() -> None:
    code = "import sys, data_contracts.dataset.findings.image_check; sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_registry_is_a_hash_a_line(tmp_path: Path) -> None:
    path = tmp_path / "registry.txt"
    path.write_text("0F" * 32 + "\n\n" + "ff" * 32 + "\r\n" + "0f" * 32)
    registry = ImageHashRegistry.from_file(path)
    assert registry.words.shape == (2, 4)
    assert registry.digest == ImageHashRegistry.of([b"\xff" * 32, b"\x0f" * 32]).digest
    assert nearest_distance(PdqHash(b"\x0f" * 31 + b"\x0e", 100), registry) == 1
    assert nearest_distance(PdqHash(bytes(32), 100), registry) == 128


def test_the_distance_that_still_matches_is_included() -> None:
    registry = ImageHashRegistry.of([bytes(32)])
    near, far = (
        PdqHash(b"\xff" * 3 + b"\x7f" + bytes(28), 100),
        PdqHash(b"\xff" * 4 + bytes(28), 100),
    )
    assert matches(near, registry)
    assert not matches(far, registry)
    assert matches(far, registry, max_distance=32)
    assert not matches(near, ImageHashRegistry.of([]), max_distance=255)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one hash; found none"),
        ("0f" * 32 + "\n" + "0f" * 31, "something else in line 2"),
        ("zz" * 32, "something else in line 1"),
    ],
)
def test_another_registry_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "registry.txt"
    path.write_text(text)
    with pytest.raises(DataStewardError, match=f"registry.txt: expected .*{message}"):
        ImageHashRegistry.from_file(path)
