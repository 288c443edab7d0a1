"""Composition is repeatable, keeps the insect visible and refuses bad settings."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from edge_lsla.data.backgrounds import BACKGROUND_KINDS, background
from edge_lsla.data.compose import NATURAL, CompositionSettings, compose, tint_glyph
from edge_lsla.errors import UsageError

MAGENTA = (230, 20, 220)  # a colour no background has


def sprite(colour: tuple[int, int, int] = MAGENTA) -> Image.Image:
    image = Image.new("RGBA", (160, 120))
    ImageDraw.Draw(image).ellipse((5, 5, 154, 114), fill=(*colour, 255))
    return image


def share_of_magenta(picture: Image.Image) -> float:
    red, green, blue = (np.asarray(picture, np.int32)[..., channel] for channel in range(3))
    return float(((red - green > 60) & (blue - green > 60)).mean())


def test_equal_seeds_give_equal_pictures_and_others_differ() -> None:
    first, again, other = (compose(sprite(), np.random.default_rng(s), 64, CompositionSettings()) for s in (3, 3, 4))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize("size", [32, 96, 112])
def test_picture_has_the_size_asked_for(size: int) -> None:
    picture = compose(sprite(), np.random.default_rng(0), size, CompositionSettings())
    assert (picture.mode, picture.size) == ("RGB", (size, size))


@pytest.mark.parametrize("kind", BACKGROUND_KINDS)
def test_insect_covers_the_share_it_was_given(kind: str) -> None:
    settings = CompositionSettings(**{**vars(NATURAL), "background": kind, "min_extent": 0.7, "max_extent": 0.7})
    shares = [share_of_magenta(compose(sprite(), np.random.default_rng(s), 96, settings)) for s in range(8)]
    # An ellipse 0.7 wide and 0.5 high has an area of 0.27; aspect and blur change it by a few percent.
    assert all(0.2 < share < 0.34 for share in shares), shares


@pytest.mark.parametrize("kind", BACKGROUND_KINDS)
def test_no_background_has_the_insects_colour(kind: str) -> None:
    ground = np.clip(background(kind, np.random.default_rng(0), 96), 0, 255).astype(np.uint8)
    assert share_of_magenta(Image.fromarray(ground)) < 0.01  # else the test above could not fail


@pytest.mark.parametrize("seed", range(12))
def test_insect_of_the_backgrounds_colour_still_stands_out(seed: int) -> None:
    settings = CompositionSettings(
        **{**vars(NATURAL), "background": "leaf", "min_extent": 0.6, "max_extent": 0.6, "tilt": 0.0, "degrade": 0.0}
    )
    ground = background("leaf", np.random.default_rng(seed), 96)
    leaf_green = tuple(int(value) for value in ground.mean((0, 1)))
    green = sprite((leaf_green[0], leaf_green[1], leaf_green[2]))
    picture = np.asarray(compose(green, np.random.default_rng(seed), 96, settings), np.float32)
    insect = (np.abs(picture - np.array(leaf_green)) <= 3).all(axis=2)
    difference = np.abs(picture[insect].mean(0) - picture[~insect].mean(0)).max()
    assert insect.mean() > 0.1
    assert difference > 15  # of 255; an eye still finds it


def test_style_changes_the_insect_and_natural_pictures_keep_its_colour() -> None:
    def insect_colours(settings: CompositionSettings) -> list[float]:
        pictures = (compose(sprite(), np.random.default_rng(s), 64, settings) for s in range(20))
        return [share_of_magenta(picture) for picture in pictures]

    assert min(insect_colours(NATURAL)) > 0.1
    assert min(insect_colours(CompositionSettings(strong_colour_share=1.0))) < 0.1


def test_glyph_takes_ink_and_fill() -> None:
    glyph = Image.new("RGBA", (3, 1))
    glyph.putpixel((0, 0), (0, 0, 0, 255))
    glyph.putpixel((1, 0), (255, 255, 255, 255))
    filled = tint_glyph(glyph, (10, 20, 30), (200, 100, 50))
    assert [filled.getpixel((x, 0)) for x in range(2)] == [(10, 20, 30, 255), (200, 100, 50, 255)]
    hollow = tint_glyph(glyph, (10, 20, 30), None)
    assert [np.asarray(hollow)[0, x, 3] for x in range(3)] == [255, 0, 0]


@pytest.mark.parametrize(
    ("field", "value"), [("min_extent", 0.0), ("tilt", 200.0), ("style", -0.1), ("background", "sea"), ("warp", 1.0)]
)
def test_settings_name_the_field_they_refuse(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=field):
        CompositionSettings(**{field: value})  # type: ignore[arg-type]


def test_compose_refuses_a_sprite_without_alpha_and_a_tiny_picture() -> None:
    with pytest.raises(UsageError, match="RGBA"):
        compose(sprite().convert("RGB"), np.random.default_rng(0), 64, NATURAL)
    with pytest.raises(UsageError, match="size"):
        compose(sprite(), np.random.default_rng(0), 8, NATURAL)
