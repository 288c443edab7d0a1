"""Drawing predictions on pictures, and many pictures on one sheet."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edge_lsla.events import Box as Region
from edge_lsla.predictions import Prediction
from edge_lsla.sinks.observed import Observed, marks, status

LEAST_WIDTH = 480  # a smaller picture is scaled up to it, so that text fits
LARGEST_HEIGHT = 4096  # to which a narrow picture is scaled up
SHOWN = 3  # classes
Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]

PANEL: Colour = (15, 18, 24)
PANEL_OPACITY = 0.74
WHITE: Colour = (255, 255, 255)
SOFT: Colour = (196, 202, 212)
TRACK: Colour = (74, 80, 92)
SURE: Colour = (88, 214, 141)
DOUBTFUL: Colour = (245, 190, 80)
UNSURE: Colour = (150, 158, 172)

SHEET: Colour = (247, 246, 243)
INK: Colour = (32, 34, 40)
FADED: Colour = (112, 116, 126)
RIGHT: Colour = (38, 160, 92)
WRONG: Colour = (214, 62, 62)
NEUTRAL: Colour = (206, 206, 202)


def annotate(
    pixels: NDArray[np.uint8],
    predictions: Sequence[Prediction],
    *,
    note: str | None = None,
    label: str | None = None,
    regions: Sequence[tuple[Region, str, float]] = (),
) -> NDArray[np.uint8]:
    """Draw the likeliest classes on a picture.

    Args:
        pixels: uint8 [H, W, 3], RGB order; not changed. Below 480 pixels of width it is scaled up.
        predictions: likeliest first; the first three are shown.
        note: a small line below, such as the frame rate.
        label: the large line, where it is not the likeliest class ("unknown").
        regions: boxes in the picture's pixels, each with a label and a confidence; drawn with their labels.

    Returns:
        uint8 [H', W', 3], RGB order.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels))
    width, left = image.width, 0
    if image.width < LEAST_WIDTH:
        scale = max(1.0, min(LEAST_WIDTH / image.width, LARGEST_HEIGHT / image.height))
        scaled = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(scaled, Image.Resampling.BICUBIC)
        if image.width < LEAST_WIDTH:  # a very tall strip: room for the panel beside it rather than a huge picture
            canvas = Image.new("RGB", (LEAST_WIDTH, image.height))
            left = (LEAST_WIDTH - image.width) // 2
            canvas.paste(image, (left, 0))
            image = canvas
    scale = (image.width - 2 * left) / width
    for box, name, share in regions:
        x, y, right, bottom = (edge * scale for edge in box.to_list())
        _region(image, (left + x, y, left + right, bottom), name, share)
    if predictions or note or label:
        _panel(image, list(predictions[:SHOWN]), note, label)
    return np.array(image)


class _Latest:
    """The last drawn observation: a window and a video file show the same picture, drawn once."""

    observation: Observed | None = None
    pixels: NDArray[np.uint8] | None = None


def annotated(observation: Observed) -> NDArray[np.uint8]:
    """Draw an observation on its frame, uint8 [H', W', 3]; callers share the array and must not write to it."""
    if _Latest.pixels is None or _Latest.observation is not observation:
        pixels, note = observation.frame.pixels, status(observation)
        if observation.detections or observation.tracks:
            _Latest.pixels = annotate(pixels, (), note=note, regions=marks(observation))
        else:
            _Latest.pixels = annotate(pixels, observation.predictions, note=note, label=observation.label)
        _Latest.observation = observation
    return _Latest.pixels


