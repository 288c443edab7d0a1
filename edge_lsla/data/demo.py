"""The demo data set: insects of 14 classes, split by artist, so that the test set shows an unseen hand."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from edge_lsla.data.artwork import Artwork, fetch_artwork, load_artwork
from edge_lsla.data.artwork_sources import CLASSES, SOURCES
from edge_lsla.data.backgrounds import BACKGROUND_KINDS
from edge_lsla.data.compose import NATURAL, CompositionSettings, compose, tint_glyph
from edge_lsla.errors import DatasetError, EdgeLslaError, UsageError

# Ink and fill a glyph is coloured with: the animal's own colours, and none that only the held-out artist uses.
_Colour = tuple[int, int, int]
_DARK: tuple[_Colour, ...] = ((25, 25, 30), (50, 35, 30), (60, 60, 70))
_PALETTES: dict[str, tuple[tuple[_Colour, ...], tuple[_Colour, ...]]] = {
    "ant": ((*_DARK, (95, 55, 30)), ((120, 70, 45), (90, 90, 100))),
    "bee": (((35, 30, 25), (70, 45, 15)), ((250, 200, 40), (240, 170, 30))),
    "lady beetle": (((25, 20, 20), (60, 15, 20)), ((220, 40, 40), (235, 80, 40))),
    "beetle": (
        ((20, 70, 45), (45, 45, 50), (30, 90, 70), (80, 55, 25)),
        ((70, 170, 80), (60, 150, 140), (150, 110, 50)),
    ),
    "bug": (((50, 130, 50), (40, 90, 40)), ((140, 200, 70), (90, 190, 110), (130, 170, 170))),
    "butterfly": (((30, 30, 40), (190, 90, 30)), ((240, 150, 40), (90, 160, 230), (235, 90, 60))),
    "cricket": (((60, 120, 40), (110, 85, 55), (90, 140, 30)), ((150, 200, 70), (180, 150, 110))),
    "cockroach": (((90, 45, 30), (110, 60, 40)), ((150, 85, 55), (120, 60, 45))),
    "spider": (_DARK, ((90, 85, 95), (110, 80, 70))),
    "mosquito": ((*_DARK, (110, 75, 65)), ((170, 180, 190), (150, 110, 100))),
    "fly": (_DARK, ((150, 185, 215), (130, 135, 145))),
    "worm": (((225, 120, 130), (190, 90, 80), (205, 90, 110)), ((245, 165, 160), (235, 140, 150))),
    "scorpion": (((95, 60, 45), (60, 50, 50), (190, 110, 60)), ((150, 95, 65), (200, 130, 80))),
    "snail": (((120, 80, 50), (90, 60, 45), (150, 90, 40)), ((220, 170, 110), (190, 140, 100))),
}


@dataclass(frozen=True)
class DemoDataSettings:
    """Size and seed of the demo data set.

    Raises:
        UsageError: a field is outside its range.
    """

    train_per_class: int = 1500
    val_per_class: int = 20
    test_per_class: int = 30
    photos: int = 104  # in all, spread evenly over the pictures
    size: int = 112  # side in pixels
    seed: int = 0
    glyph_share: float = 0.22  # of the training pictures; the others are colour artwork
    workers: int = 0  # 0: one a core
    artwork: Path | None = None  # a cache folder of sprites; None: DESTINATION/.artwork, downloaded when absent

    def __post_init__(self) -> None:
        for name in ("train_per_class", "val_per_class", "test_per_class", "photos", "seed", "workers"):
            if getattr(self, name) < 0:
                raise UsageError("value is negative", f"DemoDataSettings.{name}", "use 0 or more")
        if not 32 <= self.size <= 1024:
            raise UsageError("value out of range", "DemoDataSettings.size", "use 32 to 1024 pixels")
        if not 0 <= self.glyph_share <= 1:
            raise UsageError("value out of range", "DemoDataSettings.glyph_share", "use 0 to 1")


@dataclass(frozen=True)
class _Job:
    path: Path
    artwork: Artwork
    seed: tuple[int, ...]
    size: int
    settings: CompositionSettings


def generate(
    destination: Path, settings: DemoDataSettings, progress: Callable[[int, int], None] | None = None
) -> dict[str, int]:
    """Writes DESTINATION/{train,val,test,photos}/CLASS/*.jpg, classes.txt and SOURCES.md; equal seeds, equal files.

    Args:
        destination: a folder without a data set; made when absent.
        settings: sizes, seed and where the sprites are.
        progress: called with pictures done and pictures in all.

    Returns:
        Number of pictures in each split.

    Raises:
        DatasetError: a class has no artwork in training, or the folder holds a data set already.
        MissingComponentError: artwork must be downloaded and a tool is absent.
    """
    for split in ("train", "val", "test", "photos"):
        if (destination / split).exists():  # leftovers of another seed or size would mix with the new pictures
            raise DatasetError("folder holds a data set already", destination / split, "choose an empty folder")
    artwork = fetch_artwork(destination / ".artwork") if settings.artwork is None else load_artwork(settings.artwork)
    jobs = _plan(destination, settings, artwork)
    for folder in sorted({job.path.parent for job in jobs}):
        folder.mkdir(parents=True, exist_ok=True)
    (destination / "classes.txt").write_text("".join(f"{label}\n" for label in CLASSES), "utf-8")
    (destination / "SOURCES.md").write_text(describe_sources(artwork), "utf-8")
    workers = settings.workers or os.cpu_count() or 1
    done = 0
    chunks = [jobs[start : start + 64] for start in range(0, len(jobs), 64)]
    if workers == 1:
        for chunk in chunks:
            done += _draw(chunk)
            if progress:
                progress(done, len(jobs))
    else:
        # Spawned, not forked: the caller may hold threads (torch does), and a fork would copy their locks.
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            for count in pool.map(_draw, chunks):
                done += count
                if progress:
                    progress(done, len(jobs))
    counts: dict[str, int] = {}
    for job in jobs:
        split = job.path.parent.parent.name
        counts[split] = counts.get(split, 0) + 1
    return counts


def describe_sources(artwork: list[Artwork]) -> str:
    """Markdown table of who drew what, under which licence, for the sources really used."""
    used = {item.source for item in artwork}
    lines = [
        "# Sources of the demo pictures",
        "",
        "Each file name begins with its source. Backgrounds are generated. `val` shows the training artists.",
        "",
        "| source | artist | package | version | licence | split |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for source in SOURCES:
        if source.name in used:
            licence = f"[{source.licence}](https://spdx.org/licenses/{source.licence}.html)"
            split = "train, val" if source.split == "train" else source.split
            lines.append(
                f"| {source.name} | {source.artist} | {source.package} | {source.version} | {licence} | {split} |"
            )
    return "\n".join(lines) + "\n"


def _plan(destination: Path, settings: DemoDataSettings, artwork: list[Artwork]) -> list[_Job]:
    jobs: list[_Job] = []
    varied = CompositionSettings()
    splits = {"train": settings.train_per_class, "val": settings.val_per_class, "test": settings.test_per_class}
    for split_index, (split, per_class) in enumerate(splits.items()):
        for class_index, label in enumerate(CLASSES):
            wanted = "test" if split == "test" else "train"
            pool = [item for item in artwork if item.split == wanted and item.label == label]
            if per_class and not pool and wanted == "train":
                raise DatasetError("no training artwork", label, "fetch the artwork again")
            for number in range(per_class if pool else 0):
                seed = (settings.seed, split_index, class_index, number)
                if split == "test":
                    # Every picture of the artist meets every background in turn.
                    item = pool[number % len(pool)]
                    kind = BACKGROUND_KINDS[number // len(pool) % len(BACKGROUND_KINDS)]
                    jobs.append(_job(destination, split, item, number, seed, settings.size, _natural(kind)))
                else:
                    item = _choose(pool, np.random.default_rng((*seed, 1)), settings.glyph_share)
                    jobs.append(_job(destination, split, item, number, seed, settings.size, varied))
    photos = [item for item in artwork if item.split == "photos"]
    for number in range(settings.photos if photos else 0):
        item = photos[number % len(photos)]
        kind = BACKGROUND_KINDS[number // len(photos) % len(BACKGROUND_KINDS)]
        seed = (settings.seed, len(splits), 0, number)
        jobs.append(_job(destination, "photos", item, number, seed, settings.size, _natural(kind)))
    return jobs


def _job(
    destination: Path,
    split: str,
    item: Artwork,
    number: int,
    seed: tuple[int, ...],
    size: int,
    settings: CompositionSettings,
) -> _Job:
    label = item.label.replace(" ", "_")
    return _Job(destination / split / label / f"{item.source}_{label}_{number:04d}.jpg", item, seed, size, settings)


@lru_cache(maxsize=len(BACKGROUND_KINDS))
def _natural(kind: str) -> CompositionSettings:
    return replace(NATURAL, background=kind)


def _choose(pool: list[Artwork], rng: np.random.Generator, glyph_share: float) -> Artwork:
    glyphs = [item for item in pool if item.glyph]
    colour = [item for item in pool if not item.glyph]
    group = glyphs if glyphs and (not colour or rng.random() < glyph_share) else colour
    # Sources first, then the picture: an artist with seven ladybirds must not drown the others out.
    sources = sorted({item.source for item in group})
    weights = np.array([sum(item.source == name for item in group) ** 0.5 for name in sources])
    source = sources[int(rng.choice(len(sources), p=weights / weights.sum()))]
    mine = [item for item in group if item.source == source]
    return mine[int(rng.integers(len(mine)))]


@lru_cache(maxsize=256)
def _sprite(path: Path) -> Image.Image:
    with Image.open(path) as image:
        sprite: Image.Image = image.convert("RGBA")
    return sprite


def _draw(jobs: list[_Job]) -> int:
    for job in jobs:
        rng = np.random.default_rng(job.seed)
        sprite = _sprite(job.artwork.path)
        if job.artwork.glyph:
            inks, fills = _PALETTES[job.artwork.label]
            ink = _jitter(inks[int(rng.integers(len(inks)))], rng)
            fill = _jitter(fills[int(rng.integers(len(fills)))], rng) if rng.random() < 0.75 else None
            sprite = tint_glyph(sprite, ink, fill)
        picture = compose(sprite, rng, job.size, job.settings)
        picture.save(job.path, quality=int(rng.integers(88, 93)))
    return len(jobs)


def _jitter(colour: _Colour, rng: np.random.Generator) -> _Colour:
    red, green, blue = (int(value) for value in np.clip(np.array(colour) + rng.normal(0, 14, 3), 0, 255))
    return red, green, blue


def main(arguments: list[str] | None = None) -> None:
    """Runs the generator from the command line."""
    defaults = DemoDataSettings()
    parser = argparse.ArgumentParser(description="Write the demo data set.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--train-per-class", type=int, default=defaults.train_per_class)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--size", type=int, default=defaults.size, help="side in pixels")
    parser.add_argument("--artwork", type=Path, help="folder of sprites fetched before")
    options = parser.parse_args(arguments)
    try:
        settings = DemoDataSettings(
            train_per_class=options.train_per_class, seed=options.seed, size=options.size, artwork=options.artwork
        )
        counts = generate(options.output, settings, _report)
    except EdgeLslaError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    print(", ".join(f"{split}: {count}" for split, count in counts.items()))


def _report(done: int, total: int) -> None:
    if done % 1024 == 0 or done == total:
        print(f"{done}/{total}", flush=True)


if __name__ == "__main__":
    main()
