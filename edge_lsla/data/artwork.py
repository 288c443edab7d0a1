"""The artwork of the demo data set: an explicit table of sources, and the code that downloads and rasterises them."""

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

from edge_lsla.errors import EdgeLslaError, MissingComponentError

_log = logging.getLogger(__name__)

CLASSES = (
    "ant",
    "bee",
    "lady beetle",
    "beetle",
    "bug",
    "butterfly",
    "cricket",
    "cockroach",
    "spider",
    "mosquito",
    "fly",
    "worm",
    "scorpion",
    "snail",
)

SPRITE_PIXELS = 320  # longest side


@dataclass(frozen=True)
class Source:
    """One package of one artist; `icons` maps a label to icon names (npm) or paths below `folder` (apt)."""

    name: str
    package: str
    version: str
    artist: str
    licence: str  # SPDX
    split: str  # "train", "test" or "photos"
    icons: dict[str, str]  # names separated by spaces
    glyph: bool = False  # one colour; the data generator chooses it
    folder: str | None = None  # only of Debian packages


@dataclass(frozen=True)
class Artwork:
    """One rasterised insect: an RGBA PNG cropped to the insect."""

    path: Path
    label: str
    source: str
    split: str
    glyph: bool


def _iconify(name: str, version: str, artist: str, licence: str, split: str, icons: dict[str, str]) -> Source:
    return Source(name, f"@iconify-json/{name}", version, artist, licence, split, icons)


def _glyphs(name: str, version: str, artist: str, licence: str, icons: dict[str, str]) -> Source:
    return Source(name, f"@iconify-json/{name}", version, artist, licence, "train", icons, glyph=True)


# Unicode's names; every artist who drew the whole set drew these.
_UNICODE = {
    "ant": "ant",
    "bee": "honeybee",
    "lady beetle": "lady-beetle",
    "beetle": "beetle",
    "bug": "bug",
    "butterfly": "butterfly",
    "cricket": "cricket",
    "cockroach": "cockroach",
    "spider": "spider",
    "mosquito": "mosquito",
    "fly": "fly",
    "worm": "worm",
    "scorpion": "scorpion",
    "snail": "snail",
}
_MONARCH = {**_UNICODE, "butterfly": "butterfly monarch-butterfly"}
_EARLY = {label: name for label, name in _UNICODE.items() if label in {"ant", "bee", "lady beetle", "bug", "snail"}}
_SPIDER = {**_EARLY, "spider": "spider"}
_EIGHT = {**_SPIDER, "butterfly": "butterfly", "scorpion": "scorpion"}

