"""The unit, judged by systemd's own tools."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
MOST_EXPOSURE = 25  # tenths; 2.2 with systemd 252, and other versions weigh a little differently


def offline_analysis() -> bool:
    """Say whether systemd's tools are here, and examine files of services that do not run: version 250 and newer."""
    if shutil.which("systemd-analyze") is None:
        return False
    return "--offline" in subprocess.run(["systemd-analyze", "--help"], capture_output=True, text=True).stdout


pytestmark = pytest.mark.skipif(not offline_analysis(), reason="systemd-analyze 250 or newer is not installed")


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    text = (DEPLOY / "edge-lsla.service").read_text()
    assert "\nExecStart=/opt/edge-lsla/bin/edge-lsla run /etc/edge-lsla/field.toml\n" in text
    unit = tmp_path / "edge-lsla.service"
    # The command is not installed on this machine, and systemd looks.
    unit.write_text(text.replace("/opt/edge-lsla/bin/edge-lsla", "/bin/true"))
    token = tmp_path / "edge-lsla-token.service"
    shutil.copy(DEPLOY / token.name, token)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit, token], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.strip()) == (0, ""), done.stderr
    assert "\nWants=edge-lsla-token.service\nAfter=edge-lsla-token.service\n" in text
    for name in ("Type=notify", "WatchdogSec=90", "Restart=on-failure", "StartLimitBurst=40", "NoNewPrivileges=yes",
                 "CapabilityBoundingSet=", "ProtectSystem=strict"):  # fmt: skip
        assert f"\n{name}\n" in text


def test_a_mistake_in_the_unit_is_found(tmp_path: Path) -> None:
    """What the test above relies on."""
    unit = tmp_path / "edge-lsla.service"
    text = (DEPLOY / "edge-lsla.service").read_text().replace("/opt/edge-lsla/bin/edge-lsla", "/bin/true")
    unit.write_text(text.replace("ProtectSystem=strict", "ProtectSystem=very"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert "Failed to parse protect system value" in done.stderr


@pytest.mark.parametrize("unit", ["edge-lsla.service", "edge-lsla-token.service"])
def test_the_service_is_little_exposed(unit: str) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSURE}"]
    done = subprocess.run([*command, DEPLOY / unit], capture_output=True, text=True, check=False)
    score = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert score is not None, done.stderr
    print(score[0])
    assert done.returncode == 0, done.stdout
    assert float(score[1]) <= MOST_EXPOSURE / 10
