"""The scripts, really run, below a folder that stands for a device."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

PYTHON = f"python3.{sys.version_info.minor}"


def sh(*arguments: object, code: int = 0) -> str:
    done = subprocess.run([str(one) for one in arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def may(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def says(word: str, *command: str) -> bool:
    return may(*command) and word in sh(*command)


def with_packages() -> dict[str, str]:
    """The variables of a process that finds the packages of this environment too."""
    return {**os.environ, "PYTHONPATH": next(path for path in sys.path if path.endswith("site-packages"))}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as it is shipped."""
    folder = tmp_path_factory.mktemp("shipped") / "deploy"
    shutil.copytree(DEPLOY, folder)
    return folder


@pytest.fixture(scope="module")
def installed(scripts: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A device's root with the service in it, and what the installer said; its packages are this environment's."""
    root = tmp_path_factory.mktemp("device")
    return root, install(scripts, wheel, root)


def install(scripts: Path, wheel: Path, root: Path, *more: str) -> str:
    return sh("sh", scripts / "install.sh", "--wheel", wheel, "--python", sys.executable, "--destdir", root, "--extras",
              "cli", *more, "--", "--no-deps")  # fmt: skip


def modes(root: Path) -> dict[str, str]:
    places = [path for path in (root / "etc").rglob("*") if not path.is_symlink()]
    return {str(path.relative_to(root)): oct(stat.S_IMODE(path.stat().st_mode)) for path in places}


def test_it_installs_all_that_a_device_needs(installed: tuple[Path, str]) -> None:
    root, said = installed
    assert "==> done" in said
    assert {name: mode for name, mode in modes(root).items() if "edge-lsla" in name} == {
        "etc/edge-lsla": "0o755",
        "etc/edge-lsla/trusted-keys": "0o755",
        "etc/edge-lsla/secrets": "0o700",
        "etc/edge-lsla/secrets/mqtt-password": "0o600",
        "etc/edge-lsla/secrets/webhook-token": "0o600",
        "etc/edge-lsla/secrets/status-token": "0o600",
        "etc/edge-lsla/secrets/camera": "0o600",
        "etc/edge-lsla/field.toml": "0o640",
        "etc/systemd/system/edge-lsla.service": "0o644",
        "etc/systemd/system/edge-lsla-token.service": "0o644",
        "etc/systemd/journald.conf.d/edge-lsla.conf": "0o644",
        "etc/sysusers.d/edge-lsla.conf": "0o644",
        "etc/tmpfiles.d/edge-lsla.conf": "0o644",
    }
    # All devices made of an image would share what were drawn here.
    assert [path.read_text() for path in (root / "etc/edge-lsla/secrets").iterdir()] == [""] * 4
    assert "token for the status page is drawn at the service's first start" in said
    assert (root / "usr/local/bin/edge-lsla").readlink() == Path("/opt/edge-lsla/bin/edge-lsla")
    # Nothing of it knows the folder in which the image was made.
    assert [path for path in root.rglob("*") if path.is_file() and bytes(root) in path.read_bytes()] == []
    environment = root / "opt/edge-lsla"
    assert (environment / "bin/python").readlink() == Path("/usr/bin/python3")
    assert {(environment / "bin" / name).readlink() for name in ("python3", PYTHON)} == {Path("python")}
    assert "\nhome = /usr/bin\n" in "\n" + (environment / "pyvenv.cfg").read_text()
    assert (environment / "bin/edge-lsla").read_text().startswith("#!/opt/edge-lsla/bin/python\n")


@pytest.mark.skipif(
    Path("/usr/bin/python3").resolve().name != PYTHON
    or not may("unshare", "-rm", "mount", "-t", "tmpfs", "none", "/opt"),
    reason="no mounts of one's own here, or the system's Python is another",
)
def test_the_image_runs_where_it_will_lie(installed: tuple[Path, str]) -> None:
    root, _ = installed
    mounts = 'mount -t tmpfs none /opt; mkdir /opt/edge-lsla; mount --bind "$1" /opt/edge-lsla'
    script = f"{mounts}; /opt/edge-lsla/bin/edge-lsla --help"
    command = ["unshare", "-rm", "sh", "-ec", script, "sh", root / "opt/edge-lsla"]
    said = subprocess.run(command, env=with_packages(), capture_output=True, text=True, check=True).stdout
    assert "infer" in said


@pytest.mark.skipif(not says("--root", "systemd-analyze", "--help"), reason="systemd-analyze 250 is not installed")
def test_the_images_units_are_whole(installed: tuple[Path, str]) -> None:
    root, _ = installed
    verify = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", f"--root={root}", "edge-lsla.service"]
    assert sh(*verify) == ""  # the program that it names is looked for as well


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd is not installed")
def test_the_image_makes_its_user_and_starts_the_service(installed: tuple[Path, str], tmp_path: Path) -> None:
    root = tmp_path / "image"
    shutil.copytree(installed[0] / "etc", root / "etc", symlinks=True)
    link = root / "etc/systemd/system/multi-user.target.wants/edge-lsla.service"
    assert link.readlink() == Path("/etc/systemd/system/edge-lsla.service")
    assert (root / "etc/systemd/system/edge-lsla.service").is_file()
    sh("systemd-sysusers", f"--root={root}", "edge-lsla.conf")  # what happens when it first starts
    (user,) = re.findall("(?m)^edge-lsla:x:[0-9]+:([0-9]+):", (root / "etc/passwd").read_text())
    groups = dict(re.findall("(?m)^([^:]+):x:([0-9]+):", (root / "etc/group").read_text()))
    assert groups["edge-lsla"] == user
    assert {"video", "render"} <= groups.keys()
    if os.geteuid() == 0:
        sh("systemd-tmpfiles", f"--root={root}", "--create", "edge-lsla.conf")
        config = (root / "etc/edge-lsla/field.toml").stat()
        assert (config.st_uid, config.st_gid, stat.S_IMODE(config.st_mode)) == (0, int(user), 0o640)


def test_an_image_may_start_by_hand_and_has_one_python(scripts: Path, wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/python3").symlink_to("python3.2")
    arguments = ["--dry-run", "--wheel", wheel, "--python", sys.executable, "--destdir", tmp_path]
    said = sh("sh", scripts / "install.sh", *arguments, code=3)
    assert f"the image has python3.2, and {sys.executable} is {PYTHON}; give that version with --python" in said
    assert "multi-user" in sh("sh", scripts / "install.sh", *arguments, "--image-python", "/opt/python/bin/python3")
    said = sh("sh", scripts / "install.sh", *arguments, "--image-python", "/opt/python/bin/python3", "--no-start")
    assert "multi-user" not in said
    assert "/opt/edge-lsla /opt/python/bin/python3" in said


def test_each_device_draws_a_token_of_its_own(tmp_path: Path) -> None:
    text = (DEPLOY / "edge-lsla-token.service").read_text()
    assert "ConditionFileNotEmpty=!/etc/edge-lsla/secrets/status-token\n" in text
    (command,) = re.findall('ExecStart=/bin/sh -c "(.*)"\n', text)
    tokens = set()
    for device in ("one", "two"):
        secrets = tmp_path / device
        secrets.mkdir()
        (secrets / "status-token").touch(0o600)
        sh("sh", "-c", "umask 0077; " + command.replace("/etc/edge-lsla/secrets", str(secrets)))
        (token,) = secrets.iterdir()
        assert (token.name, stat.S_IMODE(token.stat().st_mode)) == ("status-token", 0o600)
        assert re.fullmatch("[0-9a-f]{48}", token.read_text())
        tokens.add(token.read_text())
    assert len(tokens) == 2


def test_again_it_changes_nothing_and_keeps_what_is_the_operators(
    installed: tuple[Path, str], scripts: Path, wheel: Path
) -> None:
    root, _ = installed
    config, token = root / "etc/edge-lsla/field.toml", root / "etc/edge-lsla/secrets/status-token"
    config.write_text("# mine\n")
    token.write_text("mine too\n")
    before = modes(root)
    said = install(scripts, wheel, root)
    assert config.read_text() == "# mine\n"
    assert token.read_text() == "mine too\n"
    assert modes(root) == before
    assert said.count("is as it should be") == 6
    assert "is drawn" not in said
    assert "left as it is" in said
    data = root / "var/lib/edge-lsla/records"
    data.mkdir(parents=True)
    sh("sh", scripts / "uninstall.sh", "--destdir", root)
    assert not (root / "opt/edge-lsla").exists()
    assert not (root / "usr/local/bin/edge-lsla").is_symlink()
    assert [path for path in (root / "etc").rglob("edge-lsla*") if path.is_file() or path.is_symlink()] == []
    assert config.read_text() == "# mine\n"
    assert data.is_dir()
    sh("sh", scripts / "uninstall.sh", "--destdir", root, "--purge")
    assert not data.exists()
    assert not config.exists()


def test_a_dry_run_touches_nothing(scripts: Path, wheel: Path, tmp_path: Path) -> None:
    said = sh("sh", scripts / "install.sh", "--dry-run", "--wheel", wheel, "--python", sys.executable)
    assert "would run: systemctl enable edge-lsla" in said
    assert "would run: systemd-sysusers /etc/sysusers.d/edge-lsla.conf" in said
    for name in ("edge-lsla.service", "edge-lsla-token.service", "journald.conf", "sysusers.conf", "tmpfiles.conf"):
        assert re.search(rf"would run: install -D -m 0644 {scripts}/{name} /etc/\S+", said), name
    assert "/tmp/tmp." not in said
    assert not Path("/opt/edge-lsla").exists()
    said = sh("sh", scripts / "install.sh", "--dry-run", "--wheel", wheel, "--python", sys.executable, "--destdir",
              tmp_path, "--prefix", "/srv/pests")  # fmt: skip
    assert "edge-lsla.service (with /srv/pests in it)\n" in said
    said = sh("sh", scripts / "uninstall.sh", "--dry-run", "--purge")
    assert "would run: systemctl disable --now edge-lsla" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--no-such"], 2, "unknown option"),
        (["--wheel"], 2, "needs a value"),
        (["--wheel", "/nowhere.whl"], 2, "no such wheel"),
        (["--prefix", "/"], 2, "absolute path"),
        (["--prefix", "opt"], 2, "absolute path"),
        (["--destdir", "root"], 2, "absolute path"),
        (["--python", "no-such-python"], 3, "is missing"),
    ],
)
def test_it_refuses_with_a_sentence(arguments: list[str], code: int, words: str) -> None:
    assert words in sh("sh", DEPLOY / "install.sh", *arguments, code=code)


def test_a_folder_of_somebody_else_is_left_alone(scripts: Path, wheel: Path, tmp_path: Path) -> None:
    precious = tmp_path / "opt/edge-lsla/precious"
    precious.mkdir(parents=True)
    arguments = ["--wheel", wheel, "--python", sys.executable, "--destdir", tmp_path]
    assert "no environment of Python" in sh("sh", scripts / "install.sh", *arguments, code=1)
    assert "no environment of edge-lsla" in sh("sh", scripts / "uninstall.sh", "--destdir", tmp_path, code=1)
    assert precious.is_dir()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_scripts_are_clean() -> None:
    sh("shellcheck", *sorted(DEPLOY.glob("*.sh")), DEPLOY / "edge-lsla-field")


def test_another_prefix_is_what_the_unit_runs(scripts: Path, wheel: Path, tmp_path: Path) -> None:
    install(scripts, wheel, tmp_path, "--prefix", "/srv/pests")
    assert (tmp_path / "srv/pests/bin/edge-lsla").read_text().startswith("#!/srv/pests/bin/python\n")
    unit = (tmp_path / "etc/systemd/system/edge-lsla.service").read_text()
    assert "\nExecStart=/srv/pests/bin/edge-lsla run /etc/edge-lsla/field.toml\n" in unit
    assert "/srv/pests/bin/edge-lsla" in (tmp_path / "usr/local/bin/edge-lsla-field").read_text()
    assert "/opt/edge-lsla" not in unit
