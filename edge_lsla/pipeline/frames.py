"""A frame, and the source that produces frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        pixels: uint8 [H, W, 3], RGB order, upright.
        time: seconds; of a live source since the epoch, when it was captured; of a recording since its first frame.
        sequence: counts every frame that the source produced, from 0, so that a gap shows dropped frames.
        source: the source's name, credentials masked.
        live: which of the two meanings `time` has.
        captured: seconds of `time.monotonic`, the same clock in every process of a machine, when it was captured.
    """

    pixels: NDArray[np.uint8]
    time: float
    sequence: int
    source: str
    live: bool = False
    captured: float = field(default_factory=monotonic)


class Source(ABC):
    """A context manager and iterator of frames; whoever opens it closes it.

    `close` may be called from any thread, also while another one waits for a frame: the iterator then ends.

    Attributes:
        name: what was opened, credentials masked.
        live: a camera, a stream or the synthetic source, where a late frame is worth less than the newest one;
            otherwise a recording, of which every frame counts.
        rate: frames a second as the source announces them; 0 where it does not.
        size: width and height of a frame, pixels.
    """

    name: str
    live: bool
    rate: float
    size: tuple[int, int]

    def __iter__(self) -> Source:
        return self

    @abstractmethod
    def __next__(self) -> Frame:
        """Return the next frame.

        Raises:
            StopIteration: the recording is at its end, or the source was closed.
            SourceError: the source broke off; the frames so far were good.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the device, connection or file; more than once does no harm."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
