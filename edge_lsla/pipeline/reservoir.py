"""A bounded folder of pictures that stands for all frames a device ever saw, to calibrate with later."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from PIL import Image

from edge_lsla.atomic import write_bytes, write_text
from edge_lsla.errors import EdgeLslaError, UsageError
from edge_lsla.pipeline.frames import Frame
from edge_lsla.reading import read_json

log = logging.getLogger(__name__)
STATE = "reservoir.json"
LONGEST_SIDE = 1024  # pixels; no model here sees more than a few hundred
QUALITY = 92
MOST = 10_000  # pictures
SAVED_EVERY = 250  # frames; a power cut loses the count of so many at most, which makes later ones a little likelier


@dataclass(frozen=True)
class ReservoirSettings:
    """What a reservoir keeps.

    Attributes:
        size: most pictures.
        seed: of the draws; the same frames and seed leave the same pictures.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MOST:
            raise UsageError(f"a number from 1 to {MOST} is needed", "size", "correct it")


def draw(number: int, settings: ReservoirSettings) -> int | None:
    """Return the place that the frame of this number, from 1, takes in the reservoir; None where it takes none."""
    if number <= settings.size:
        return number - 1
    place = random.Random(f"{settings.seed} {number}").randrange(number)
    return place if place < settings.size else None


class Seen(Protocol):
    """What a reservoir takes of an observation."""

    @property
    def frame(self) -> Frame: ...


class Reservoir:
    """A sink that keeps a uniform random sample of all frames written to it, as JPEGs in a folder.

    Algorithm R (Vitter 1985, Random sampling with a reservoir, ACM TOMS 11(1)): the first `size` frames are kept; the
    n-th after them takes the place of a random one with probability size / n. The draw for frame n depends on the seed
    and n only, so that the number of frames, kept beside the pictures, is all that a restart needs.

    Pictures are called by the minute of the frame and their place, `20260102T0304_0017.jpg`: with
    `calibration.splits` the frames of one minute are of one source, and never both searched and judged with.

    One of another size is resized as its block is entered. Smaller: a random `size` of its pictures stay, which is
    still a uniform sample of all frames. Larger: what was not kept cannot come back, so counting begins anew with the
    pictures that are there, as if no other frames had ever been; where all were kept until then, nothing changes.

    Attributes:
        seen: frames so far, those of earlier runs among them.
        size_before: most pictures until now, in the folder's earlier runs; None where there were none.

    Raises:
        UsageError: the folder cannot be made, holds pictures but no reservoir, or a reservoir of another seed.
    """

    def __init__(self, folder: Path, settings: ReservoirSettings | None = None) -> None:
        self.folder = folder
        self._settings = settings or ReservoirSettings()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError("folder cannot be made", folder, error.strerror or "choose another") from error
        self.size_before: int | None = None
        self.seen = self._load()

    def __enter__(self) -> Reservoir:
        if self.size_before not in (None, self._settings.size):
            self._resize()
        self._save()  # before there are pictures, so that they are known for its own after a power cut
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(EdgeLslaError) if error is not None else contextlib.nullcontext():
            self._save()

    def write(self, observation: Seen) -> None:
        """Take the next frame, and keep it if it is drawn.

        Raises:
            EdgeLslaError: the disk is full or fails.
        """
        self.seen += 1
        place = draw(self.seen, self._settings)
        if place is not None:
            self._keep(observation.frame, place)
        if self.seen - self._saved >= SAVED_EVERY:
            self._save()

    def _keep(self, frame: Frame, place: int) -> None:
        before = list(self.folder.glob(f"*_{place:04d}.jpg"))
        minute = time.strftime("%Y%m%dT%H%M", time.gmtime(frame.time))  # of a recording, since its first frame
        path = self.folder / f"{minute}_{place:04d}.jpg"
        picture = Image.fromarray(frame.pixels)
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        memory = io.BytesIO()  # Pillow does not notice when only a part of a file finds room on the disk
        picture.save(memory, "JPEG", quality=QUALITY)
        write_bytes(path, memory.getvalue())
        for old in before:
            if old != path:
                old.unlink(missing_ok=True)

    def _resize(self) -> None:
        """Leave as many pictures as there may be, at the first places; see the class.

        A power cut amid it leaves the old size in the state, and is made good as the folder is entered again.
        """
        size, before = self._settings.size, self.size_before or 0
        pictures = sorted(self.folder.glob("*_[0-9][0-9][0-9][0-9].jpg"))
        try:
            if len(pictures) > size:  # the places are no sample: the first frames hold the first ones until replaced
                kept = set(random.Random(f"{self._settings.seed} {self.seen} {size}").sample(pictures, size))
                for picture in pictures:
                    if picture not in kept:
                        picture.unlink()
                pictures = sorted(kept)
            taken = {_place(picture) for picture in pictures}
            free = (place for place in range(len(pictures)) if place not in taken)
            for picture in pictures:
                if _place(picture) >= len(pictures):
                    picture.rename(picture.with_name(f"{picture.stem[:-4]}{next(free):04d}.jpg"))
        except OSError as error:
            raise EdgeLslaError("the reservoir cannot be resized", self.folder, error.strerror) from error
        if size > before and self.seen > before:
            self.seen = len(pictures)
        log.info("reservoir: %d pictures instead of %d, of %d frames", size, before, self.seen)
        self.size_before = size

    def _save(self) -> None:
        write_text(self.folder / STATE, json.dumps({"seen": self.seen, **asdict(self._settings)}) + "\n")
        self._saved = self.seen

    def _load(self) -> int:
        path = self.folder / STATE
        pictures = sum(1 for _ in self.folder.glob("*.jpg"))
        if not path.exists():
            if pictures:
                raise UsageError(
                    "the folder holds pictures that no reservoir keeps",
                    self.folder,
                    "choose another, or move them away",
                )
            return 0
        state = read_json(path, "reservoir's count", UsageError)
        seen = state.get("seen") if isinstance(state, dict) else None
        if isinstance(seen, bool) or not isinstance(seen, int) or seen < 0:
            raise UsageError("the reservoir's count is damaged", path, "move the folder away: another is begun")
        size, seed = state.get("size"), state.get("seed")
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MOST:
            raise UsageError("the reservoir's count is damaged", path, "move the folder away: another is begun")
        if seed != self._settings.seed:
            raise UsageError(f"the reservoir draws with seed {seed}", self.folder, "ask for the same, or move it away")
        self.size_before = size
        return max(seen, pictures)


def _place(picture: Path) -> int:
    return int(picture.stem[-4:])
