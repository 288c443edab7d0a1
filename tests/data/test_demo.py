"""The demo set is split by artist, covers every class and comes out the same for equal seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from edge_lsla.data import artwork as artwork_module
from edge_lsla.data.artwork import fetch_artwork, load_artwork
from edge_lsla.data.artwork_sources import CLASSES, SOURCES
from edge_lsla.data.demo import _PALETTES, DemoDataSettings, generate, main
from edge_lsla.errors import DatasetError, MissingComponentError, UsageError


@pytest.fixture
def sprites(tmp_path: Path) -> Path:
    folder = tmp_path / "sprites"
    for label in CLASSES:
        for split, source in (("train", "noto"), ("train", "game-icons"), ("test", "fluent-emoji")):
            image = Image.new("RGBA", (64, 48))
            ImageDraw.Draw(image).ellipse((4, 4, 60, 44), fill=(40, 40, 40, 255))
            path = folder / split / label.replace(" ", "_") / f"{source}__{label.replace(' ', '-')}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    return folder


def small(sprites: Path, seed: int = 0, workers: int = 1) -> DemoDataSettings:
    return DemoDataSettings(
        train_per_class=3, val_per_class=1, test_per_class=2, size=32, seed=seed, workers=workers, artwork=sprites
    )


def pictures(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.jpg"))}


def test_no_artist_is_in_training_and_elsewhere() -> None:
    artists = {split: {s.artist for s in SOURCES if s.split == split} for split in ("train", "test", "photos")}
    assert artists["test"] == {"Microsoft"}
    assert not artists["train"] & (artists["test"] | artists["photos"])
    assert not {s.package for s in SOURCES if s.split == "train" and "fluent" in s.package}


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_class_has_artwork(split: str) -> None:
    covered = {label for source in SOURCES if source.split == split for label, icons in source.icons.items() if icons}
    assert covered == set(CLASSES)


def test_each_training_class_has_several_artists() -> None:
    for label in CLASSES:
        artists = {source.artist for source in SOURCES if source.split == "train" and label in source.icons}
        assert len(artists) >= 3, label  # one or two would be learnt by heart


def test_table_has_only_known_labels_unique_names_and_pinned_versions() -> None:
    assert len({source.name for source in SOURCES}) == len(SOURCES)
    for source in SOURCES:
        assert set(source.icons) <= set(CLASSES), source.name
        assert source.version[0].isdigit(), source.name
        assert "__" not in source.name  # the separator of the cache's file names


def test_every_class_has_colours_for_its_glyphs() -> None:
    assert set(_PALETTES) == set(CLASSES)


def test_generate_writes_the_layout(sprites: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    counts = generate(tmp_path / "out", small(sprites), lambda done, total: calls.append((done, total)))
    assert counts == {"train": 42, "val": 14, "test": 28}
    assert (tmp_path / "out" / "classes.txt").read_text("utf-8").splitlines() == list(CLASSES)
    assert (tmp_path / "out" / "test" / "lady_beetle" / "fluent-emoji_lady_beetle_0001.jpg").exists()
    names = pictures(tmp_path / "out")
    assert all(("fluent" in name) == name.startswith("test") for name in names)
    assert calls[-1] == (84, 84)
    sources = (tmp_path / "out" / "SOURCES.md").read_text("utf-8")
    assert "| fluent-emoji | Microsoft |" in sources
    assert "twemoji" not in sources  # no sprite of it was there
    with Image.open(tmp_path / "out" / "train" / "ant" / sorted((tmp_path / "out/train/ant").iterdir())[0]) as image:
        assert image.size == (32, 32)


def test_equal_seeds_give_equal_files_whatever_the_workers(sprites: Path, tmp_path: Path) -> None:
    for name, seed, workers in (("a", 0, 1), ("b", 0, 2), ("c", 1, 1)):
        generate(tmp_path / name, small(sprites, seed, workers))
    assert pictures(tmp_path / "a") == pictures(tmp_path / "b")
    assert pictures(tmp_path / "a") != pictures(tmp_path / "c")


def test_generate_refuses_a_folder_in_use_and_missing_artwork(sprites: Path, tmp_path: Path) -> None:
    (tmp_path / "used" / "train").mkdir(parents=True)
    with pytest.raises(DatasetError, match="already"):
        generate(tmp_path / "used", small(sprites))
    for path in (sprites / "train" / "worm").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match="worm"):
        generate(tmp_path / "out", small(sprites))


@pytest.mark.parametrize(("field", "value"), [("train_per_class", -1), ("size", 8), ("glyph_share", 1.5)])
def test_settings_name_the_field_they_refuse(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=field):
        DemoDataSettings(**{field: value})  # type: ignore[arg-type]


def test_cache_tells_source_label_and_glyph(sprites: Path) -> None:
    items = {(item.source, item.label): item for item in load_artwork(sprites)}
    assert items["game-icons", "lady beetle"].glyph
    assert not items["noto", "lady beetle"].glyph
    assert items["fluent-emoji", "ant"].split == "test"


def test_fetching_without_npm_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artwork_module.shutil, "which", lambda name: None)
    with pytest.raises(MissingComponentError, match="npm"):
        fetch_artwork(tmp_path)


def test_command_line_ends_with_the_errors_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["-o", str(tmp_path), "--size", "8"])
    assert stop.value.code == 2
    assert "DemoDataSettings.size" in capsys.readouterr().err
