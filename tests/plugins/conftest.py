"""What the plugin's tests share: which TensorRT headers and runtimes each exercises is noted for the summary."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _exercised(request: pytest.FixtureRequest) -> None:
    """Note the parameters "version" (of headers) and "runtime"; tests/conftest.py prints what passed."""
    callspec = getattr(request.node, "callspec", None)
    for name, value in callspec.params.items() if callspec else ():
        if name in ("version", "runtime"):
            what = value.name if isinstance(value, Path) else f"TensorRT {value} headers"
            request.node.user_properties.append(("exercised", what))
