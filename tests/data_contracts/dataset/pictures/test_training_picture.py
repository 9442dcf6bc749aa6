"""A picture for training is the bytes that were checked, upright and square, or one clear error."""

import io
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from data_contracts.dataset.pictures.training_picture import training_picture
from data_contracts.errors import SiloOperatorError

SIDE = 24


def coarse(width: int = 60, height: int = 40, seed: int = 1) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def saved(path: Path, image: Image.Image, kind: str = "PNG", **options: object) -> Path:
    image.save(path, kind, **options)
    return path


def read(path: Path, side: int = SIDE) -> npt.NDArray[np.uint8]:
    return training_picture(path, sha256(path.read_bytes()).hexdigest(), side)


def whole_then_cropped(image: Image.Image, side: int) -> npt.NDArray[np.uint8]:
    """As CLIP's preprocessing does it, computing all of the picture first."""
    short, long = sorted(image.size)
    scaled = (side, side * long // short)
    size = scaled if image.width < image.height else scaled[::-1]
    large = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return np.asarray(large.crop((left, top, left + side, top + side)))


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (50, 50), (16, 17), (301, 20), (24, 24)])
@pytest.mark.parametrize("side", [1, 24, 64])
def test_the_middle_square_as_clip_takes_it(
    tmp_path: Path, size: tuple[int, int], side: int
) -> None:
    image = coarse(*size)
    found = read(saved(tmp_path / "a.png", image), side)
    assert found.shape == (side, side, 3) and found.dtype == np.uint8
    difference = np.abs(found.astype(int) - whole_then_cropped(image, side))
    assert difference.max() <= 1


def test_a_long_strip_costs_no_more_than_a_square(tmp_path: Path) -> None:
    strip = Image.new("RGB", (1_000_000, 16), "teal")
    assert (read(saved(tmp_path / "a.png", strip), 224) == (0, 128, 128)).all()


def test_the_same_bytes_are_the_same_pixels(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", coarse(300, 200), "JPEG")
    assert (read(path) == read(path)).all()


def test_a_picture_stands_as_its_exif_says(tmp_path: Path) -> None:
    turned = {
        1: coarse(),
        2: coarse().transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: coarse().transpose(Image.Transpose.ROTATE_180),
        4: coarse().transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: coarse().transpose(Image.Transpose.TRANSPOSE),
        6: coarse().transpose(Image.Transpose.ROTATE_90),
        7: coarse().transpose(Image.Transpose.TRANSVERSE),
        8: coarse().transpose(Image.Transpose.ROTATE_270),
    }
    upright = read(saved(tmp_path / "a.png", coarse()))
    for orientation, stored in turned.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = saved(tmp_path / f"{orientation}.png", stored, exif=exif)
        assert (read(path) == upright).all(), orientation
    exif[0x0112] = 99
    assert (read(saved(tmp_path / "odd.png", coarse(), exif=exif)) == upright).all()
    broken = saved(tmp_path / "broken.png", coarse(), exif=b"Exif\0\0MM\0*\0\0\xff\xff\xff")
    assert (read(broken) == upright).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_every_format_gives_the_picture(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path / "a", coarse(), kind)
    difference = np.abs(read(path).astype(int) - whole_then_cropped(coarse(), SIDE))
    assert difference.mean() < 16


def test_modes_become_eight_bits_of_three_colours(tmp_path: Path) -> None:
    grey = coarse().convert("L")
    expected = whole_then_cropped(grey.convert("RGB"), SIDE)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    opaque = grey.convert("LA")
    for name, image in (("grey", grey), ("deep", deep), ("opaque", opaque)):
        found = read(saved(tmp_path / f"{name}.png", image))
        assert np.abs(found.astype(int) - expected).max() <= 1, name
    palette = coarse().quantize(64)
    assert (
        np.abs(
            read(saved(tmp_path / "p.png", palette)).astype(int)
            - whole_then_cropped(palette.convert("RGB"), SIDE)
        ).max()
        <= 1
    )
    red = Image.new("CMYK", (40, 40), (0, 255, 255, 0))
    found = read(saved(tmp_path / "c.jpg", red, "JPEG"))
    assert (found[..., 0] > 250).all() and (found[..., 1:] < 5).all()


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (40, 40), (9, 9, 9, 0))
    half = Image.new("LA", (40, 40), (0, 128))
    palette = Image.new("P", (40, 40), 3)
    paths = (
        saved(tmp_path / "a.png", clear),
        saved(tmp_path / "b.gif", palette, "GIF", transparency=3),
        saved(tmp_path / "c.png", Image.fromarray(np.full((40, 40), 7, np.uint16)), transparency=7),
    )
    for path in paths:
        assert (read(path) == 255).all(), path.name
    assert (np.abs(read(saved(tmp_path / "d.png", half)).astype(int) - 127) <= 1).all()


def test_the_first_frame_of_several_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    coarse(seed=1).save(path, save_all=True, append_images=[coarse(seed=2)])
    alone = saved(tmp_path / "b.gif", coarse(seed=1), "GIF")
    assert (read(path) == read(alone)).all()


def test_other_bytes_than_were_checked_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", coarse())
    digest = sha256(path.read_bytes()).hexdigest()
    saved(path, coarse(seed=2))
    with pytest.raises(SiloOperatorError) as caught:
        training_picture(path, digest, SIDE)
    assert "picture 'a.png': expected the bytes that were checked; found others" in str(
        caught.value
    )
    assert "runs the data check again" in str(caught.value)
    path.unlink()
    with pytest.raises(SiloOperatorError, match=r"found no such picture \(image\.absent\)"):
        training_picture(path, digest, SIDE)


def test_bytes_that_are_no_picture_are_refused_by_the_check_s_own_reason(tmp_path: Path) -> None:
    whole = io.BytesIO()
    coarse().save(whole, "JPEG")
    for reason, data in {
        "unknown_format": b"words",
        "undecodable": whole.getvalue()[:-400],
        "too_small": saved(tmp_path / "s.png", Image.new("RGB", (15, 400))).read_bytes(),
    }.items():
        path = tmp_path / "x"
        path.write_bytes(data)
        with pytest.raises(SiloOperatorError, match=f"no picture in them .image.{reason}"):
            read(path)
