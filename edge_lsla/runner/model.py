"""The embedding: a bundle as a callable that names what is in a picture. NumPy, Pillow and ONNX Runtime only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Union, overload

import numpy as np
from numpy.typing import NDArray

from edge_lsla.bundle import PRECISIONS, Artifact, Bundle, Manifest, open_bundle
from edge_lsla.engine_cache import EngineOptions
from edge_lsla.errors import AccuracyError, CompatibilityError, UsageError
from edge_lsla.predictions import Prediction, rank
from edge_lsla.preprocessing import Picture, Preprocessing, normalise, to_tensor
from edge_lsla.runner.choosing import Chosen, Rebuild, Request, choose
from edge_lsla.runner.drift import Drift, DriftCounter, compare, read_baseline
from edge_lsla.runner.onnxruntime import OnnxRuntimeRunner

Pictures = Union[list[Picture], tuple[Picture, ...]]


@dataclass(frozen=True)
class SelfTest:
    """What the golden set said of this device.

    Attributes:
        images: how many were run.
        max_abs_difference: the largest difference of a logit from the recorded one.
        tolerance: the largest that is allowed.
    """

    images: int
    max_abs_difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the device reproduces the bundle's numbers."""
        return self.max_abs_difference <= self.tolerance


class Model:
    """A classifier opened from a bundle; safe to call from several threads; a context manager.

    Attributes:
        labels: class names, in the order of the logits.
        preprocessing: how pictures become inputs.
        artifact: what is being run: its backend and precision.
        manifest: the bundle's passport.
        passed_over: why backends that `auto` prefers do not run, a sentence each.
    """

    def __init__(self, bundle: Bundle, chosen: Chosen) -> None:
        self.manifest: Manifest = bundle.manifest
        self.labels: tuple[str, ...] = self.manifest.labels
        self.preprocessing: Preprocessing = self.manifest.preprocessing
        self.artifact: Artifact = chosen.artifact
        self.passed_over = chosen.passed_over
        self._bundle, self._runner = bundle, chosen.runner

    @overload
    def __call__(self, pictures: Picture, top: int = 5) -> tuple[Prediction, ...]: ...

    @overload
    def __call__(self, pictures: Pictures, top: int = 5) -> tuple[tuple[Prediction, ...], ...]: ...

    def __call__(
        self, pictures: Picture | Pictures, top: int = 5
    ) -> tuple[Prediction, ...] | tuple[tuple[Prediction, ...], ...]:
        """Classify one picture, or several in one batch.

        Args:
            pictures: a path, encoded bytes, a Pillow image or an array uint8 [H, W, 3] (RGB), or a list of these.
            top: how many classes to name, likeliest first.

        Returns:
            The predictions of the picture, or a tuple of them for a list.

        Raises:
            ImageError: a picture cannot be read.
            UsageError: the model is closed.
        """
        if not isinstance(pictures, (list, tuple)):
            return self.classify(to_tensor(pictures, self.preprocessing)[None], top)[0]
        if not pictures:
            return ()
        return self.classify(np.stack([to_tensor(p, self.preprocessing) for p in pictures]), top)

    def classify(self, images: NDArray[np.float32], top: int = 5) -> tuple[tuple[Prediction, ...], ...]:
        """Classify images that were preprocessed already, float32 [N, 3, S, S]."""
        return rank(self._runner.run(images), self.labels, top)

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute logits float32 [N, classes] of images float32 [N, 3, S, S] that were preprocessed already."""
        return self._runner.run(images)

    def saturation(self, images: NDArray[np.float32]) -> dict[str, float]:
        """Return the share of each activation's values that sit at an end of their integer range.

        Args:
            images: float32 [N, 3, S, S], preprocessed; the shares are over all of them.

        Returns:
            By activation, called after the layer that reads it, 0..1.

        Raises:
            UsageError: what runs has no counters (only INT8 of onnxruntime has, built with --counters), or is closed.
        """
        runner = self._runner
        if not isinstance(runner, OnnxRuntimeRunner):
            raise UsageError(
                f"{self.artifact.backend} counts no saturation", self.artifact.name, "use --backend onnxruntime"
            )
        return runner.saturation(images)

    def drift(self, images: NDArray[np.float32]) -> tuple[Drift, ...]:
        """Set the saturation of images float32 [N, 3, S, S] beside that of the calibration pictures, worst first.

        Raises:
            UsageError: see `saturation`; or the bundle records no saturation to compare with.
        """
        shares = self.saturation(images)
        return compare(shares, self._baseline(tuple(shares)))

    def drift_counter(self, every: int = 25) -> DriftCounter:
        """Return what counts drift over many pictures, on every n-th of them.

        Raises:
            UsageError: see `drift`.
        """
        size = self.preprocessing.image_size
        names = tuple(self.saturation(np.zeros((1, 3, size, size), np.float32)))  # refuses what cannot count, now
        return DriftCounter(self.saturation, self._baseline(names), every)

    def _baseline(self, names: tuple[str, ...]) -> dict[str, float]:
        return read_baseline(self.manifest.calibration, names, self._bundle.path)

    def selftest(self) -> SelfTest:
        """Run the bundle's golden set on this device and compare the logits with the recorded ones."""
        images = normalise(self._bundle.golden_inputs(), self.preprocessing)
        expected = self._bundle.golden_logits(self.artifact)
        # One by one: a device may round differently in another batch size, and the field runs batch 1.
        actual = np.concatenate([self._runner.run(image[None]) for image in images])
        difference = np.abs(actual.astype(np.float64) - expected)
        worst = float(difference.max()) if np.isfinite(difference).all() else float("inf")
        return SelfTest(len(images), worst, self.manifest.golden.tolerance[self.artifact.precision].max_abs)

    def describe(self) -> dict[str, Any]:
        """Return what runs where, JSON-ready."""
        return {**self._runner.describe(), "precision": self.artifact.precision, "artifact": self.artifact.name}

    def close(self) -> None:
        """Give back memory and close the file; calling it again does nothing."""
        self._runner.close()
        self._bundle.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(
    path: str | os.PathLike[str],
    *,
    backend: str = "auto",
    precision: str | None = None,
    threads: int | None = None,
    spinning: bool = True,
    verify: bool = False,
    batch: int = 1,
    rebuild: Rebuild | None = None,
) -> Model:
    """Open a bundle and make it ready to run.

    Args:
        path: a bundle, `NAME.lsla`.
        backend: a backend's name, or "auto": the first of tensorrt, tensorrt-rtx and onnxruntime that runs here.
        precision: "fp32", "fp16" or "int8"; None: the bundle's preferred one.
        threads: CPU threads of one inference; None: all.
        spinning: whether these keep a core busy for some milliseconds after an inference, so as to begin the next one
            sooner; better not where pictures come at their own pace.
        verify: run the golden set first, and refuse when it fails.
        batch: the largest that an engine should take which is built on this device; any number of pictures can be run.
        rebuild: `edge_lsla.engine_building.rebuild_here`, which builds an engine where neither the bundle nor this
            device's cache has one that fits; None: what is there must do.

    Raises:
        BundleError: the file is no bundle, or damaged.
        CompatibilityError: the bundle is of a newer format, or holds nothing for this backend, precision and device.
        TrustError: its engine was not built here, and no trusted key signed it.
        AccuracyError: `verify` was asked for, and this device gives other numbers than the bundle records.
        MissingComponentError: the backend is not installed.
    """
    if precision is not None and precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}", "precision", f"use {', '.join(PRECISIONS)}")
    bundle = open_bundle(path)
    try:
        chosen = choose(bundle, Request(backend, precision, threads, spinning, EngineOptions(batch), rebuild))
        runner, where, settings = chosen.runner, f"{path}: {chosen.artifact.name}", bundle.manifest
        if (runner.image_size, runner.classes) != (settings.preprocessing.image_size, len(settings.labels)):
            raise CompatibilityError("model and manifest differ in image size or classes", where, "build it again")
        model = Model(bundle, chosen)
        if verify:
            test = model.selftest()
            if not test.passed:
                raise AccuracyError(
                    f"logits differ by {test.max_abs_difference:.3g}, more than {test.tolerance:.3g}",
                    where,
                    "this device computes other numbers; use another precision, or rebuild the bundle here",
                )
    except BaseException:
        bundle.close()
        raise
    return model
