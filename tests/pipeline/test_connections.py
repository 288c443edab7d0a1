import socket
import threading

import pytest
from pipeline_parts import MjpegCamera

from edge_lsla.pipeline.connections import Connection
from edge_lsla.pipeline.sources import SourceSettings, open_source


def test_a_blocked_read_ends_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = Connection()
        with connection.opened_here(f"http://127.0.0.1:{server.getsockname()[1]}/x"):
            client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(client.recv(1)))
        reader.start()
        connection.shut()
        reader.join(1)
        assert got == [b""]
        client.close()
        connection.shut()  # closed in the meantime: nothing happens
        other, mine = socket.socketpair()  # may get the closed one's number
        connection.shut()
        other.send(b"x")
        assert mine.recv(1) == b"x"
        for each in (accepted, other, mine):
            each.close()


def test_of_two_that_cannot_be_told_apart_neither_is_shut() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = Connection()
        with connection.opened_here(f"http://127.0.0.1:{server.getsockname()[1]}/x"):
            pair = [socket.create_connection(server.getsockname()) for _ in range(2)]
        accepted = [server.accept()[0] for _ in pair]
        connection.shut()
        for client, other in zip(pair, accepted):
            other.send(b"x")
            assert client.recv(1) == b"x"
            client.close()
            other.close()


def test_stopping_one_camera_leaves_another_alone() -> None:
    settings = SourceSettings(read_timeout=5)
    with MjpegCamera() as one, MjpegCamera() as two:
        first, second = open_source(one.url, settings), open_source(two.url, settings)
        with first._reading:  # type: ignore[attr-defined]  # as if a thread were inside FFmpeg
            first.close()
        first.close()
        for _ in range(30):
            next(second)
        with pytest.raises(StopIteration):
            next(first)
        second.close()
