"""Composition of one insect sprite onto a generated trap, leaf or soil background, with numpy and Pillow alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from edge_lsla.data.backgrounds import BACKGROUND_KINDS, Pixels, background, smooth_noise
from edge_lsla.errors import UsageError

# Nodes of the warp grid along a side: cells of about 16 px keep the bilinear pieces invisible.
_GRID = 7
# Below this mean difference (of 255) the insect is lost, and the label with it.
_LEAST_CONTRAST = 38.0
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], np.float32)
_FROM_YIQ = np.linalg.inv(_TO_YIQ).astype(np.float32)


@dataclass(frozen=True)
class CompositionSettings:
    """How hard the composition varies placement, style and light; shares are probabilities in 0 to 1.

    Raises:
        UsageError: a field is outside its range.
    """

    min_extent: float = 0.5  # insect's longest side, as a share of the picture's side
    max_extent: float = 0.95
    tilt: float = 35.0  # degrees either way
    any_angle_share: float = 0.25  # turned by any angle instead
    warp: float = 0.045  # smooth displacement, as a share of the insect's side
    skew: float = 0.12  # shear, aspect and perspective
    style: float = 1.0  # scales the probability of every style change; 0 keeps the artwork's own colours
    strong_colour_share: float = 0.2
    occlusion_share: float = 0.12
    degrade: float = 1.0  # scales blur, noise and light changes of the finished picture
    background: str | None = None  # None: any kind

    def __post_init__(self) -> None:
        limits = {
            "min_extent": (0.1, 1.0),
            "max_extent": (0.1, 1.0),
            "tilt": (0.0, 180.0),
            "any_angle_share": (0.0, 1.0),
            "warp": (0.0, 0.2),
            "skew": (0.0, 0.5),
            "style": (0.0, 1.0),
            "strong_colour_share": (0.0, 1.0),
            "occlusion_share": (0.0, 1.0),
            "degrade": (0.0, 2.0),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise UsageError("value out of range", f"CompositionSettings.{name}", f"use {low} to {high}")
        if self.min_extent > self.max_extent:
            raise UsageError("range is empty", "CompositionSettings.min_extent", "use at most max_extent")
        if self.background not in (None, *BACKGROUND_KINDS):
            raise UsageError(
                "unknown kind", "CompositionSettings.background", f"use one of {', '.join(BACKGROUND_KINDS)}"
            )


# A test picture shows the artwork as its artist drew it.
NATURAL = CompositionSettings(
    min_extent=0.55,
    max_extent=0.9,
    tilt=20.0,
    any_angle_share=0.0,
    warp=0.0,
    skew=0.03,
    style=0.0,
    strong_colour_share=0.0,
    occlusion_share=0.0,
    degrade=0.5,
)


def tint_glyph(sprite: Image.Image, ink: tuple[int, int, int], fill: tuple[int, int, int] | None) -> Image.Image:
    """Colours a glyph whose black is ink and whose white is what the ink encloses.

    Args:
        sprite: RGBA, grey; white inside, black ink, transparent outside.
        ink: red, green, blue in 0 to 255.
        fill: the same for the enclosed part; None leaves it transparent.
    """
    array = np.asarray(sprite, np.float32)
    enclosed = array[..., :1] / 255
    inner = np.asarray(fill if fill is not None else ink, np.float32)
    colour = np.asarray(ink, np.float32) * (1 - enclosed) + inner * enclosed
    alpha = array[..., 3:] if fill is not None else array[..., 3:] * (1 - enclosed)
    return Image.fromarray(np.concatenate([colour, alpha], axis=2).astype(np.uint8), "RGBA")


def compose(sprite: Image.Image, rng: np.random.Generator, size: int, settings: CompositionSettings) -> Image.Image:
    """Places one insect on a background.

    Args:
        sprite: RGBA, cropped to the insect.
        rng: the only source of chance, so that equal generators give equal pictures.
        size: side of the picture in pixels.
        settings: strength of every variation.

    Returns:
        RGB picture of size by size pixels.

    Raises:
        UsageError: `size` is below 16 or the sprite is not RGBA.
    """
    if size < 16:
        raise UsageError("picture too small", "size", "use at least 16 pixels")
    if sprite.mode != "RGBA":
        raise UsageError(f"sprite is {sprite.mode}", "sprite", "convert it to RGBA")
    kind = settings.background or BACKGROUND_KINDS[int(rng.integers(len(BACKGROUND_KINDS)))]
    canvas = background(kind, rng, size)
    extent = float(rng.uniform(settings.min_extent, settings.max_extent)) * size
    insect = _shrink(sprite, extent)
    if settings.style > 0:
        insect = restyle(insect, rng, settings)
    placed = np.asarray(_place(insect, rng, size, extent, settings), np.float32)
    alpha = np.asarray(placed[..., 3:] / 255, np.float32)
    canvas = _stand_out(canvas, placed[..., :3], alpha)
    canvas *= 1 - _shadow(placed[..., 3], rng, size)
    canvas = np.asarray(canvas * (1 - alpha) + placed[..., :3] * alpha, np.float32)
    if rng.random() < settings.occlusion_share:
        canvas = _occlude(canvas, rng, size)
    return _photograph(canvas, rng, size, settings.degrade)


def restyle(sprite: Image.Image, rng: np.random.Generator, settings: CompositionSettings) -> Image.Image:
    """Redraws a sprite in a random manner (outline, flatness, shading, gloss, colour), so that no artist's shows.

    Args:
        sprite: RGBA.
        rng: the only source of chance.
        settings: `style` and `strong_colour_share` count.

    Returns:
        RGBA of the same size.
    """

    def chance(share: float) -> bool:
        return bool(rng.random() < share * settings.style)

    alpha_image = sprite.getchannel("A")
    rgb_image = sprite.convert("RGB")
    if chance(0.15):  # thin dark lines vanish into their bright neighbours
        rgb_image = rgb_image.filter(ImageFilter.MaxFilter(3))
    elif chance(0.1):
        rgb_image = rgb_image.filter(ImageFilter.MedianFilter(3))
    rgb = np.array(rgb_image, np.float32)
    alpha = np.asarray(alpha_image, np.float32)[..., None] / 255
    if chance(0.15):
        step = 255 / int(rng.integers(3, 7))
        rgb = np.round(rgb / step).astype(np.float32) * np.float32(step)
    if chance(0.12):  # flat colour: everything drawn towards the insect's mean
        mean = (rgb * alpha).sum((0, 1)) / max(float(alpha.sum()), 1.0)
        rgb += (mean - rgb) * np.float32(rng.uniform(0.15, 0.5))
    rgb = _recolour(rgb, rng, settings)
    if chance(0.35):
        rgb *= _gradient(rng, rgb.shape[0], rgb.shape[1], 0.35)
    if chance(0.3):  # rounded: the rim is darker or lighter than the middle
        radius = 0.02 + 0.06 * float(rng.random())
        depth = alpha_image.filter(ImageFilter.GaussianBlur(radius * max(sprite.size)))
        rim = 1 - np.asarray(depth, np.float32)[..., None] / 255
        rgb *= 1 + rim * np.float32(rng.uniform(-0.75, 0.45))
    if chance(0.25):
        rgb += (255 - rgb) * _gloss(rng, rgb.shape[0], rgb.shape[1])
    out = Image.fromarray(
        np.concatenate([np.clip(rgb, 0, 255), alpha * 255], axis=2).astype(np.uint8),
        "RGBA",
    )
    if chance(0.3):
        out = _outline(out, rng)
    return out.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.9)))) if chance(0.2) else out


def _recolour(rgb: Pixels, rng: np.random.Generator, settings: CompositionSettings) -> Pixels:
    strong = rng.random() < settings.strong_colour_share
    angle = np.float32(rng.normal(0, 0.6 if strong else 0.14))
    saturation = np.float32(rng.uniform(0.45, 1.6) if strong else rng.uniform(0.8, 1.25))
    if rng.random() < 0.08 * settings.style:
        saturation = np.float32(rng.uniform(0.0, 0.3))
    turn = np.array(
        [
            [1, 0, 0],
            [0, saturation * np.cos(angle), -saturation * np.sin(angle)],
            [0, saturation * np.sin(angle), saturation * np.cos(angle)],
        ],
        np.float32,
    )
    rgb = rgb @ (_FROM_YIQ @ turn @ _TO_YIQ).T
    contrast = np.float32(rng.uniform(0.8, 1.2))
    rgb = (rgb - 128) * contrast + 128 + np.float32(rng.normal(0, 14))
    if rng.random() < 0.3 * settings.style:  # artists differ most in what they draw black with
        luma = np.clip(rgb @ _LUMA, 0, 255)[..., None]
        grey = np.clip(1 - np.abs(rgb - luma).max(axis=2, keepdims=True) / 60, 0, 1)
        dark = np.clip(1 - luma / 140, 0, 1)
        tint = rng.uniform(-25, 95, 3).astype(np.float32)
        rgb = rgb + tint * grey * dark * np.float32(rng.uniform(0.4, 1.0))
    return np.clip(rgb, 0, 255).astype(np.float32)


def _shrink(sprite: Image.Image, extent: float) -> Image.Image:
    # Half as large again as it will be seen: style strokes stay in proportion and the placement does not alias.
    scale = 1.4 * extent / max(sprite.size)
    width, height = (max(8, round(side * scale)) for side in sprite.size)
    small = sprite.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    framed = Image.new("RGBA", (width + 8, height + 8))  # room for an outline, and a soft edge when turned
    framed.paste(small, (4, 4))
    return framed


def _gradient(rng: np.random.Generator, height: int, width: int, strength: float) -> Pixels:
    angle = rng.uniform(0, 2 * np.pi)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    slope = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    return np.asarray(1 + slope * np.float32(rng.uniform(0.3, 1) * strength), np.float32)[..., None]


def _gloss(rng: np.random.Generator, height: int, width: int) -> Pixels:
    centre_x, centre_y = rng.uniform(0.25, 0.75), rng.uniform(0.2, 0.6)
    spread_x, spread_y = rng.uniform(0.05, 0.22), rng.uniform(0.04, 0.15)
    y = ((np.linspace(0, 1, height, dtype=np.float32) - centre_y) / spread_y)[:, None]
    x = ((np.linspace(0, 1, width, dtype=np.float32) - centre_x) / spread_x)[None, :]
    return np.asarray(np.exp(-(x * x + y * y)) * rng.uniform(0.2, 0.65), np.float32)[..., None]


def _outline(sprite: Image.Image, rng: np.random.Generator) -> Image.Image:
    grown = sprite.getchannel("A").filter(ImageFilter.MaxFilter(3 if rng.random() < 0.6 else 5))
    shade = int(rng.integers(0, 60)) if rng.random() < 0.75 else int(rng.integers(200, 256))
    under = Image.new("RGBA", sprite.size, (shade, shade, min(255, shade + int(rng.integers(0, 30))), 0))
    under.putalpha(grown)
    return Image.alpha_composite(under, sprite)


def _place(
    sprite: Image.Image, rng: np.random.Generator, size: int, extent: float, settings: CompositionSettings
) -> Image.Image:
    """Turns, shears, bends and moves the sprite in one resampling; the result is RGBA of size by size pixels."""
    angle = rng.uniform(-180, 180) if rng.random() < settings.any_angle_share else rng.uniform(-1, 1) * settings.tilt
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    width, height = sprite.size[0] - 8, sprite.size[1] - 8
    scale = max(width, height) / extent  # source pixels in one picture pixel
    reach = np.array([abs(cos) * width + abs(sin) * height, abs(sin) * width + abs(cos) * height]) / scale
    shrink = max(1.0, float(reach.max()) / (0.97 * size))  # a turned insect still fits
    slack = np.maximum((size - reach / shrink) / 2, 0)
    centre = size / 2 + rng.uniform(-1, 1, 2) * slack
    flip = -1.0 if rng.random() < 0.5 else 1.0
    aspect, shear = 1 + settings.skew * rng.uniform(-1, 1), settings.skew * rng.uniform(-1, 1)
    inverse = np.array([[flip * cos, flip * sin], [-sin, cos]]) * scale * shrink
    inverse = np.array([[aspect, shear], [0, 1 / aspect]]) @ inverse
    nodes = np.round(np.linspace(0, size, _GRID + 1))
    grid = np.stack(np.meshgrid(nodes, nodes), axis=-1)  # [rows, columns, (x, y)]
    offset = grid - centre
    tilt_x, tilt_y = rng.uniform(-1, 1, 2) * settings.skew / size
    depth = 1 + offset[..., :1] * tilt_x + offset[..., 1:] * tilt_y
    source = (offset / depth) @ inverse.T + np.array(sprite.size) / 2
    if settings.warp > 0:
        waves = rng.uniform(0, 2 * np.pi, 4)
        rates = rng.uniform(2.5, 6.5, 4) / (extent * scale)
        bend = settings.warp * extent * scale * rng.uniform(0, 1)
        x, y = source[..., 0].copy(), source[..., 1].copy()
        source[..., 0] += bend * (np.sin(rates[0] * y + waves[0]) + 0.5 * np.sin(rates[1] * x + waves[1]))
        source[..., 1] += bend * (np.sin(rates[2] * x + waves[2]) + 0.5 * np.sin(rates[3] * y + waves[3]))
    mesh = []
    for row in range(_GRID):
        for column in range(_GRID):
            box = (int(nodes[column]), int(nodes[row]), int(nodes[column + 1]), int(nodes[row + 1]))
            corners = [source[row, column], source[row + 1, column], source[row + 1, column + 1]]
            corners.append(source[row, column + 1])
            mesh.append((box, tuple(float(value) for corner in corners for value in corner)))
    return sprite.transform((size, size), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _stand_out(canvas: Pixels, insect: Pixels, alpha: Pixels) -> Pixels:
    """Lightens or darkens a background that the insect would vanish into."""
    area = max(float(alpha.sum()), 1.0)
    insect_colour, ground = (insect * alpha).sum((0, 1)) / area, (canvas * alpha).sum((0, 1)) / area
    lacking = _LEAST_CONTRAST - float(np.linalg.norm(insect_colour - ground)) / np.sqrt(3)
    if lacking <= 0:
        return canvas
    light = float(insect_colour @ _LUMA)
    up = float(ground @ _LUMA) > light if 60 < light < 190 else light <= 60
    goal = ground @ _LUMA + (lacking if up else -lacking) * 1.3
    return np.asarray(canvas * np.float32(max(goal, 5.0) / max(float(ground @ _LUMA), 20.0)), np.float32)


def _shadow(alpha: Pixels, rng: np.random.Generator, size: int) -> Pixels:
    strength = rng.uniform(0.0, 0.5)
    shift = np.round(rng.uniform(-0.04, 0.04, 2) * size).astype(int)
    mask = Image.fromarray(np.roll(alpha, tuple(shift), (0, 1)).astype(np.uint8), "L")
    mask = mask.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.01, 0.04)) * size))
    return np.asarray(np.asarray(mask, np.float32)[..., None] * np.float32(strength / 255), np.float32)


def _occlude(canvas: Pixels, rng: np.random.Generator, size: int) -> Pixels:
    other = background("leaf", rng, size)
    angle, limit = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 0.75)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    distance = np.float32(np.cos(angle)) * axis[None, :] + np.float32(np.sin(angle)) * axis[:, None]
    edge = distance + smooth_noise(rng, size, 4) * np.float32(0.15) - np.float32(limit)
    mask = np.clip(edge * (size / 4), 0, 1)[..., None]
    return np.asarray(canvas * (1 - mask) + other * mask, np.float32)


def _photograph(canvas: Pixels, rng: np.random.Generator, size: int, degrade: float) -> Image.Image:
    gain = 1 + degrade * rng.uniform(-0.2, 0.2)
    cast = 1 + degrade * rng.normal(0, 0.03, 3)
    canvas = (canvas - 128) * np.float32(1 + degrade * rng.uniform(-0.2, 0.15)) + 128
    canvas = canvas * (gain * cast).astype(np.float32)
    if rng.random() < 0.3:
        canvas = canvas * _gradient(rng, size, size, 0.25 * degrade)
    sigma = degrade * rng.exponential(4.0)
    canvas = canvas + rng.standard_normal(canvas.shape, np.float32) * np.float32(min(sigma, 14.0))
    picture = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8), "RGB")
    if rng.random() < 0.35 * degrade:
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.9))))
    return picture
