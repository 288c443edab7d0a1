"""The pictures and the video that ship with the demo, drawn from the demo data set and its artwork."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_lsla.data.artwork import Artwork, load_artwork
from edge_lsla.data.artwork_sources import CLASSES, SOURCES
from edge_lsla.data.backgrounds import BACKGROUND_KINDS, background
from edge_lsla.data.compose import NATURAL, compose
from edge_lsla.errors import DatasetError, EdgeLslaError, MissingComponentError

PERMISSIVE = ("Apache-2.0", "MIT", "CC-BY-4.0")  # what ships must ask for no more than being named
CALIBRATION_PER_CLASS = 16
SAMPLES, SAMPLE_SIDE = 24, 320
RATE, CLIP_SECONDS, VIDEO_SIDE = 15, 1.2, 320


def write_assets(data: Path, destination: Path) -> None:
    """Fill `destination` with heldout/, calibration/, samples/, classes.txt and pests.mp4.

    `heldout` is the data set's test split as it is. `calibration` is a part of the training split, by permissively
    licensed artists. The samples and the video show artwork of the held-out artist.

    Args:
        data: a folder written by `edge_lsla.data.demo`.

    Raises:
        DatasetError: it is not such a folder, or its artwork was removed.
        MissingComponentError: PyAV is not installed.
    """
    if not (data / "test").is_dir() or not (data / ".artwork").is_dir():
        raise DatasetError("no demo data set with its artwork", data, "draw it with python -m edge_lsla.data.demo")
    artwork = [item for item in load_artwork(data / ".artwork") if item.split == "test"]
    destination.mkdir(parents=True, exist_ok=True)
    for name in ("heldout", "calibration", "samples"):
        shutil.rmtree(destination / name, ignore_errors=True)
    shutil.copytree(data / "test", destination / "heldout")
    shutil.copy(data / "classes.txt", destination / "classes.txt")
    _copy_calibration(data / "train", destination / "calibration")
    _draw_samples(artwork, destination / "samples")
    _film(artwork, destination / "pests.mp4")


def _copy_calibration(train: Path, destination: Path) -> None:
    free = {source.name for source in SOURCES if source.split == "train" and source.licence in PERMISSIVE}
    for folder in sorted(train.iterdir()):
        pictures = [path for path in sorted(folder.glob("*.jpg")) if path.name.split("_")[0] in free]
        (destination / folder.name).mkdir(parents=True)
        for path in pictures[:CALIBRATION_PER_CLASS]:
            shutil.copy(path, destination / folder.name)


def _draw_samples(artwork: list[Artwork], destination: Path) -> None:
    destination.mkdir(parents=True)
    by_class: dict[str, list[Artwork]] = defaultdict(list)
    for item in artwork:
        by_class[item.label].append(item)
    for number in range(SAMPLES):
        label = CLASSES[number % len(CLASSES)]
        turn = number // len(CLASSES)
        item = by_class[label][turn % len(by_class[label])]
        settings = replace(NATURAL, background=BACKGROUND_KINDS[(number + turn) % len(BACKGROUND_KINDS)])
        with Image.open(item.path) as sprite:
            picture = compose(sprite.convert("RGBA"), np.random.default_rng((7, number)), SAMPLE_SIDE, settings)
        picture.save(destination / f"{label.replace(' ', '_')}_{turn + 1}.jpg", quality=90)


def _film(artwork: list[Artwork], path: Path) -> None:
    try:
        import av
    except ImportError as error:
        raise MissingComponentError("PyAV is missing", "av", "pip install av opencv-python") from error
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width = stream.height = VIDEO_SIDE
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "27", "preset": "slow"}
        for index, label in enumerate(CLASSES):
            chosen = [item for item in artwork if item.label == label]
            for pixels in _clip(chosen[index % len(chosen)], index):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _clip(item: Artwork, index: int) -> list[NDArray[np.uint8]]:
    """Let one insect crawl across one background, uint8 frames [S, S, 3]."""
    rng = np.random.default_rng((11, index))
    ground = np.clip(background(BACKGROUND_KINDS[index % len(BACKGROUND_KINDS)], rng, VIDEO_SIDE), 0, 255)
    with Image.open(item.path) as opened:
        sprite = opened.convert("RGBA")
    scale = 0.62 * VIDEO_SIDE / max(sprite.size)
    sprite = sprite.resize((round(sprite.width * scale), round(sprite.height * scale)), Image.Resampling.LANCZOS)
    frames = []
    count = round(RATE * CLIP_SECONDS)
    for step in range(count):
        along = step / (count - 1)
        canvas = Image.fromarray(ground.astype(np.uint8))
        turned = sprite.rotate(8 * np.sin(6 * along * np.pi), Image.Resampling.BICUBIC, expand=True)
        centre = (0.42 + 0.16 * along) * VIDEO_SIDE, (0.5 + 0.06 * np.sin(2 * np.pi * along)) * VIDEO_SIDE
        canvas.paste(turned, (round(centre[0] - turned.width / 2), round(centre[1] - turned.height / 2)), turned)
        frames.append(np.asarray(canvas))
    return frames


def main() -> int:
    """Run `python -m edge_lsla.data.demo_assets DATA -o DEMO`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="a folder written by edge_lsla.data.demo")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        write_assets(arguments.data, arguments.output)
    except EdgeLslaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