def contact_sheet(
    pictures: Sequence[tuple[NDArray[np.uint8], str, bool | None]], columns: int = 4, side: int = 220
) -> NDArray[np.uint8]:
    """Lay pictures out in a grid, each in a green (correct), red (wrong) or grey frame.

    Args:
        pictures: each uint8 [H, W, 3], RGB order; its caption, whose second line is set smaller; and whether it was
            recognised correctly, None where that is not known.
        columns: pictures in a row.
        side: of a square cell, pixels.

    Returns:
        uint8 [H, W, 3], RGB order.
    """
    columns = max(1, min(columns, len(pictures) or 1))
    rows = max(1, math.ceil(len(pictures) / columns))
    two_lines = any("\n" in caption for _, caption, _ in pictures)
    gap, large, small = round(side * 0.11), round(side * 0.085), round(side * 0.07)
    text = round(large * 1.75) + (round(small * 1.4) if two_lines else 0)
    sheet = Image.new("RGB", (columns * (side + gap) + gap, rows * (side + text + gap) + gap), SHEET)
    for number, (pixels, caption, correct) in enumerate(pictures):
        x = gap + number % columns * (side + gap)
        y = gap + number // columns * (side + text + gap)
        colour = NEUTRAL if correct is None else RIGHT if correct else WRONG
        _cell(sheet, (x, y), side, pixels, colour)
        if correct is not None:
            _badge(sheet, (x + side - side // 7 - side // 24, y + side // 24), side // 7, correct)
        pen = ImageDraw.Draw(sheet)
        first, _, second = _words(caption).partition("\n")
        pen.text((x + 2, y + side + large * 0.35), _fit(first, large, side - 4), INK, _font(large))
        if second:
            at = (x + 2, y + side + large * 0.35 + large * 1.3)
            pen.text(at, _fit(second, small, side - 4), FADED, _font(small))
    return np.array(sheet)


def _region(image: Image.Image, box: Box, label: str, share: float) -> None:
    """Draw a box, and its label above it, or inside it at the picture's upper edge."""
    left, top, right, bottom = box
    unit = max(1.0, min(image.width / 480, image.height / 270)) ** 0.75
    thick, size, colour = max(1, round(2 * unit)), 12.5 * unit, _confidence(share)
    pen = ImageDraw.Draw(image)
    pen.rectangle([left, top, right - 1, bottom - 1], outline=colour, width=thick)
    text = f"{_words(label)} {_percent(share)}"
    wide, high = _width(text, size) + 6 * unit, size * 1.4
    left = min(max(0.0, left), max(0.0, image.width - wide))
    top = top - high if top >= high else top
    _fill(image, (left, top, left + wide, top + high), 0, PANEL, PANEL_OPACITY)
    pen.text((left + 3 * unit, top + high * 0.76), text, colour, _font(size), anchor="ls")


def _panel(image: Image.Image, predictions: list[Prediction], note: str | None, label: str | None) -> None:
    # Less than in proportion, so that the panel leaves a large picture to its subject.
    unit = max(1.0, min(image.width / 480, image.height / 270)) ** 0.75
    if image.height < 240:  # a wide strip: as large as it can be and no larger
        unit = image.height / 240
    margin, pad = 14 * unit, 14 * unit
    large, medium, small = 25 * unit, 14.5 * unit, 12.5 * unit
    title = label if label is not None else predictions[0].label if predictions else None
    others = predictions[1:]
    if title is not None and predictions and title != predictions[0].label:
        others = predictions  # "unknown" above; all candidates in the small rows
    height = 2 * pad
    if title is not None:
        height += large * 1.0 + 9 * unit + 6 * unit
    height += len(others) * medium * 1.55 + (3 * unit if others else 0)
    height += small * 1.3 + (4 * unit if title is not None else -small * 0.3) if note else 0
    width = min(image.width - 2 * margin, 330 * unit if title is not None else _width(note or "", small) + 2 * pad)
    left, top = margin, image.height - margin - height
    box = (left, top, left + width, top + height)
    _fill(image, box, 12 * unit, PANEL, PANEL_OPACITY)
    pen = ImageDraw.Draw(image)
    x0, x1, y = left + pad, left + width - pad, top + pad
    if title is not None:
        known = others is not predictions and bool(predictions)
        share = predictions[0].probability if known else 0.0
        colour = _confidence(share)
        percent = _percent(share) if known else ""
        room = x1 - x0 - (_width(percent, large) + 10 * unit if percent else 0)
        base = y + large * 0.82
        pen.text((x0, base), _fit(_words(title), large, room), WHITE if known else SOFT, _font(large), anchor="ls")
        if percent:
            pen.text((x1, base), percent, colour, _font(large), anchor="rs")
        y += large + 9 * unit
        _bar(image, (x0, y, x1, y + 6 * unit), share, colour)
        y += 6 * unit + (3 * unit if others else 0)
    column = (x1 - x0) * 0.46
    number = _width("100 %", medium)
    for prediction in others:
        y += medium * 1.55
        base = y - medium * 0.22
        pen.text(
            (x0, base), _fit(_words(prediction.label), medium, column - 8 * unit), SOFT, _font(medium), anchor="ls"
        )
        pen.text((x1, base), _percent(prediction.probability), SOFT, _font(medium), anchor="rs")
        middle = base - medium * 0.34
        bar = (x0 + column, middle - 2 * unit, x1 - number - 10 * unit, middle + 2 * unit)
        _bar(image, bar, prediction.probability, UNSURE)
    if note:
        base = top + height - pad + small * 0.1
        pen.text((x0, base), _fit(note, small, x1 - x0), SOFT, _font(small), anchor="ls")


def _bar(image: Image.Image, box: Box, share: float, colour: Colour) -> None:
    left, top, right, bottom = box
    radius = (bottom - top) / 2
    _fill(image, box, radius, TRACK)
    length = (right - left) * min(1.0, max(0.0, share))
    if length >= 1:
        _fill(image, (left, top, left + max(length, bottom - top), bottom), radius, colour)


def _cell(sheet: Image.Image, at: tuple[int, int], side: int, pixels: NDArray[np.uint8], colour: Colour) -> None:
    x, y = at
    edge, radius = max(3, side // 48), side // 18
    _fill(sheet, (x, y, x + side, y + side), radius, colour)
    inner = side - 2 * edge
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    short = min(picture.width, picture.height)
    left, top = (picture.width - short) / 2, (picture.height - short) / 2
    filter_ = Image.Resampling.BICUBIC if short < inner else Image.Resampling.LANCZOS
    square = picture.resize((inner, inner), filter_, box=(left, top, left + short, top + short))
    sheet.paste(square, (x + edge, y + edge), _rounded(inner, inner, max(1, radius - edge)))


def _badge(sheet: Image.Image, at: tuple[int, int], side: int, correct: bool) -> None:
    """Draw a tick or a cross on a disc, for those to whom red and green look alike."""
    big = Image.new("RGB", (side * 4, side * 4), RIGHT if correct else WRONG)
    pen = ImageDraw.Draw(big)
    s, wide = side * 4, max(1, side * 4 // 9)
    if correct:
        pen.line([(s * 0.27, s * 0.52), (s * 0.44, s * 0.69), (s * 0.74, s * 0.33)], WHITE, wide, joint="curve")
    else:
        pen.line([(s * 0.31, s * 0.31), (s * 0.69, s * 0.69)], WHITE, wide)
        pen.line([(s * 0.69, s * 0.31), (s * 0.31, s * 0.69)], WHITE, wide)
    sheet.paste(big.resize((side, side), Image.Resampling.LANCZOS), at, _rounded(side, side, side // 2))


def _fill(image: Image.Image, box: Box, radius: float, colour: Colour, opacity: float = 1.0) -> None:
    left, top, right, bottom = (round(edge) for edge in box)
    width, height = max(1, right - left), max(1, bottom - top)
    mask = _rounded(width, height, max(0, round(radius)), opacity)
    image.paste(colour, (left, top, left + width, top + height), mask)


@functools.lru_cache(maxsize=128)
def _rounded(width: int, height: int, radius: int, opacity: float = 1.0) -> Image.Image:
    """Return a mask of a rectangle with smooth round corners."""
    mask = Image.new("L", (width, height), 255)
    radius = min(radius, width // 2, height // 2)
    if radius:
        disc = Image.new("L", (8 * radius, 8 * radius), 0)
        ImageDraw.Draw(disc).ellipse([0, 0, 8 * radius - 1, 8 * radius - 1], 255)
        disc = disc.resize((2 * radius, 2 * radius), Image.Resampling.BOX)
        for right in (False, True):
            for low in (False, True):
                part = disc.crop((radius * right, radius * low, radius * (1 + right), radius * (1 + low)))
                mask.paste(part, ((width - radius) * right, (height - radius) * low))
    return mask if opacity == 1 else mask.point(lambda value: value * opacity)


@functools.lru_cache(maxsize=64)
def _font_of(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return _font_of(max(6, round(size)))


def _width(text: str, size: float) -> float:
    return float(_font(size).getlength(text))


@functools.lru_cache(maxsize=512)
def _fit(text: str, size: float, room: float) -> str:
    """Shorten a text to the room there is, with an ellipsis."""
    if _width(text, size) <= room:
        return text
    while text and _width(text + "…", size) > room:
        text = text[:-1]
    return text.rstrip() + "…"


def _words(label: str) -> str:
    return label.replace("_", " ")


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _confidence(share: float) -> Colour:
    return SURE if share >= 0.7 else DOUBTFUL if share >= 0.4 else UNSURE
