"""The artwork of the demo data set, downloaded and rasterised."""

from __future__ import annotations

import importlib
import io
import json
import logging
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from edge_lsla.data.artwork_sources import SOURCES, Source
from edge_lsla.errors import EdgeLslaError, MissingComponentError

_log = logging.getLogger(__name__)

SPRITE_PIXELS = 320  # longest side


@dataclass(frozen=True)
class Artwork:
    """One rasterised insect: an RGBA PNG cropped to the insect."""

    path: Path
    label: str
    source: str
    split: str
    glyph: bool


def load_artwork(folder: Path) -> list[Artwork]:
    """Lists the sprites of a cache folder, FOLDER/SPLIT/LABEL/SOURCE__ICON.png, in a fixed order."""
    glyphs = {source.name for source in SOURCES if source.glyph}
    found = []
    for path in sorted(folder.glob("*/*/*.png")):
        source = path.name.split("__")[0]
        label = path.parent.name.replace("_", " ")
        found.append(Artwork(path, label, source, path.parent.parent.name, source in glyphs))
    return found


def fetch_artwork(destination: Path) -> list[Artwork]:
    """Downloads and rasterises every source into a cache folder; what is there already is not fetched again.

    Debian packages that this machine cannot download are left out, with a counted notice.

    Raises:
        MissingComponentError: npm or cairosvg is absent.
        EdgeLslaError: a download through npm failed.
    """
    missing = [source for source in SOURCES if any(not path.exists() for _, _, path in _sprites(source, destination))]
    from_npm = [source for source in missing if source.folder is None]
    from_apt = [source for source in missing if source.folder is not None]
    with tempfile.TemporaryDirectory() as work:
        if from_npm:
            npm = _tool("npm", "install Node.js with npm")
            names = [f"{source.package}@{source.version}" for source in from_npm]
            # No scripts: a data package has no business running code here.
            _run([npm, "install", "--ignore-scripts", "--no-save", "--no-audit", "--no-fund", *names], work)
        for source in from_npm:
            data = json.loads((Path(work) / "node_modules" / source.package / "icons.json").read_text("utf-8"))
            for _, icon, path in _sprites(source, destination):
                _save(_rasterise(_icon_svg(data, icon)), path, source.glyph)
        skipped = 0
        for source in from_apt:
            try:
                folder = _unpack_debian(source, Path(work)) / str(source.folder)
            except EdgeLslaError as error:
                _log.warning("%s is left out: %s", source.name, error)
                skipped += len(_sprites(source, destination))
                continue
            for _, icon, path in _sprites(source, destination):
                _save(_open_stamp(folder / icon), path, source.glyph)
        if skipped:
            _log.warning("%d pictures of Debian packages left out", skipped)
    return load_artwork(destination)


def _sprites(source: Source, destination: Path) -> list[tuple[str, str, Path]]:
    result = []
    for label, icons in source.icons.items():
        for icon in icons.split():
            file = f"{source.name}__{icon.rsplit('/', 1)[-1]}.png"
            result.append((label, icon, destination / source.split / label.replace(" ", "_") / file))
    return result


def _tool(name: str, remedy: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise MissingComponentError("the demo artwork needs a tool", name, remedy)
    return path


def _unpack_debian(source: Source, work: Path) -> Path:
    unpacked = work / source.package
    if not unpacked.exists():
        apt, dpkg = (_tool(name, "use a Debian system") for name in ("apt-get", "dpkg"))
        _run([apt, "download", f"{source.package}={source.version}"], str(work))
        archive = next(work.glob(f"{source.package}_*.deb"))
        _run([dpkg, "-x", str(archive), str(unpacked)], str(work))
    return unpacked


def _run(command: list[str], folder: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise EdgeLslaError("download failed", f"{' '.join(command[:2])}: {reason}", "check the network and retry")


def _icon_svg(data: dict[str, Any], icon: str) -> bytes:
    entry = data["icons"][icon]
    left, top = entry.get("left", 0), entry.get("top", 0)
    width, height = (entry.get(side, data.get(side, 16)) for side in ("width", "height"))
    head = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    box = f'width="{width}" height="{height}" viewBox="{left} {top} {width} {height}"'
    return f"<svg {head} {box}>{entry['body']}</svg>".replace("currentColor", "#000").encode()


def _rasterise(svg: bytes) -> Image.Image:
    try:
        cairosvg = importlib.import_module("cairosvg")
    except (ImportError, OSError) as error:  # OSError: the binding without the cairo library
        raise MissingComponentError("the demo artwork needs cairosvg", error, "pip install cairosvg") from error
    return Image.open(io.BytesIO(cairosvg.svg2png(svg, output_width=2 * SPRITE_PIXELS))).convert("RGBA")


def _open_stamp(stem: Path) -> Image.Image:
    # Not with_suffix: some names have a dot of their own.
    picture = Path(f"{stem}.png")
    return Image.open(picture).convert("RGBA") if picture.exists() else _rasterise(Path(f"{stem}.svg").read_bytes())


def _save(image: Image.Image, path: Path, glyph: bool) -> None:
    if glyph:
        image = _fill_enclosed(image.getchannel("A"))
    image = image.crop(image.getchannel("A").point(lambda value: 255 if value > 8 else 0).getbbox())
    scale = SPRITE_PIXELS / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _fill_enclosed(ink: Image.Image) -> Image.Image:
    """Black ink on white: what the ink encloses becomes white, the outside stays transparent."""
    framed = Image.new("L", (ink.width + 2, ink.height + 2))  # a frame, so that the outside is one region
    framed.paste(ink.point(lambda value: 255 if value > 128 else 0), (1, 1))
    ImageDraw.floodfill(framed, (0, 0), 128)
    enclosed = framed.point(lambda value: 255 if value == 0 else 0).crop((1, 1, ink.width + 1, ink.height + 1))
    # The ink's inner rim is half transparent; three pixels more let the white reach below it.
    enclosed = enclosed.filter(ImageFilter.MaxFilter(7))
    grey = ImageChops.multiply(ImageChops.invert(ink), enclosed)
    return Image.merge("RGBA", (grey, grey, grey, ImageChops.lighter(ink, enclosed)))
