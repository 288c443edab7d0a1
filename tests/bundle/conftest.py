from pathlib import Path

import bundle_parts
import pytest


@pytest.fixture(scope="session")
def bundle_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of three artifacts; read only."""
    path = tmp_path_factory.mktemp("bundle") / "demo.lsla"
    bundle_parts.write(path)
    return path


@pytest.fixture(scope="session")
def bundle_bytes(bundle_file: Path) -> bytes:
    return bundle_file.read_bytes()
