"""The capture process: opens a source when it is told to, and puts its frames into shared memory.

It decides nothing: when the source is lost it says so and waits for the next order. Started by `CaptureLink` as
`python -m edge_lsla.pipeline.capture_process SOCKET MEMORY PARENT FOLDER`: the file numbers that it inherits, the
process that it belongs to, and the folder that a source's relative path starts from. Orders and answers are JSON, one a
message:

    {"do": "open", "source", "opening", "rate", "skip", "frozen",   {"say": "opened", "live"}
     "hidden": whether no message may show where it is}
    {"do": "close"}                                                 {"say": "frame", "slot", "height", "width", ...}
    {"do": "pace", "rate"}                                          {"say": "lost", "reason"}
    {"do": "free", "slot"}                                          {"say": "ended"}
                                                                    {"say": "alive", "read", "full"}
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

from edge_lsla.errors import EdgeLslaError, SourceError
from edge_lsla.pipeline.address import mask
from edge_lsla.pipeline.frame_ring import SLOTS, FrameRing
from edge_lsla.pipeline.frames import Frame, Source
from edge_lsla.pipeline.settings import settings_from
from edge_lsla.pipeline.sources import open_source

ALIVE_SECONDS = 0.25
CLOSE_SECONDS = 1.0
LARGEST_ORDER = 65536
PR_SET_PDEATHSIG = 1


class Speaker:
    """Sends messages from any thread; when nobody listens any more, the process has no purpose and ends."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def say(self, what: str, **more: Any) -> None:
        """Send one message."""
        message = json.dumps({"say": what, **more}).encode()
        with self._lock:
            while True:
                try:
                    self._connection.send(message)
                except TimeoutError:  # the service stands still, perhaps in a debugger
                    continue
                except OSError:
                    os._exit(0)
                return


class Outlet:
    """Passes frames on through the ring: of a live source the newest, of a recording every one."""

    def __init__(self, ring: FrameRing, speaker: Speaker) -> None:
        self._ring, self._speaker = ring, speaker
        self._free = set(range(SLOTS))
        self._waiting: Frame | None = None  # for a free slot
        self._dropped = 0
        self._changed = threading.Condition()

    def put(self, frame: Frame) -> None:
        """Take a frame; of a recording, wait until there is room for the next."""
        with self._changed:
            self._dropped += self._waiting is not None
            self._waiting = frame
            self._pass_on()
            while self._waiting is not None and not frame.live:
                self._changed.wait()

    def freed(self, slot: int) -> None:
        """A slot was given back."""
        with self._changed:
            self._free.add(slot)
            self._pass_on()
            self._changed.notify_all()

    @property
    def full(self) -> bool:
        """Whether a frame waits for a slot."""
        return self._waiting is not None

    def clear(self) -> None:
        """Forget the frame that waits."""
        with self._changed:
            self._waiting = None
            self._changed.notify_all()

    def _pass_on(self) -> None:
        if self._waiting is None or not self._free:
            return
        frame, slot = self._waiting, self._free.pop()
        self._ring.write(slot, frame.pixels)
        height, width = frame.pixels.shape[:2]
        self._speaker.say(
            "frame",
            slot=slot,
            height=height,
            width=width,
            time=frame.time,
            sequence=frame.sequence,
            live=frame.live,
            captured=frame.captured,
            dropped=self._dropped,
        )
        self._waiting, self._dropped = None, 0


