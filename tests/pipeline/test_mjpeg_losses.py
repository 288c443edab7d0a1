import pytest
from loss_parts import check_loss, check_resizing

from benchmarks.lossy_camera import LossyCamera


@pytest.mark.parametrize(
    ("kind", "reason", "step"),
    [
        ("killed", "ended by|broke off", "reopen"),
        ("stalled", "no picture for 0.5 s", "reopen"),
        ("dripping", "no picture for 0.5 s", "reopen"),
        ("garbage", "ended by|broke off|damaged|no picture", "reopen"),
        ("refused", "ended by|broke off", "reopen"),
        # Bytes come, and packets, and never a picture: only looking for frames notices.
        ("damaged", "no frame for", "new process"),
    ],
)
def test_a_lost_camera_comes_back_and_the_gap_is_told(kind: str, reason: str, step: str) -> None:
    with LossyCamera("mjpeg") as camera:
        check_loss(camera, "mjpeg", kind, reason, step)


def test_a_camera_that_changes_its_size_goes_on() -> None:
    with LossyCamera("mjpeg") as camera:
        check_resizing(camera, "mjpeg")
