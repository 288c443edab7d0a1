"""Observations as text: a line a second for people, a JSON object each for programs."""

from __future__ import annotations

import errno
import json
import os
import time
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from edge_lsla.errors import EdgeLslaError, UsageError
from edge_lsla.sinks.observed import Observed, status


class Lines:
    """Prints a line at most every so many seconds: time, label, confidence, frame rate, latency, dropped frames.

    Args:
        stream: where to; it is not closed.
        every: seconds between lines; 0 prints one an observation.
    """

    def __init__(self, stream: TextIO, every: float = 1.0) -> None:
        self._stream = stream
        self._every = every
        self._next = float("-inf")

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def write(self, observation: Observed) -> None:
        """Print the observation if it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._every
        share = observation.predictions[0].probability if observation.predictions else 0.0
        moment = _clock(observation.frame.time) if observation.frame.live else _elapsed(observation.frame.time)
        label = observation.label.replace("_", " ")
        if len(observation.detections) > 1:
            label += f" and {len(observation.detections) - 1} more"
        print(f"{moment}  {label:<24} {share * 100:5.1f} %   {status(observation)}", file=self._stream, flush=True)


class JsonLines:
    """Appends one JSON object an observation to a file, each at once, so that others can follow it.

    Args:
        path: the file; made if it is not there.

    Raises:
        UsageError: it cannot be opened for appending (on entering).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: FileIO | None = None

    def __enter__(self) -> JsonLines:
        try:
            self._file = self.path.open("ab", buffering=0)  # whole lines, also where others append to the file
            if _ends_inside_a_line(self.path):  # the power went while the line before was written
                self._file.write(b"\n")
        except OSError as error:
            reason = error.strerror or str(error)
            raise UsageError(f"cannot append to the file ({reason})", self.path, "choose another") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def write(self, observation: Observed) -> None:
        """Append the observation.

        Raises:
            EdgeLslaError: the disk is full or fails.
        """
        if self._file is None:
            raise ValueError("JsonLines is written to inside its `with` block")
        try:
            line = (json.dumps(record(observation), ensure_ascii=False) + "\n").encode()
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise EdgeLslaError("cannot write", self.path, error.strerror or str(error)) from error


def record(observation: Observed) -> dict[str, Any]:
    """Return an observation without its pixels as JSON-ready values; `time` in seconds, see `Frame`."""
    frame = observation.frame
    return {
        "source": frame.source,
        "sequence": frame.sequence,
        "time": round(frame.time, 3),
        "label": observation.label,
        "confidence": round(observation.predictions[0].probability, 6) if observation.predictions else 0.0,
        "predictions": [p.to_dict() for p in observation.predictions],
        "latency_ms": round(observation.latency_ms, 3),
        "fps": round(observation.fps, 3),
        "dropped": observation.dropped,
        "detections": [
            {"box": one.box.to_list(), "label": one.label, "confidence": round(one.confidence, 6), "track": one.track}
            for one in observation.detections
        ],
        "tracks": [
            {"id": one.id, "label": one.label, "confidence": round(one.confidence, 6), "box": one.box.to_list()}
            for one in observation.tracks
        ],
    }


def _ends_inside_a_line(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _elapsed(seconds: float) -> str:
    minutes, rest = divmod(max(0.0, seconds), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours:02d}:{minutes:02d}:{int(rest):02d}"
