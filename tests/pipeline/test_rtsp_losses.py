import pytest
from loss_parts import check_loss, check_resizing

from benchmarks.rtsp_camera import RtspCamera, lacking

pytestmark = [pytest.mark.rtsp, pytest.mark.skipif(lacking() is not None, reason=str(lacking()))]


@pytest.mark.parametrize(
    ("stream", "kind", "reason"),
    [
        ("rtsp", "torn down", "no picture for 0.5 s"),
        ("rtsp udp", "killed", "ended by|broke off"),  # it comes back with another size
        ("rtsp jpeg", "garbage", "no picture for 0.5 s|ended by|broke off|no frame"),
    ],
)
def test_a_lost_camera_comes_back_and_the_gap_is_told(stream: str, kind: str, reason: str) -> None:
    with RtspCamera(stream) as camera:
        check_loss(camera, stream, kind, reason, "reopen")


def test_a_camera_that_changes_its_size_goes_on() -> None:
    with RtspCamera("rtsp") as camera:
        check_resizing(camera, "rtsp")
