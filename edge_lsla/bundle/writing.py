"""Writing a bundle from its parts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_lsla.atomic import atomic_path
from edge_lsla.bundle import strict_json
from edge_lsla.bundle.archive import fill_archive, stream
from edge_lsla.bundle.arrays import npy_bytes
from edge_lsla.bundle.bundle import open_bundle
from edge_lsla.bundle.fields import inside
from edge_lsla.bundle.layout import MANIFEST
from edge_lsla.bundle.manifest import (
    GOLDEN_INPUTS,
    Artifact,
    Golden,
    Manifest,
    Passport,
    Tolerance,
    golden_logits_name,
)
from edge_lsla.errors import BundleError


@dataclass(frozen=True)
class NewArtifact:
    """An artifact to put into a bundle; size and SHA-256 are taken from `data`, `name` from the rest where not given.

    Attributes:
        data: its bytes, or the file that holds them.
        backend, precision, kind, versions, targets: see `Artifact`.
    """

    data: bytes | Path
    backend: str
    precision: str
    kind: str = "onnx"
    versions: dict[str, str] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    name: str | None = None

    def described(self, sha256: str, size: int) -> Artifact:
        """Return the manifest's description of it."""
        middle = "".join(f"-{target}" for target in self.targets)
        name = self.name or f"{self.backend}-{self.precision}{middle}.{self.kind}"
        return Artifact(name, self.backend, self.precision, self.kind, self.versions, self.targets, sha256, size)


@dataclass(frozen=True)
class GoldenSet:
    """Numbers that a device must reproduce.

    Attributes:
        pixels: uint8 [K, S, S, 3], pictures after the geometric half of preprocessing (`to_pixels`).
        logits: by (backend, precision): float32 [K, classes], as measured when the bundle is built.
        tolerance: by precision; precisions that no artifact has are left out of the bundle.
    """

    pixels: NDArray[np.uint8]
    logits: Mapping[tuple[str, str], NDArray[np.float32]]
    tolerance: Mapping[str, Tolerance]


def write_bundle(
    destination: str | os.PathLike[str], passport: Passport, artifacts: Sequence[NewArtifact], golden: GoldenSet
) -> Manifest:
    """Write a bundle atomically, after opening it as a reader would; the same arguments give the same bytes.

    Args:
        destination: the file to write, `NAME.lsla`.
        passport: where the bundle comes from.
        artifacts: the preferred one of each backend first; files are streamed, not held.
        golden: logits for each (backend, precision) among the artifacts.

    Raises:
        BundleError: a part cannot be read or does not fit the others; the message names it.
        EdgeLslaError: see `atomic_path`.
    """
    described: list[Artifact] = []
    arrays = {GOLDEN_INPUTS: npy_bytes(_checked_pixels(golden, passport), "|u1")}
    for index, new in enumerate(artifacts):
        digest, size = _measured(new.data)
        with inside(f"artifacts[{index}]"):
            one = new.described(digest, size)
        described.append(one)
        logits = _checked_logits(golden, one, len(passport.labels))
        arrays[golden_logits_name(one.backend, one.precision)] = npy_bytes(logits, "<f4")
    precisions = {one.precision for one in described}
    manifest = Manifest(
        **{item.name: getattr(passport, item.name) for item in fields(Passport)},
        artifacts=tuple(described),
        golden=Golden(
            images=len(golden.pixels),
            entries={name: hashlib.sha256(data).hexdigest() for name, data in arrays.items()},
            tolerance={key: value for key, value in golden.tolerance.items() if key in precisions},
        ),
    )
    text = manifest.text()
    Manifest.from_dict(strict_json.parse(text))  # refuses one that is too large before anything is written
    data = {one.name: new.data for one, new in zip(described, artifacts)}
    with atomic_path(destination) as temporary:
        fill_archive(temporary, {MANIFEST: text, **arrays, **data})
        open_bundle(temporary).close()
    return manifest


def _measured(data: bytes | Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    for chunk in stream(data):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def _checked_pixels(golden: GoldenSet, passport: Passport) -> NDArray[np.uint8]:
    side = passport.preprocessing.image_size
    pixels = golden.pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (side, side, 3) or not len(pixels):
        raise BundleError(
            f"golden pixels are {pixels.dtype} {list(pixels.shape)}",
            "golden.pixels",
            f"give uint8 [K, {side}, {side}, 3]",
        )
    return pixels


def _checked_logits(golden: GoldenSet, artifact: Artifact, classes: int) -> NDArray[np.float32]:
    where = f"golden.logits[{artifact.backend}, {artifact.precision}]"
    logits = golden.logits.get((artifact.backend, artifact.precision))
    if logits is None:
        raise BundleError("golden logits are missing", where, "measure them")
    if logits.dtype != np.float32 or logits.shape != (len(golden.pixels), classes) or not np.isfinite(logits).all():
        raise BundleError(
            f"golden logits are {logits.dtype} {list(logits.shape)}",
            where,
            f"give finite float32 [{len(golden.pixels)}, {classes}]",
        )
    return logits
