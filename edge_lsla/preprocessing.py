"""The one way pictures become tensors, shared by training, calibration and inference; NumPy and Pillow only."""

from __future__ import annotations

import dataclasses
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from edge_lsla.errors import ImageError, UsageError

MAX_PIXELS = 178_956_970  # where Pillow too sees a decompression bomb
# Pillow knows many more; some of them start other programs (EPS runs Ghostscript), which a stranger's file must not.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
BACKGROUND = (127, 127, 127)  # what shows through a transparent picture

Picture = Union[str, "os.PathLike[str]", bytes, Image.Image, NDArray[np.uint8]]


@dataclass(frozen=True)
class Preprocessing:
    """How a picture of any size becomes the model's input.

    Attributes:
        image_size: side of the square input, pixels.
        resize: "crop" scales the shorter side to image_size / crop_fraction and takes the middle;
            "stretch" scales both sides to image_size.
        crop_fraction: the part of the scaled picture that is kept, in (0, 1].
        mean, std: per channel (red, green, blue), for pixel values in 0..1.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    image_size: int
    resize: str = "crop"
    crop_fraction: float = 1.0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if (
            isinstance(self.image_size, bool)
            or not isinstance(self.image_size, int)
            or not 1 <= self.image_size <= 4096
        ):
            raise UsageError("preprocessing needs a side of 1 to 4096 pixels", "image_size", "correct it")
        if self.resize not in ("crop", "stretch"):
            raise UsageError(f"unknown resize {self.resize!r}", "resize", "use crop or stretch")
        if not _is_number(self.crop_fraction) or not 0 < self.crop_fraction <= 1:
            raise UsageError("preprocessing needs a fraction in (0, 1]", "crop_fraction", "correct it")
        for name in ("mean", "std"):
            values = getattr(self, name)
            numbers = isinstance(values, (tuple, list)) and len(values) == 3 and all(_is_number(v) for v in values)
            if not numbers or (name == "std" and min(values) <= 0):
                raise UsageError("preprocessing needs three numbers", name, "give one for red, green and blue")
            object.__setattr__(self, name, tuple(float(v) for v in values))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


def open_picture(picture: Picture, near: int | None = None) -> Image.Image:
    """Read a picture as it should be seen: 8-bit RGB, upright.

    Grey, palette, CMYK, 16-bit and transparent pictures are converted; EXIF orientation is applied.

    Args:
        picture: a path, encoded bytes, a Pillow image, or an array uint8 [H, W, 3] (RGB) or [H, W] (grey).
        near: where given, a JPEG may be decoded at a reduced size with both sides still at least `near` pixels.

    Raises:
        ImageError: the picture is missing, unreadable, cut short, empty or too large.
    """
    where = str(picture) if isinstance(picture, (str, os.PathLike)) else f"picture given as {type(picture).__name__}"
    if isinstance(picture, np.ndarray):
        return _from_array(picture, where)
    try:
        if isinstance(picture, Image.Image):
            if picture.format not in (None, "MPO", *FORMATS):  # it is decoded only now; MPO is a JPEG
                raise UnidentifiedImageError
            return _to_rgb(picture)
        with Image.open(_source(picture, where), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            if near is not None:
                image.draft("RGB", (near, near))
            return _to_rgb(image)
    except Image.DecompressionBombError as error:
        raise ImageError(f"picture has more than {MAX_PIXELS:,} pixels", where, "scale it down first") from error
    except UnidentifiedImageError as error:
        raise ImageError("not a picture that can be read", where, "use JPEG, PNG, WebP, TIFF or BMP") from error
    except FileNotFoundError as error:
        raise ImageError("no such picture", where, "check the path") from error
    except PermissionError as error:
        raise ImageError("no permission to read the picture", where, "change its permissions") from error
    except IsADirectoryError as error:
        raise ImageError("a folder, not a picture", where, "use `infer dir` for a folder") from error
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError, MemoryError, TypeError) as error:
        # Pillow's decoders raise all of these for damaged files.
        raise ImageError("picture is damaged or cut short", where, f"replace it ({error})") from error


def to_tensor(picture: Picture, settings: Preprocessing) -> NDArray[np.float32]:
    """Turn one picture into the model's input, float32 [3, S, S], normalised, RGB order.

    Raises:
        ImageError: see `open_picture`.
    """
    return normalise(to_pixels(picture, settings), settings)


def to_pixels(picture: Picture, settings: Preprocessing) -> NDArray[np.uint8]:
    """Do the geometric half of `to_tensor`: uint8 [S, S, 3], RGB order.

    Raises:
        ImageError: see `open_picture`.
    """
    size = settings.image_size
    scaled = max(size, round(size / settings.crop_fraction)) if settings.resize == "crop" else size
    image = open_picture(picture, near=2 * scaled)
    if settings.resize == "crop":
        side = min(image.width, image.height)
        kept = side * size / scaled
        left, top = (image.width - kept) / 2, (image.height - kept) / 2
        box = (left, top, left + kept, top + kept)
    else:
        box = (0.0, 0.0, float(image.width), float(image.height))
    if image.size != (size, size) or box != (0, 0, size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image)


def normalise(pixels: NDArray[np.uint8], settings: Preprocessing) -> NDArray[np.float32]:
    """Do the arithmetic half of `to_tensor`: uint8 [..., H, W, 3] to float32 [..., 3, H, W]."""
    scale = np.array([1 / (255 * s) for s in settings.std], np.float32)
    shift = np.array([-m / s for m, s in zip(settings.mean, settings.std)], np.float32)
    planes = np.moveaxis(pixels, -1, -3)
    out = np.empty(planes.shape, np.float32)
    np.multiply(planes, scale[:, None, None], out=out)
    out += shift[:, None, None]
    return out


def find_pictures(folder: Path) -> list[Path]:
    """Return the files below a folder whose names end like a picture's, sorted, hidden ones left out.

    Raises:
        ImageError: the folder does not exist, is not a folder, or cannot be read.
    """
    if not folder.exists():
        raise ImageError("no such folder", folder, "check the path")
    if not folder.is_dir():
        raise ImageError("not a folder", folder, "use `infer image` for one picture")
    try:
        next(folder.iterdir(), None)
    except PermissionError as error:
        raise ImageError("no permission to read the folder", folder, "change its permissions") from error
    found = (p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def _source(picture: object, where: str) -> Any:
    """Return what Pillow opens, refusing what is no picture at all; a pipe or device would never end."""
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return io.BytesIO(picture)
    if not isinstance(picture, (str, os.PathLike)):
        raise ImageError(
            f"an object of type {type(picture).__name__} is no picture",
            where,
            "give a path, bytes, a Pillow image or a uint8 array",
        )
    if Path(picture).exists() and not Path(picture).is_dir() and not Path(picture).is_file():
        raise ImageError("not a regular file", where, "give a picture file")
    return picture


def _from_array(array: NDArray[Any], where: str) -> Image.Image:
    if (
        array.dtype != np.uint8
        or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3))
        or 0 in array.shape
    ):
        raise ImageError(
            f"array is {array.dtype} {list(array.shape)}", where, "give uint8 [H, W, 3] in RGB order, or [H, W]"
        )
    return Image.fromarray(array if array.ndim == 3 else np.repeat(array[:, :, None], 3, axis=2))


def _to_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode.startswith("I") or image.mode == "F":  # Pillow's own conversion clips instead of scaling
        values = np.nan_to_num(np.asarray(image, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        if values.size and values.max() > 255:
            values = values / (65535 if values.max() <= 65535 else values.max()) * 255
        image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        image = Image.alpha_composite(canvas, image)
    return image.convert("RGB")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e6
