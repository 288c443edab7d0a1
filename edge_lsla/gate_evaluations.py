"""Measuring assignments of precisions on the pictures to search with, remembered below the cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edge_lsla import __version__
from edge_lsla.console import say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from calibration.evaluations import Evaluations
    from edge_lsla.gate_pictures import Pictures
    from edge_lsla.typed_graphs import TypedGraphs

STATE_DAYS = 30  # after which a search is no longer gone on with


def open_evaluations(graphs: TypedGraphs, backend: str, pictures: Pictures) -> Evaluations:
    """Return what measures assignments on the pictures to search with, and goes on from where a search was stopped."""
    import numpy as np

    from calibration.evaluations import Evaluations
    from calibration.identity import DataDigest, model_sha256
    from calibration.settings import QdqSettings
    from calibration.switches import SwitchedSession
    from edge_lsla.runner.onnxruntime import import_onnxruntime

    quantiser = graphs.quantiser
    settings = QdqSettings(backend="onnxruntime" if backend == "onnxruntime" else "tensorrt")
    ranges = quantiser.ranges_for(backend)
    session = SwitchedSession(quantiser.graph, ranges, settings)
    digest = DataDigest()
    for image in pictures:
        digest.update(image)
    key = {
        "edge-lsla": __version__,
        "onnxruntime": import_onnxruntime().__version__,
        "model": model_sha256(quantiser.graph),
        "ranges": hashlib.sha256(repr(sorted(ranges.ranges.items())).encode()).hexdigest(),
        "settings": repr(settings),
        "data": digest.hexdigest(),
        "labels": hashlib.sha256(repr(pictures.side.labels).encode()).hexdigest(),
    }

    def evaluate(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        return np.concatenate([session.logits(image, mask) for image in pictures])

    labels = pictures.side.labels
    named = None if labels is None else np.array(labels)
    evaluations = Evaluations(session.names, evaluate, named, _state(key), key)
    tell(evaluations)
    return evaluations


def tell(evaluations: Evaluations) -> None:
    """Say once what is to be told of the state file."""
    if evaluations.notice:
        say().print(evaluations.notice, style="yellow")
        evaluations.notice = None


def _state(key: Mapping[str, str]) -> Path | None:
    """Name the file that an interrupted search goes on from; None where the cache cannot be written.

    Files that no search has written to for a month are removed.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-lsla" / "search"
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    for old in base.iterdir():
        with contextlib.suppress(OSError):  # another process was quicker, or it is not ours
            if time.time() - old.stat().st_mtime > STATE_DAYS * 86400:
                old.unlink()
    return base / f"{hashlib.sha256(repr(sorted(key.items())).encode()).hexdigest()[:16]}.json"
