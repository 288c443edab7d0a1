"""Installing again on a device whose service runs: on this machine, with other folders in place of the system's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "slots"))

CONFIG = """
data = "/var/lib/edge-lsla"
[model]
bundle = "{bundle}"
[[cameras]]
name = "trap-1"
source = "synthetic"
[mqtt]
host = "broker.example"
username = "trap-1"
password_file = "/run/credentials/edge-lsla.service/mqtt-password"
[status]
host = "0.0.0.0"
token_file = "/run/credentials/edge-lsla.service/status-token"
"""
# systemd itself does not run here: what it is told is written down.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>{folder}/told
[ "$1" != is-active ] || [ -e {folder}/active ]
"""
MOUNTS = """
for one in etc opt usr/local/bin; do mount --bind "$1/$one" "/$one"; done
mount -t tmpfs none /var/lib
shift
exec "$@"
"""


def may_mount() -> bool:
    try:
        probe = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/opt"]
        return os.geteuid() == 0 and subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(
    not may_mount() or shutil.which("systemd-sysusers") is None, reason="only root may mount, or systemd is missing"
)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of a device, on which the service was installed and not yet configured."""
    folder = tmp_path_factory.mktemp("device")
    for name in ("opt", "usr/local/bin", "programs"):
        (folder / name).mkdir(parents=True)
    subprocess.run(["cp", "-a", "/etc", folder / "etc"], check=True)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    systemctl = folder / "programs/systemctl"
    systemctl.write_text(SYSTEMCTL.format(folder=folder))
    systemctl.chmod(0o755)
    return folder


@pytest.fixture
def install(device: Path) -> Callable[[], tuple[str, list[str]]]:
    """Install there, and return what was said, and what systemd was told."""

    def run() -> tuple[str, list[str]]:
        (device / "told").unlink(missing_ok=True)
        packages = next(path for path in sys.path if path.endswith("site-packages"))
        environment = {**os.environ, "PATH": f"{device}/programs:{os.environ['PATH']}", "PYTHONPATH": packages}
        wheel = next(device.glob("*.whl"))
        command = ["unshare", "-m", "sh", "-ec", MOUNTS, "sh", device, "sh", ROOT / "deploy/install.sh",
                   "--wheel", wheel, "--python", sys.executable, "--extras", "cli", "--", "--no-deps"]  # fmt: skip
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, (device / "told").read_text().splitlines()

    return run


def test_a_service_that_runs_gets_the_new_program_or_says_that_it_has_the_old(
    device: Path, install: Callable[[], tuple[str, list[str]]]
) -> None:
    from slot_parts import write

    said, told = install()  # its configuration names no model that is there
    assert "not started: correct what is said above" in said
    assert "/etc/edge-lsla/pests.lsla" in said
    assert "restart --no-block edge-lsla" not in told
    assert (device / "opt/edge-lsla/bin/edge-lsla").read_text().startswith("#!/opt/edge-lsla/bin/python")

    etc = device / "etc/edge-lsla"
    assert "edge-lsla:x:" in (device / "etc/passwd").read_text()
    (group,) = (line.split(":")[2] for line in (device / "etc/group").read_text().splitlines() if "edge-lsla:" in line)
    assert (etc / "field.toml").stat().st_gid == int(group)

    (device / "active").touch()
    (etc / "field.toml").write_text(CONFIG.format(bundle=write(device / "first.lsla", "first")))
    said, told = install()  # the password is an empty file, and empty means none
    assert "the password is empty or not one line of text: /etc/edge-lsla/secrets/mqtt-password" in " ".join(
        said.split()
    )
    assert "NOT RESTARTED: the service still runs the program that it was started with" in said
    assert "restart --no-block edge-lsla" not in told

    (etc / "secrets/mqtt-password").write_text("secret\n")
    said, told = install()
    assert "restart --no-block edge-lsla" in told
    assert "it starts with what was just installed" in said
    # The token is drawn when the service starts.
    assert "not checked: /run/credentials/edge-lsla.service/status-token" in said
    assert "mqtt-password" not in said
