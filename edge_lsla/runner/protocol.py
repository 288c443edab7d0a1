"""What every backend's runner offers, so that one teaches all."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_lsla.runner.profile import LayerTime


class Runner(Protocol):
    """Runs a model; a context manager that owns the backend's memory.

    Attributes:
        backend: "onnxruntime", "tensorrt" or "tensorrt-rtx".
        image_size: side of the square input, pixels.
        classes: length of a row of logits.
    """

    backend: str
    image_size: int
    classes: int

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute logits float32 [N, classes] of images float32 [N, 3, S, S]; safe to call from several threads."""
        ...

    def profile(self, images: NDArray[np.float32], repeats: int = 20) -> tuple[LayerTime, ...]:
        """Measure each layer for images float32 [N, 3, S, S], in one batch, beside whatever else runs."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return the backend's version, device and settings, JSON-ready."""
        ...

    def close(self) -> None:
        """Give back what the runner owns; calling it again does nothing."""
        ...

    def __enter__(self) -> Runner: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
