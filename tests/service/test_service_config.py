"""The configuration: validated whole, mistakes named with their place, unknown keys refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from edge_lsla.console import verb
from edge_lsla.errors import UsageError
from edge_lsla.service.config import CameraConfig, read_config

CAMERA = '[[cameras]]\nname = "trap-1"\nsource = "synthetic"\n'
WHOLE = """
data = "/var/lib/edge-lsla"
device = "orchard-7"
[model]
bundle = "pests.lsla"
precision = "int8"
[[cameras]]
name = "trap-1"
source = "rtsp://camera.local/stream"
[cameras.opening]
size = [640, 480]
rate = 30
[cameras.supervision]
reset_commands = [["usbreset", "046d:0825"]]
[cameras.finding]
regions = "grid"
[cameras.finding.track]
lost_seconds = 5
[[cameras]]
name = "trap-2"
source_file = "/run/credentials/trap-2"
[records]
max_mb = 500
[mqtt]
host = "broker.example"
username = "trap"
password_file = "/run/credentials/mqtt"
[webhook]
url = "https://example.org/events"
[status]
port = 9000
[slots]
require_signature = true
[governor]
[stages]
hang_seconds = 60
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "field.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_whole_file(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, WHOLE))
    first, second = config.cameras
    assert (config.device, config.model.precision) == ("orchard-7", "int8")
    assert first.opening.size == (640, 480)
    assert first.supervision.reset_commands == (("usbreset", "046d:0825"),)
    assert (first.finding.regions, first.finding.track.lost_seconds) == ("grid", 5.0)
    assert second.source_file == Path("/run/credentials/trap-2")
    assert config.mqtt is not None
    assert config.mqtt.address == ("broker.example", 8883)
    assert (config.status.port, config.slots.require_signature, config.stages.hang_seconds) == (9000, True, 60.0)