class Reader:
    """A thread that opens a source and reads it to its end.

    Attributes:
        read: frames that came, those included that were left out for the pace.
    """

    def __init__(self, order: dict[str, Any], outlet: Outlet, speaker: Speaker) -> None:
        self._order, self._outlet, self._speaker = order, outlet, speaker
        self.rate: float | None = order["rate"]
        self._hidden: bool = order.get("hidden", False)
        self.read = 0
        self._due = 0.0
        self._picture = (b"", 0.0)
        self._source: Source | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the thread is still there, perhaps inside a driver that does not return."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Close the source; wait a second for the thread."""
        self._closing.set()
        if self._source is not None:
            self._source.close()
        self._outlet.clear()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            with open_source(self._order["source"], settings_from(self._order["opening"])) as self._source:
                self._speaker.say("opened", live=self._source.live)
                for frame in self._source:
                    if self._closing.is_set():
                        return
                    self.read += 1
                    if frame.sequence >= self._order["skip"] and self._wanted(frame):
                        self._outlet.put(frame)
                    self._check_frozen(frame)
            said: tuple[str, dict[str, Any]] = ("ended", {})
        except EdgeLslaError as error:
            said = ("lost", {"reason": str(error) if not self._hidden else f"{error.what}; {error.remedy}"})
        except Exception as error:  # whatever a library raises about this source, another try may go well
            source, kind = self._order["source"], type(error).__name__
            said = ("lost", {"reason": kind if self._hidden else f"{kind}: {error}".replace(source, mask(source))})
        if not self._closing.is_set():
            self._speaker.say(said[0], **said[1])

    def _check_frozen(self, frame: Frame) -> None:
        """Notice a camera that sends one picture over and over; a real sensor's noise makes all pictures differ."""
        longest = self._order["frozen"]
        if longest is None or not frame.live:
            return
        picture, since = frame.pixels[::8, ::8].tobytes(), self._picture[1]
        if picture != self._picture[0]:
            self._picture = (picture, frame.captured)
        elif frame.captured - since > longest:
            raise SourceError(f"the same picture for {longest:g} s", mask(self._order["source"]), "check the camera")

    def _wanted(self, frame: Frame) -> bool:
        """Tell whether a frame is due; a recording's frames all are, in their time."""
        rate = self.rate
        if rate is None:
            return True
        interval = 1 / rate
        if not frame.live:
            self._closing.wait(max(0.0, self._due - time.monotonic()))
            self._due = time.monotonic() + interval
            return True
        if frame.captured < self._due:
            return False
        # From when it was due, not from when it came: otherwise 30 frames a second give 7.5 where 10 are asked for.
        self._due = max(self._due + interval, frame.captured)
        return True


def main(connection: socket.socket, ring: FrameRing) -> None:
    """Follow orders until the other side has gone."""
    speaker = Speaker(connection)
    outlet = Outlet(ring, speaker)
    reader: Reader | None = None
    connection.settimeout(ALIVE_SECONDS)
    said = 0.0
    while True:
        try:
            message = connection.recv(LARGEST_ORDER)
        except TimeoutError:
            message = None
        except OSError:
            message = b""
        if message == b"":
            if reader is not None:
                reader.close()
            return
        if message is not None:
            order = json.loads(message)
            if order["do"] == "free":
                outlet.freed(order["slot"])
            elif order["do"] == "pace" and reader is not None:
                reader.rate = order["rate"]
            elif order["do"] == "close" and reader is not None:
                reader.close()
            elif order["do"] == "open":
                if reader is not None:
                    reader.close()
                if reader is not None and reader.running:
                    speaker.say("lost", reason="the former connection to the source does not end")
                else:
                    reader = Reader(order, outlet, speaker)
        if time.monotonic() - said >= ALIVE_SECONDS:
            said = time.monotonic()
            # A recording that waits for its taker is not a source that stands still.
            speaker.say("alive", read=reader.read if reader is not None else 0, full=outlet.full)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, even by SIGKILL, and even where native code hangs."""
    # Under MemoryDenyWriteExecute= some builds of ctypes fail; then the end of the connection has to do.
    with contextlib.suppress(ImportError, MemoryError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(0)


if __name__ == "__main__":
    _die_with(int(sys.argv[3]))
    # The service ends this process in its own time; a terminal or systemd signals both at once.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # only now: until here modules could be loaded from there
        os.chdir(sys.argv[4])
    held = socket.socket(fileno=int(sys.argv[1]))  # to the very end: once it is closed, this process counts as ended
    main(held, FrameRing(int(sys.argv[2])))
    os._exit(0)  # also where a thread is held by a driver
