"""Pictures that show the same as another one."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Bits of 64 that may differ. Measured on the demo data at 96 px: of 4.5 million pairs of different pictures one is this
# near (median 31); a picture scaled down to 80 px and saved as JPEG of quality 50 differs from itself by 1 in the
# median and by at most 6 in 99 of 100. Of the demo video's 252 frames 60 % are this near to another.
NEAR = 5


def difference_hash(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return 64 bits, bool [64]: whether the picture gets brighter from each of 8x8 places to the next on the right.

    The "dHash" of Neal Krawetz (hackerfactor.com, 2013, "Kind of Like That"), on a grey picture of 9x8 pixels.

    Args:
        pixels: uint8 [H, W, 3], RGB order.
    """
    small = Image.fromarray(pixels).convert("L").resize((9, 8), Image.Resampling.BOX)
    grey = np.asarray(small, np.int16)
    brighter: NDArray[np.bool_] = np.greater(grey[:, 1:], grey[:, :-1]).reshape(-1)
    return brighter


class Copies:
    """Tells whether a file is a copy of one of some others, by its bytes; only those of its size are read."""

    def __init__(self, others: Iterable[Path]) -> None:
        self._by_size: defaultdict[int, list[Path]] = defaultdict(list)
        self._digests: dict[int, set[str]] = {}
        for path in others:
            self._by_size[_size(path)].append(path)

    def __contains__(self, path: Path) -> bool:
        size = _size(path)
        if size not in self._by_size:
            return False
        if size not in self._digests:
            self._digests[size] = {_digest(other) for other in self._by_size[size]}
        return _digest(path) in self._digests[size]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:  # then only the very same path is a copy
        return str(path)


class SeenPictures:
    """Remembers pictures by their hashes: 64 bytes each."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._hashes = np.zeros((64, 64), np.bool_)

    def find(self, wanted: NDArray[np.bool_]) -> str | None:
        """Return the name of the first remembered picture that shows the same, the very same bytes included."""
        near = (self._hashes[: len(self._names)] != wanted).sum(axis=1) <= NEAR
        return self._names[int(np.argmax(near))] if near.any() else None

    def add(self, name: str, hashed: NDArray[np.bool_]) -> None:
        """Remember a picture."""
        if len(self._names) == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
        self._hashes[len(self._names)] = hashed
        self._names.append(name)

    @property
    def hashes(self) -> NDArray[np.bool_]:
        """Bool [N, 64], in the order in which pictures were added."""
        taken: NDArray[np.bool_] = self._hashes[: len(self._names)].copy()
        return taken
