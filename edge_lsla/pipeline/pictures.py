"""Classifying a folder's pictures: decoding in threads while the model works, in order, in bounded memory."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import EdgeLslaError, ImageError, UsageError
from edge_lsla.predictions import Prediction

Prepare = Callable[[Path], NDArray[np.float32]]
Run = Callable[[NDArray[np.float32]], Sequence[tuple[Prediction, ...]]]


@dataclass(frozen=True)
class PicturesSettings:
    """How a folder is worked through.

    Attributes:
        batch_size: pictures that are classified at once.
        threads: that decode; Pillow decodes outside Python's lock, so two keep most models busy.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    batch_size: int = 1
    threads: int = 2

    def __post_init__(self) -> None:
        for name, most in (("batch_size", 4096), ("threads", 64)):
            if not 1 <= getattr(self, name) <= most:
                raise UsageError(f"a number from 1 to {most} is needed", name, "correct it")


@dataclass(frozen=True)
class PictureResult:
    """What was seen in one picture.

    Attributes:
        path: the picture.
        predictions: likeliest first; empty where the picture cannot be read.
        error: why it cannot be read, in one sentence; None where it can.
    """

    path: Path
    predictions: tuple[Prediction, ...] = ()
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        predictions = [p.to_dict() for p in self.predictions]
        return {"path": str(self.path), "predictions": predictions, "error": self.error}


def classify_pictures(
    paths: Iterable[Path], prepare: Prepare, run: Run, settings: PicturesSettings | None = None
) -> Iterator[PictureResult]:
    """Classify pictures in the order given; one that cannot be read becomes a result that says so.

    At most two batches and a picture a thread are decoded and waiting, however many paths there are. Closing the
    iterator early ends the threads.

    Args:
        paths: the pictures.
        prepare: a path to float32 [3, S, S]; called in several threads.
        run: float32 [N, 3, S, S] to N tuples of predictions; called in the caller's thread.
        settings: see `PicturesSettings`.

    Raises:
        EdgeLslaError: from `run`, or from `prepare` where it is not an ImageError.
    """
    settings = settings or PicturesSettings()
    rest = iter(paths)
    waiting: deque[tuple[Path, Future[NDArray[np.float32]]]] = deque()
    pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="decode")
    try:

        def refill() -> None:
            for path in itertools.islice(rest, 2 * settings.batch_size + settings.threads - len(waiting)):
                waiting.append((path, pool.submit(prepare, path)))

        refill()
        while waiting:
            results: list[PictureResult | Path] = []
            arrays: list[NDArray[np.float32]] = []
            while waiting and len(arrays) < settings.batch_size and len(results) < 4 * settings.batch_size:
                path, future = waiting.popleft()
                try:
                    arrays.append(future.result())
                    results.append(path)
                except ImageError as error:
                    results.append(PictureResult(path, error=str(error)))
                refill()
            answers = iter(_classify(arrays, run))
            for result in results:
                yield result if isinstance(result, PictureResult) else PictureResult(result, next(answers))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _classify(arrays: list[NDArray[np.float32]], run: Run) -> Sequence[tuple[Prediction, ...]]:
    if not arrays:
        return ()
    answers = run(arrays[0][None] if len(arrays) == 1 else np.stack(arrays))
    if len(answers) != len(arrays):
        raise EdgeLslaError(f"the model answered {len(answers)} pictures of {len(arrays)}", None, "report this")
    return answers
