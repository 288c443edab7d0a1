"""The artwork of the demo data set as an explicit table: artist, package, pinned version, licence, split, pictures."""

from __future__ import annotations

from dataclasses import dataclass

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
