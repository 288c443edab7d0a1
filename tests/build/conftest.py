"""The real builder on PYTHONPATH, and graphs for it."""

from __future__ import annotations

from collections.abc import Iterator

import build_parts
import pytest
import torch


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers find TensorRT for RTX."""
    monkeypatch.setenv("PYTHONPATH", str(build_parts.RTX))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers find TensorRT for RTX under the name of TensorRT."""
    monkeypatch.setenv("PYTHONPATH", f"{build_parts.STAND_IN}:{build_parts.RTX}")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, bytes]]:
    """The tiny model in every precision."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield build_parts.graphs(build_parts.TINY, tmp_path_factory.mktemp("tiny"))
    torch.set_num_threads(before)
