from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_lsla.errors import ImageError, UsageError
from edge_lsla.preprocessing import Preprocessing, find_pictures, normalise, open_picture, to_pixels, to_tensor

PLAIN = Preprocessing(32)


def gradient(width: int = 64, height: int = 48) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([rows * 5 % 256, columns * 4 % 256, rows + columns], -1).astype(np.uint8))


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA", "I", "F", "YCbCr", "HSV", "LAB"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = gradient().convert("L").convert(mode) if mode in ("I", "F", "LA") else gradient().convert(mode)
    assert open_picture(image).mode == "RGB"
    assert to_tensor(image, PLAIN).shape == (3, 32, 32)


def test_sixteen_bit_pictures_are_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels = np.asarray(open_picture(encoded(Image.fromarray(values), "PNG")))
    assert abs(int(pixels[32, 32, 0]) - 128) <= 2
    assert pixels.max() == 255


def test_transparency_shows_neutral_grey() -> None:
    pixels = np.asarray(open_picture(Image.new("RGBA", (8, 8), (255, 0, 0, 0))))
    assert (pixels == 127).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = Image.new("RGB", (40, 20), "white")
    upright.paste("black", (0, 0, 10, 10))  # a mark at the top left
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's Transpose numbers
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    seen = np.asarray(open_picture(encoded(stored, "PNG", exif=exif)))
    assert seen.shape == (20, 40, 3)
    assert seen[2, 2].max() < 50
    assert seen[-2, -2].min() > 200


def bomb() -> bytes:
    """Make a PNG that claims 60,000 x 60,000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a picture"),
        (b"this is text", "not a picture"),
        (encoded(gradient(), "JPEG")[:500], "damaged or cut short"),
        (encoded(gradient(), "PNG")[:80], "damaged or cut short"),
        (bomb(), "more than"),
    ],
    ids=["empty", "text", "cut jpeg", "cut png", "bomb"],
)
def test_bad_pictures_are_refused_in_words(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    for picture in (path, data):
        with pytest.raises(ImageError, match=message):
            to_tensor(picture, PLAIN)


def test_missing_files_folders_and_odd_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such picture"):
        open_picture(tmp_path / "no.jpg")
    with pytest.raises(ImageError, match="folder"):
        open_picture(tmp_path)
    for array in (np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ImageError, match="array is"):
            open_picture(array)


def test_the_tensor_is_the_normalised_picture() -> None:
    pixels = np.asarray(gradient(32, 32))
    tensor = to_tensor(pixels, PLAIN)
    expected = (pixels / 255 - np.array(PLAIN.mean)) / np.array(PLAIN.std)
    assert tensor.dtype == np.float32
    assert np.abs(tensor - expected.transpose(2, 0, 1)).max() < 1e-6  # float32 rounding of values below 3
    assert np.array_equal(normalise(pixels[None], PLAIN)[0], tensor)


def test_crop_takes_the_middle_and_stretch_takes_all() -> None:
    wide = Image.new("RGB", (96, 32), "black")
    wide.paste("white", (32, 0, 64, 32))
    assert to_pixels(wide, PLAIN).min() == 255
    assert to_pixels(wide, Preprocessing(32, resize="stretch"))[:, 0].max() == 0


def test_a_large_jpeg_decoded_small_gives_nearly_the_same() -> None:
    smooth = gradient().resize((1600, 1200), Image.Resampling.BICUBIC)
    fast = to_pixels(encoded(smooth, "JPEG", quality=95), PLAIN).astype(int)
    slow = to_pixels(np.asarray(open_picture(encoded(smooth, "JPEG", quality=95))), PLAIN).astype(int)
    assert np.abs(fast - slow).mean() < 1.5  # the decoder averages blocks where Pillow interpolates


@pytest.mark.parametrize(
    "fields",
    [{"image_size": 0}, {"image_size": True}, {"resize": "zoom"}, {"crop_fraction": 0}, {"mean": (1, 2)},
     {"std": (1.0, 0.0, 1.0)}, {"mean": (float("nan"), 0, 0)}],
)  # fmt: skip
def test_settings_name_the_offending_field(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        Preprocessing(**{"image_size": 32, **fields})


def test_pictures_are_found_sorted_and_hidden_ones_are_not(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/c.png", ".hidden/d.png", "e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.relative_to(tmp_path).as_posix() for p in find_pictures(tmp_path)] == ["a/c.png", "b.JPG"]
    with pytest.raises(ImageError, match="no such folder"):
        find_pictures(tmp_path / "no")
    with pytest.raises(ImageError, match="not a folder"):
        find_pictures(tmp_path / "b.JPG")