def test_the_shortest_file(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, f'data = "d"\n{CAMERA}'))
    assert config.cameras[0].address() == "synthetic"
    assert config.mqtt is None
    assert config.webhook is None
    assert config.status.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('data = "d"\n[cameras]\nname = "a"\nsource = "0"\n', "cameras: write [[cameras]]"),
        (f'data = "d"\n{CAMERA}[[cameras]]\nname = "../x"\nsource = "0"\n', "camera 2 ('../x'): name: a name has"),
        (f'data = "d"\n[[cameras]]\nname = "{"x" * 65}"\nsource = "0"\n', "camera 1: name: a name has letters"),
        ('data = "d"\n[[cameras]]\nname = "a"\nsource = "rtsp//oops"\n', "camera 'a': source: a URL has ://"),
        ('data = "d"\n[[cameras]]\nname = "a"\nsource = "HTTP:/oops"\n', "camera 'a': source: a URL has ://"),
        ("", "data: field required"),
        ('data = "d"\n', "1 to 16 cameras are needed"),
        (f'data = "d"\nspeed = 1\n{CAMERA}', "speed: no such key"),
        (f'data = "d"\n{CAMERA}[cameras.finding]\nregion = "full"\n', "camera 'trap-1': finding.region: no such key"),
        (f'data = "d"\n{CAMERA}[cameras.finding.track]\nlost = 3\n', "finding.track.lost: no such key"),
        (f'data = "d"\n{CAMERA}[cameras.finding]\nregions = "all"\n', "unknown regions 'all'"),
        (f'data = "d"\n{CAMERA}[cameras.finding.track]\nconfirm_frames = 0\n', "confirm_frames: a number from 2"),
        (f'data = "d"\n{CAMERA}{CAMERA}', "two cameras have the same name, 'trap-1'"),
        (f'data = "d"\n{CAMERA.replace("trap-1", "../x")}', "a name has letters"),
        (f'data = "d"\ndevice = "a/b"\n{CAMERA}', "device: a name has letters"),
        (
            f'data = "d"\n{CAMERA}[status]\nhost = "0.0.0.0"\n',
            "status.host: the status page would be open to the network at 0.0.0.0; set token_file",
        ),
        (f'data = "d"\n{CAMERA}[mqtt]\n', "mqtt.host: field required"),
        (f'data = "d"\n{CAMERA}[mqtt]\nhost = "b"\npassword = "x"\n', "mqtt.password: no such key"),
        (f'data = "d"\n{CAMERA}[records]\nmax_mb = "many"\n', "records.max_mb: input should be a valid number"),
        (f'data = "d"\n{CAMERA}[records]\nmax_mb = 0\n', "at least 1 MB"),
        (f'data = "d"\n{CAMERA}[stages]\nhang_seconds = nan\n', "a time is above 0"),
        ('data = ""\n' + CAMERA, "data: not the name of a file or folder"),
        ('data = "a\\u0000b"\n' + CAMERA, "data: not the name of a file or folder"),
        (f'data = "{"d/" * 2500}"\n{CAMERA}', "data: a path has at most 2048 bytes"),
        (f'data = "{"d" * 256}"\n{CAMERA}', "data: a path has at most 2048 bytes, 255 between two slashes"),
        (f'data = "d"\n{CAMERA}source_file = "a\\u0000"\n', "camera 'trap-1': source_file: not the name of a file"),
        (f'data = "d"\n{CAMERA}[mqtt]\nhost = "b"\nca_file = "a\\u0000"\n', "mqtt.ca_file: not the name of a file"),
        (f'data = "d"\n{CAMERA}[cameras.opening]\npictures = ["a\\u0000"]\n', "opening.pictures: not the name of a"),
        (f'data = "d"\n{CAMERA}[slots]\ntrusted_keys = "{"k/" * 2500}"\n', "slots.trusted_keys: a path has at most"),
        (
            f'data = "d"\n{CAMERA}[cameras.supervision]\nreset_commands = "x"\n',
            "reset_commands: input should be a list",
        ),
        ('data = "d"\n[[cameras]]\nname = "a"\n', "camera 'a': source_file: give one of source and source_file"),
        (
            f'data = "d"\n{CAMERA}source_file = "f"\n',
            "camera 'trap-1': source_file: give one of source and source_file",
        ),
        ('data = "d"\n[[cameras]]\nsource = "0"\n', "camera 1: name: field required"),
        ('data = "d"\ncameras = [1]\n', "camera 1: input should be a table of keys"),
        (f'data = "d"\n{CAMERA}[model]\nbundle = ""\n', "model.bundle: not the name of a file"),
        (f'data = "d"\n{CAMERA}[model]\nbatch = {"9" * 5000}\n', "not a TOML file"),
        (f'data = "d"\n{CAMERA}[model]\nbatch = 0x{"f" * 5000}\n', "model.batch: "),
        (f'data = "d"\n{CAMERA}[records]\nmax_mb = 0x{"f" * 5000}\n', "records.max_mb: "),
        ("data = ", "not a TOML file"),
        ("data = 'a\x00b'", "not a TOML file"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_config(written(tmp_path, text))
    assert said in str(caught.value)
    assert str(tmp_path / "field.toml") in str(caught.value)


MISTAKEN = """
data = 5
[[cameras]]
name = "trap-1"
source = "synthetic"
[cameras.finding]
regions = "all"
padding = 9
[cameras.finding.track]
confirm_frames = 0
lost_seconds = -1
[cameras.finding.motion]
bogus = 1
[status]
port = 99999
"""


def test_all_mistakes_are_named_at_once_also_those_of_a_section_in_a_section(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_config(written(tmp_path, MISTAKEN))
    said = caught.value.details["mistakes"]
    assert {one.split(":")[0] if "camera" not in one else one.rpartition(": ")[0] for one in said} == {
        "data",
        "status.port",
        *(f"camera 'trap-1': finding.{key}" for key in ("regions", "padding", "motion.bogus")),
        *(f"camera 'trap-1': finding.track.{key}" for key in ("confirm_frames", "lost_seconds")),
    }
    assert len(said) == 7
    with pytest.raises(UsageError, match=r"; and 2 more$") as many:
        read_config(written(tmp_path, MISTAKEN + "".join(f"a{number} = 1\n" for number in range(15))))
    assert len(many.value.details["mistakes"]) == 21


def test_a_mistake_hides_no_other_and_makes_none(tmp_path: Path) -> None:
    def mistakes(cameras: str) -> list[str]:
        with pytest.raises(UsageError) as caught:
            read_config(written(tmp_path, f'data = "d"\n{cameras}'))
        return sorted(caught.value.details["mistakes"])

    name = "camera 1 ('a/b'): name: a name has letters, digits, '.', '_' and '-', at most 64"
    both = "camera 1 ('a/b'): source_file: give one of source and source_file"
    assert mistakes('[[cameras]]\nname = "a/b"\nsource = "0"\nsource_file = "f"\n') == [name, both]
    assert mistakes('[[cameras]]\nname = "a/b"\n') == [name, both]
    (one,) = mistakes('[[cameras]]\nname = "a"\nsource = 0.5\n')
    assert one.startswith("camera 'a': source: input should be a valid string")
    (one,) = mistakes('[[cameras]]\nname = "a"\nsource_file = 5\n')
    assert one.startswith("camera 'a': source_file: input is not a valid path")


def test_a_cameras_number_may_be_a_number(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, 'data = "d"\n[[cameras]]\nname = "a"\nsource = 0\n'))
    assert config.cameras[0].address() == "0"


def test_each_mistake_is_printed_on_a_line_of_its_own(tmp_path: Path) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)
    verb(app, "read")(lambda: {"read": str(read_config(written(tmp_path, MISTAKEN)))})
    lines = CliRunner().invoke(app, ["read"]).stderr.splitlines()
    assert lines[0] == f"error: the configuration has mistakes: {tmp_path / 'field.toml'}"
    assert len(lines) == 8
    assert sum(line.startswith("  camera 'trap-1': finding.") for line in lines[1:]) == 5
    told = json.loads(CliRunner().invoke(app, ["read", "--json"]).stdout)
    assert told["mistakes"] == [line.strip() for line in lines[1:]]
    assert "; ".join(told["mistakes"]) in told["error"]


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path / "absent.toml", "No such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "pipe", "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
    ):
        with pytest.raises(UsageError, match=said):
            read_config(path)
    with pytest.raises(UsageError, match="at most 1 MB"):
        read_config(written(tmp_path, "#" * (1 << 20) + "\n"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not a TOML file"):
        read_config(tmp_path / "binary.toml")


def test_an_editors_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "field.toml").write_text(WHOLE, encoding="utf-8-sig")
    assert read_config(tmp_path / "field.toml") == read_config(written(tmp_path, WHOLE))


def test_a_value_that_may_be_secret_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_config(written(tmp_path, f'data = "d"\n{CAMERA}[mqtt]\nhost = "b"\npassword_env = "pa ss-word"\n'))
    assert "pa ss-word" not in str(caught.value)


def test_a_source_comes_from_its_file(tmp_path: Path) -> None:
    secret = tmp_path / "source"
    secret.write_text("rtsp://user:word@camera.local/1\n", encoding="utf-8")
    camera = from_file(secret)
    assert camera.address() == "rtsp://user:word@camera.local/1"
    secret.unlink()
    with pytest.raises(UsageError, match="cannot read the camera's source"):
        camera.address()


def from_file(file: Path) -> CameraConfig:
    return CameraConfig.model_validate({"name": "a", "source_file": file})


@pytest.mark.parametrize(
    "content",
    [
        "admin:hunter2@10.0.0.5:554/stream",
        "rtsp:/admin:hunter2@h/x",
        "rtsp//admin:hunter2@h/x",
        '"rtsp://admin:hunter2@h/x"',
        "rtsp://admin:hunter2",
        "hunter2",
        "74635281",
        "root:hunter2:1:0:99999:7:::\ndaemon:*:1:0:99999:7:::\n",
        "/dev/video0\nhunter2",
        "hunter2" * 1000,
        "hunter2\0",
        "hunter2\xff",
        "",
    ],
)
def test_what_a_source_file_holds_is_never_shown(content: str, tmp_path: Path) -> None:
    file = tmp_path / "source"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        from_file(file).address()
    said = str(caught.value)
    assert said.startswith(f"the file does not name a source that can be opened: {file}; ")
    assert "hunter2" not in said
    assert "admin" not in said
    assert "74635281" not in said
    assert caught.value.__context__ is None


def test_a_source_file_may_name_a_camera_that_is_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("/dev/video987\n")
    assert from_file(tmp_path / "source").address() == "/dev/video987"


def test_a_source_file_that_never_ends_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UsageError, match=f"cannot read the camera's source: {file}; not a regular file"):
            from_file(file).address()
