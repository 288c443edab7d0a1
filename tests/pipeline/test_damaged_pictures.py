"""A live camera's damaged pictures: left out, because nobody can tell what is in the invented part."""

import contextlib
import http.server
from itertools import islice
from pathlib import Path

import numpy as np
from pipeline_parts import MjpegCamera, jpeg, make_video

from edge_lsla.errors import SourceError
from edge_lsla.pipeline.frames import Frame
from edge_lsla.pipeline.settings import SourceSettings
from edge_lsla.pipeline.sources import open_source

QUICK = SourceSettings(open_timeout=2, read_timeout=2)


class Flawed(MjpegCamera):
    """Sends a whole picture between two that were cut short."""

    @staticmethod
    def part(number: int) -> bytes:
        data = jpeg(number)
        data = data if number < 8 or number % 2 else data[: len(data) * 3 // 5]
        return f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data + b"\r\n"


def test_a_picture_that_was_cut_short_is_left_out() -> None:
    with Flawed() as camera, open_source(camera.url, QUICK) as source:
        shown = [round(frame.pixels[:, :, 0].mean() / 5) for frame in islice(source, 16)]
        flat = [frame.pixels.std() < 3 for frame in islice(source, 8)]  # each picture is one grey
    assert shown[-5:] == list(range(shown[-5], shown[-5] + 10, 2))
    assert shown[-1] % 2 == 1
    assert all(flat)


class Careless(MjpegCamera):
    """Ends no picture as the standard says, as many webcams do."""

    @staticmethod
    def part(number: int) -> bytes:
        data = jpeg(number)[:-12]
        return f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data + b"\r\n"


def test_a_camera_whose_pictures_are_all_flawed_is_watched_nonetheless() -> None:
    with Careless() as camera, open_source(camera.url, QUICK) as source:
        numbers = [frame.sequence for frame in islice(source, 20)]
    assert numbers == list(range(20))


class Played(MjpegCamera):
    """Sends a file's bytes as a camera would."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.data = path.read_bytes()

    def serve(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "video/mp2t")
        handler.end_headers()
        handler.wfile.write(self.data)


def frames_of(spec: str) -> list[Frame]:
    frames: list[Frame] = []
    with open_source(spec, QUICK) as source, contextlib.suppress(SourceError):  # the end of a camera is a loss
        frames.extend(source)
    return frames


def test_pictures_of_which_the_decoder_invented_parts(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.ts")
    data = bytearray(path.read_bytes())
    for third in (1, 2):
        at = len(data) * third // 3 // 188 * 188
        for packet in range(3):
            data[at + packet * 188 + 20 : at + packet * 188 + 180] = b"\x55" * 160
    path.write_bytes(data)
    with Played(path) as camera:
        live = frames_of(camera.url)
    recorded = frames_of(str(path))
    assert live[0].live
    assert not recorded[0].live
    assert len(recorded) == 60
    # The first half second was spent on finding out what comes; behind it the damaged picture is missing.
    numbers = [round(float(frame.pixels[:, :70].mean()) / 4) for frame in live]
    assert len(numbers) > 20
    assert np.diff(numbers).min() >= 1
    assert np.diff(numbers).max() == 2
