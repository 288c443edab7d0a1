from pathlib import Path

import pytest
import slot_parts


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a tiny network that ONNX Runtime runs."""
    return slot_parts.write(tmp_path_factory.mktemp("first") / "first.lsla", "first")


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another bundle, as good as the first: the same network under another name."""
    return slot_parts.write(tmp_path_factory.mktemp("second") / "second.lsla", "second")


@pytest.fixture(scope="session")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that is whole, but whose golden set the device does not reproduce."""
    return slot_parts.write(tmp_path_factory.mktemp("failing") / "failing.lsla", "failing", logits_off_by=3.0)
