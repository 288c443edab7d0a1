"""What was recorded as root, met by the service's user."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_lsla.errors import UsageError
from edge_lsla.events import Event
from edge_lsla.records.store import Store
from edge_lsla.service.checking import check_config
from edge_lsla.service.config import Config
from edge_lsla.service.ownership import warn_root
from edge_lsla.service.parts import opened_parts

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
USER = 65534  # nobody


@contextlib.contextmanager
def as_user() -> Iterator[None]:
    os.seteuid(USER)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def config() -> Iterator[Config]:
    """Records that root made in the folder of another user, who can reach it."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "data").mkdir()
        os.chown(root / "data", USER, -1)
        with Store(root / "data") as store:
            store.record(Event(kind="arrived", time=1.0), b"crop")
        cameras = [{"name": "trap-1", "source": "synthetic"}]
        yield Config.model_validate({"data": root / "data", "cameras": cameras, "status": {"enabled": False}})


def wrong_data(config: Config) -> str | None:
    first = check_config(config, has_demo=True)[0]
    assert first.text.startswith("data: ")
    return None if first.good else first.text


def test_the_service_says_what_to_run_and_that_mends_it(config: Config) -> None:
    said = wrong_data(config)  # root, who looks with --check, learns it too (and loads what only root may read here)
    with as_user():
        words = "this belongs to root, and the service's user nobody cannot"
        with pytest.raises(UsageError, match=words) as caught, opened_parts(config, None, print):
            pass
        assert wrong_data(config) == said
    assert str(config.data / "events.") in str(caught.value)
    assert said == f"data: {caught.value}"
    assert caught.value.remedy is not None
    subprocess.run(caught.value.remedy.removeprefix("run: sudo ").split(), check=True)
    assert wrong_data(config) is None
    with as_user():
        assert wrong_data(config) is None
        with Store(config.data) as store:
            assert store.state.events == 1
            store.record(Event(kind="arrived", time=2.0), b"crop")


def test_a_folder_of_crops_is_enough(config: Config) -> None:
    for path in (config.data, *config.data.glob("events.*")):
        os.chown(path, USER, -1)
    said = wrong_data(config)
    assert said is not None
    assert f": {config.data / 'crops'};" in said


def test_what_an_administrator_puts_there_is_no_mistake(config: Config) -> None:
    subprocess.run(["chown", "-R", str(USER), str(config.data)], check=True)
    (config.data / "new.lsla").write_bytes(b"a bundle, for the service to read")
    with as_user():
        assert wrong_data(config) is None


def test_root_is_warned_before_it_writes(config: Config) -> None:
    subprocess.run(["chown", "-R", str(USER), str(config.data)], check=True)
    (first, *_) = check_config(config, has_demo=True)
    assert "this runs as root, and nobody could not open what it writes to" in first.text
    assert f"chown -R nobody: {config.data}" in first.text
    with as_user():
        assert warn_root(config.data) is None
    os.chown(config.data, 0, 0)
    assert warn_root(config.data) is None
