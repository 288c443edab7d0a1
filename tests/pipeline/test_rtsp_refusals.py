import re
import socket
import threading
import time

import pytest

from edge_lsla.errors import SourceError
from edge_lsla.pipeline.sources import SourceSettings, open_source

QUICK = SourceSettings(open_timeout=1, read_timeout=0.6)


@pytest.mark.parametrize("says", [b"", b"SSH-2.0-OpenSSH_9.2p1\r\n"], ids=["nothing", "something else"])
def test_a_server_that_does_not_answer(says: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[socket.socket] = []

        def answer() -> None:
            accepted.append(server.accept()[0])
            accepted[0].sendall(says)

        thread = threading.Thread(target=answer)
        thread.start()
        begun = time.monotonic()
        with pytest.raises(SourceError, match="no answer within 1 s"):
            open_source(f"rtsp://127.0.0.1:{server.getsockname()[1]}/live", QUICK)
        assert time.monotonic() - begun < 4
        thread.join()
        accepted[0].close()


def test_a_host_that_drops_every_packet() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, socket.create_connection(server.getsockname()):
        begun = time.monotonic()  # the queue holds one, and of who comes after nobody learns
        with pytest.raises(SourceError, match="no answer within 1 s"):
            open_source(f"rtsp://127.0.0.1:{server.getsockname()[1]}/live", QUICK)
        assert time.monotonic() - begun < 4


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("RTSP/1.0 403 Forbidden", "the server refuses access"),
        ("RTSP/1.0 461 Unsupported transport", "the server refuses the stream"),
        ("RTSP/1.0 503 Service Unavailable", "the server refuses the stream"),
        ("", "what answers there is not an RTSP camera"),
    ],
)
def test_what_a_server_answers_is_told_in_plain_words(answer: str, message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as client:
                asked = client.recv(4096)
                number = re.search(rb"CSeq: \d+", asked)
                assert number is not None
                if answer:
                    client.sendall(f"{answer}\r\n{number[0].decode()}\r\n\r\n".encode())

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(SourceError, match=message):
            open_source(f"rtsp://127.0.0.1:{server.getsockname()[1]}/live", QUICK)
        thread.join()


def test_a_name_that_is_nobodys() -> None:
    with pytest.raises(SourceError, match="the host cannot be found"):
        open_source(f"rtsp://{'x' * 64}/live", QUICK)  # too long to be looked up, which could take seconds
