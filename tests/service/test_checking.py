"""What `run --check` says of secrets that systemd hands over, of pictures, and of the demo bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_lsla.service.checking import Finding, check_config
from edge_lsla.service.config import read_config
from edge_lsla.service.credentials import Credentials

UNIT = """[Service]
# LoadCredential=commented:/nowhere
LoadCredential=mqtt-password:{secrets}/mqtt-password
LoadCredential=status-token:{secrets}/status-token
LoadCredential=camera:{secrets}/camera
SetCredential=fixed:text
"""
CONFIG = """
data = "{folder}/data"
[[cameras]]
name = "trap-1"
{camera}
{more}
"""


class Device:
    """A unit with its secrets, and a configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.units, self.secrets = folder, folder / "units", folder / "secrets"
        self.run = folder / "run/edge-lsla.service"
        self.units.mkdir()
        self.secrets.mkdir()
        (self.units / "edge-lsla.service").write_text(UNIT.format(secrets=self.secrets))

    def check(self, more: str = "", camera: str = 'source = "synthetic"') -> list[Finding]:
        path = self.folder / "field.toml"
        path.write_text(CONFIG.format(folder=self.folder, camera=camera, more=more))
        credentials = Credentials((self.folder / "absent", self.units), self.folder / "run")
        return check_config(read_config(path), has_demo=True, credentials=credentials)

    def mqtt(self, name: str = "mqtt-password") -> list[Finding]:
        return self.check(f'[mqtt]\nhost = "b"\nusername = "u"\npassword_file = "{self.run / name}"\n')


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def wrong(found: list[Finding]) -> list[str]:
    return [one.text for one in found if not one.good]


def unlooked(found: list[Finding]) -> list[str]:
    return [one.text for one in found if not one.looked]


def test_the_file_that_the_unit_hands_over_is_looked_at(device: Device) -> None:
    (one,) = wrong(device.mqtt())
    assert one.startswith("mqtt: the file that edge-lsla.service hands over as mqtt-password is missing: ")
    assert str(device.secrets / "mqtt-password") in one
    (device.secrets / "mqtt-password").touch()
    (one,) = wrong(device.mqtt())
    assert one.startswith(f"mqtt: the password is empty or not one line of text: {device.secrets / 'mqtt-password'}")
    (device.secrets / "mqtt-password").write_text("secret\n")
    found = device.mqtt()
    assert (wrong(found), unlooked(found)) == ([], [])


def test_a_credential_that_the_unit_lacks_is_a_mistake(device: Device) -> None:
    (one,) = wrong(device.mqtt("mqtt-pasword"))
    assert "edge-lsla.service hands over no such credential" in one
    assert "LoadCredential=mqtt-pasword:FILE" in one
    added = device.units / "edge-lsla.service.d/override.conf"
    added.parent.mkdir()
    (device.secrets / "mine").write_text("secret\n")
    added.write_text(f"[Service]\nLoadCredential=mqtt-pasword:{device.secrets / 'mine'}\n")
    assert wrong(device.mqtt("mqtt-pasword")) == []
    added.write_text("[Service]\nLoadCredential=\n")
    assert "hands over no such credential" in wrong(device.mqtt())[0]


@pytest.mark.parametrize("case", ["no unit", "no file", "pattern"])
def test_what_cannot_be_looked_at_is_said_and_is_no_mistake(device: Device, case: str) -> None:
    name = "fixed" if case == "no file" else "mqtt-password"
    if case == "no unit":
        (device.units / "edge-lsla.service").unlink()
    if case == "pattern":
        (device.units / "edge-lsla.service").write_text("[Service]\nImportCredential=mqtt*\n")
    found = device.mqtt(name)
    assert wrong(found) == []
    (one,) = unlooked(found)
    assert one.startswith(f"not checked: {device.run / name} is handed over by systemd")


def test_inside_the_unit_the_credential_itself_is_read(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(device.run))
    assert "No such file" in wrong(device.mqtt())[0]
    device.run.mkdir(parents=True)
    (device.run / "mqtt-password").write_text("secret\n")
    assert wrong(device.mqtt()) == []


def test_other_files_that_are_missing_stay_mistakes(device: Device) -> None:
    (one,) = wrong(device.check('[webhook]\nurl = "https://b/"\ntoken_file = "/run/credentials-of-mine/token"\n'))
    assert "No such file" in one


def test_the_token_may_be_drawn_later(device: Device) -> None:
    token, more = device.secrets / "status-token", f'[status]\ntoken_file = "{device.run / "status-token"}"\n'
    token.touch()
    found = device.check(more)
    assert (wrong(found), len(unlooked(found))) == ([], 1)
    token.write_text("short")
    assert "a token has 16" in wrong(device.check(more))[0]
    token.write_text("0123456789abcdef")
    found = device.check(more)
    assert (wrong(found), unlooked(found)) == ([], [])


def test_a_cameras_source_is_looked_at_behind_its_credential(device: Device) -> None:
    camera = f'source_file = "{device.run / "camera"}"'
    (device.secrets / "camera").write_text("rtsp//admin:hunter2@camera/1\n")
    (one,) = wrong(device.check(camera=camera))
    assert one.startswith("camera trap-1: the file does not name a source that can be opened")
    assert "hunter2" not in one
    (device.secrets / "camera").write_text("synthetic\n")
    assert wrong(device.check(camera=camera)) == []
    (device.units / "edge-lsla.service").unlink()
    found = device.check(camera=camera)
    assert (wrong(found), len(unlooked(found))) == ([], 1)


@pytest.mark.parametrize(
    ("opening", "words"),
    [('pictures = ["/nope.jpg"]', "/nope.jpg"), ("insects = 3", "cut out of pictures"), ("size = [5000, 64]", "size")],
)
def test_what_a_synthetic_camera_lacks_is_found(device: Device, opening: str, words: str) -> None:
    (one,) = wrong(device.check(f"[cameras.opening]\n{opening}\n"))
    assert one.startswith("camera trap-1: ")
    assert words in one


def test_the_demo_bundle_has_no_signature(device: Device) -> None:
    assert wrong(device.check()) == []
    more = f'[slots]\nrequire_signature = true\ntrusted_keys = "{device.folder}"\n'
    (one,) = wrong(device.check(more))
    assert one.startswith("model: the demo bundle is not signed: slots.require_signature; ")
