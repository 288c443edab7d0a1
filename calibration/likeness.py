"""Whether pictures to calibrate on are fit for it: enough, different from each other, and like those that will come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.duplicates import difference_hash

# What each picture is described by, and in which words a warning says that it is larger or smaller.
DESCRIPTORS = {
    "brightness": ("brighter", "darker"),
    "contrast": ("richer in contrast", "poorer in contrast"),
    "saturation": ("more colourful", "less colourful"),
    "warmth": ("redder", "bluer"),
    "sharpness": ("sharper", "more blurred"),
}

# Standard deviation of the grey levels 0..255. The least of 24,000 demo pictures has 7, halved in brightness 3.6.
BLANK_CONTRAST = 2.0
# With 32 pictures of the demo data the worst of the five statistics below is 0.20 in the median of draws from one
# source, with 16 it is 0.30 and no longer tells a darker camera from chance.
FEW = 32
# Median of the bits of 64 in which two pictures' hashes differ: 31 or 32 for pictures of the demo data, for its
# photographs and over the whole demo video; 5 to 14 for the frames of one scene of it, though all of them move.
ALIKE = 16
# Kolmogorov-Smirnov statistic. Against 256 training pictures of the demo data it is at most 0.19 for its test pictures
# (other artwork), 0.25 for photographs and 0.34 for its video; 0.38 for test pictures of 0.8 times the brightness,
# 0.73 of half of it, 0.67 of half the contrast, 1.0 in grey, 0.50 blurred by one pixel, 0.80 by two. Photographs
# against test pictures: 0.40, and they are the sharper ones.
UNLIKE = 0.36
# Chance alone gives more with few pictures: draws from one source stay below 2.2 sqrt((n + m) / (n m)), seen 0.47
# against 0.55 for 16 pictures, 0.39 against 0.40 for 32, 0.26 against 0.29 for 64.
CHANCE = 2.2


@dataclass(frozen=True)
class Descriptions:
    """What pictures look like.

    Attributes:
        values: float32 [N, 5], in the order of DESCRIPTORS: mean grey level; standard deviation of it; mean difference
            of the largest and the smallest colour; mean of red minus blue, all in 0..255; mean difference of
            neighbouring grey levels over their standard deviation.
        hashes: bool [N, 64], see `calibration.duplicates`.
    """

    values: NDArray[np.float32]
    hashes: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.values)


def describe_pictures(pictures: Iterable[NDArray[np.uint8]]) -> Descriptions:
    """Describe pictures uint8 [H, W, 3], RGB order, one at a time."""
    values, hashes = [], []
    for pixels in pictures:
        values.append(describe(pixels))
        hashes.append(difference_hash(pixels))
    return Descriptions(
        np.array(values, np.float32).reshape(-1, len(DESCRIPTORS)), np.array(hashes, np.bool_).reshape(-1, 64)
    )


def describe(pixels: NDArray[np.uint8]) -> tuple[float, ...]:
    """Return one picture's row of `Descriptions.values`."""
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    contrast = float(grey.std())
    steps = (np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2
    warmth = pixels[..., 0].mean() - pixels[..., 2].mean()
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    return float(grey.mean()), contrast, float(spread.mean()), float(warmth), float(steps / (contrast + 1))


def is_blank(pixels: NDArray[np.uint8]) -> bool:
    """Tell whether a picture shows nothing, as of a covered lens: all of it about equally bright."""
    return describe(pixels)[1] < BLANK_CONTRAST


def check_pictures(calibration: Descriptions, evaluation: Descriptions | None = None) -> tuple[str, ...]:
    """Say in a sentence each what speaks against calibrating on these pictures; nothing where they are fit.

    Args:
        calibration: of the pictures that are run.
        evaluation: of pictures such as will come in the field; None: they are not compared.
    """
    warnings = []
    if len(calibration) < FEW:
        warnings.append(f"calibrated on {len(calibration)} pictures only; give at least {FEW}, better 256")
    if len(calibration) > 1:
        distance = _median_distance(calibration.hashes)
        if distance < ALIKE:
            warnings.append(
                f"the calibration pictures are much alike (their hashes differ in {distance:.0f} of 64 bits, those of "
                "unrelated pictures in about 32); take them from more places and times"
            )
    if evaluation is None or not len(evaluation) or not len(calibration):
        return tuple(warnings)
    n, m = len(calibration), len(evaluation)
    limit = max(UNLIKE, CHANCE * ((n + m) / (n * m)) ** 0.5)
    for index, (name, (more, less)) in enumerate(DESCRIPTORS.items()):
        ours, theirs = calibration.values[:, index], evaluation.values[:, index]
        statistic = kolmogorov_smirnov(ours, theirs)
        if statistic > limit:
            a, b = float(np.median(ours)), float(np.median(theirs))
            warnings.append(
                f"the calibration pictures are {more if a > b else less} than the evaluation pictures ({name} "
                f"{a:.3g} against {b:.3g} in the median, Kolmogorov-Smirnov statistic {statistic:.2f}, above "
                f"{limit:.2f}); calibrate on pictures such as the model will see"
            )
    return tuple(warnings)


def kolmogorov_smirnov(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the two-sample statistic: the largest difference of the two empirical distribution functions, 0 to 1."""
    both = np.concatenate([a, b])
    shares = [np.searchsorted(np.sort(one), both, side="right") / len(one) for one in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


def _median_distance(hashes: NDArray[np.bool_]) -> float:
    signs = np.where(hashes, np.float32(1), np.float32(-1))
    distances = (64 - signs @ signs.T) / 2
    return float(np.median(distances[np.triu_indices(len(hashes), 1)]))
