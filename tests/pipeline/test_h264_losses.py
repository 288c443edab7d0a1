import pytest
from loss_parts import check_loss, check_resizing

from benchmarks.lossy_camera import LossyCamera


@pytest.mark.parametrize(
    ("kind", "reason", "step"),
    [
        ("killed", "ended by|broke off", "reopen"),
        ("garbage", "no picture for 0.5 s", "reopen"),
    ],
)
def test_a_lost_camera_comes_back_and_the_gap_is_told(kind: str, reason: str, step: str) -> None:
    with LossyCamera("mpegts") as camera:
        check_loss(camera, "mpegts", kind, reason, step)


def test_a_camera_that_changes_its_size_goes_on() -> None:
    with LossyCamera("mpegts") as camera:
        check_resizing(camera, "mpegts")