# The artist of the test split is in no training row, nor is that artist's third set (fluent-emoji-high-contrast).
# Left out on sight: cricket-game and mdi:cricket (the sport), spider-man, bug-slash, mosquito-net, mdi:bee (a berry).
# A glyph named "bug" is drawn as a beetle in these sets, an emoji named "bug" as a caterpillar.
SOURCES = (
    _iconify("noto", "1.2.9", "Google", "Apache-2.0", "train", _MONARCH),
    _iconify("noto-v1", "1.2.5", "Google", "Apache-2.0", "train", _EIGHT),
    _iconify("twemoji", "1.2.5", "Twitter", "CC-BY-4.0", "train", _UNICODE),
    _iconify("openmoji", "1.2.29", "OpenMoji", "CC-BY-SA-4.0", "train", _MONARCH),
    _iconify("emojione", "1.2.3", "Emoji One", "CC-BY-4.0", "train", _EIGHT),
    _iconify("emojione-v1", "1.2.3", "Emoji One", "CC-BY-SA-4.0", "train", _SPIDER),
    _iconify("fxemoji", "1.2.2", "Mozilla", "Apache-2.0", "train", {**_SPIDER, "lady beetle": "ladybeetle"}),
    _iconify("streamline-emojis", "1.2.4", "Streamline", "CC-BY-4.0", "train", _EARLY),
    _glyphs(
        "game-icons",
        "1.2.4",
        "Lorc, Delapouite and contributors",
        "CC-BY-3.0",
        {
            "ant": "ant",
            "bee": "bee",
            "lady beetle": "ladybug spotted-bug",
            "beetle": "flying-beetle scarab-beetle",
            "bug": "caterpillar",
            "cricket": "cricket",
            "cockroach": "long-antennae-bug",
            "spider": "angular-spider hanging-spider masked-spider spider-alt",
            "fly": "fly",
            "worm": "earth-worm",
            "scorpion": "scorpion",
            "snail": "snail",
        },
    ),
    _glyphs(
        "fa6-solid",
        "1.2.4",
        "Fonticons",
        "CC-BY-4.0",
        {"beetle": "bug", "spider": "spider", "mosquito": "mosquito", "worm": "worm"},
    ),
    _glyphs("mdi", "1.2.3", "Pictogrammers", "Apache-2.0", {"spider": "spider", "snail": "snail"}),
    _glyphs(
        "ph",
        "1.2.2",
        "Phosphor Icons",
        "MIT",
        {"beetle": "bug-beetle-bold bug-beetle-fill", "butterfly": "butterfly-bold butterfly-fill"},
    ),
    _glyphs("icon-park", "1.2.4", "ByteDance", "Apache-2.0", {"bee": "bee", "butterfly": "butterfly"}),
    _glyphs(
        "healthicons",
        "1.2.13",
        "Resolve to Save Lives",
        "MIT",
        {"spider": "animal-spider", "mosquito": "mosquito mosquito-outline"},
    ),
    _glyphs("arcticons", "1.2.58", "Donnnno", "CC-BY-SA-4.0", {"bug": "emoji-bug", "cricket": "emoji-cricket"}),
    _glyphs("hugeicons", "1.2.35", "Hugeicons", "MIT", {"worm": "worm"}),
    _glyphs("lucide", "1.2.137", "Lucide Contributors", "ISC", {"worm": "worm", "snail": "snail"}),
    _glyphs(
        "lucide-lab",
        "1.2.3",
        "Lucide Contributors",
        "ISC",
        {"bee": "bee", "beetle": "beetle-scarab", "butterfly": "butterfly", "spider": "spider"},
    ),
    _glyphs("tabler", "1.2.41", "Paweł Kuna", "MIT", {"spider": "spider"}),
    _glyphs("material-symbols", "1.2.98", "Google", "Apache-2.0", {"snail": "snail"}),
    _glyphs("solar", "1.2.13", "480 Design", "CC-BY-4.0", {"beetle": "bug-bold"}),
    Source(
        "openclipart",
        "openclipart-svg",
        "1:0.18+dfsg-19",
        "Open Clip Art Library",
        "CC-PDDC",
        "train",
        {
            "ant": "ant formichina_architetto_fr_01 formicona_architetto_fra_01",
            "bee": "abeille_tanguy_jacq_01 bee bee1_mimooh_01 bee3_mimooh_01",
            "lady beetle": "bug_nicu_buculei_01 c_rollandin_francesco_ar_01 coccinella_architetto_fr_01 "
            "coccinelle_tanguy_jacq_01 coccinellona_architetto__01 ladybug_01 ladybug_02",
            "bug": "caterpillar_david_wislon_01",
            "butterfly": "butterfly_jonathan_dietr_01 butterfly_jonvdveen_01 farfalla_butterfly_fra1 "
            "farfalla_contorno_archit_01 farfalla_semplice_archit_01 farfalla_stilizzata_arch_01",
            "cricket": "cavalletta_architetto_fr_01 grass_hopper_02",
            "spider": "spider ragnetto_incazzato_archi_01",
            "mosquito": "moschito_stecchito_archi_01 zanzara_architetto_franc_01",
            "fly": "fly_01",
            "scorpion": "../scorpion-md-v0.1",
            "snail": "lumaca_architetto_france_01 lumaca_turbo_architetto__01",
        },
        folder="usr/share/openclipart/svg/animals/bugs",
    ),
    _iconify("fluent-emoji", "1.2.7", "Microsoft", "MIT", "test", _UNICODE),
    _iconify("fluent-emoji-flat", "1.2.6", "Microsoft", "MIT", "test", _UNICODE),
    # Photographs and drawings apart, so that an accuracy can be told for each. Left out: hornet, moth, slug, mantis
    # (none of the classes), and drawings that Open Clip Art also has.
    Source(
        "tuxpaint-photograph",
        "tuxpaint-stamps-default",
        "2022.06.04-1",
        "Tux Paint contributors",
        "GPL-2.0-only",
        "photos",
        {"cricket": "grasshopper", "fly": "fly hoverfly"},
        folder="usr/share/tuxpaint/stamps/animals/insects",
    ),
    Source(
        "tuxpaint-drawing",
        "tuxpaint-stamps-default",
        "2022.06.04-1",
        "Tux Paint contributors",
        "GPL-2.0-only",
        "photos",
        {"bee": "bee", "butterfly": "cartoon/monarchbutterfly", "lady beetle": "cartoon/ladybug-2"}
        | {"snail": "cartoon/snail cartoon/snail2"},
        folder="usr/share/tuxpaint/stamps/animals/insects",
    ),
)


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
