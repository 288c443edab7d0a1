"""One browser, driven as for the calibration report, and one service in trouble, for a file's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.append(str(Path(__file__).parents[1] / "calibration"))

if TYPE_CHECKING:
    from page_browser import PageBrowser
    from status_parts import FieldView


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageBrowser]:
    from page_browser import PROGRAM, PageBrowser

    with PageBrowser(str(PROGRAM), tmp_path_factory.mktemp("profile")) as found:
        assert isinstance(found, PageBrowser)
        yield found


@pytest.fixture(scope="module")
def field() -> Iterator[tuple[FieldView, str]]:
    from status_parts import FieldView, served

    view = FieldView()
    with served(view) as port:
        yield view, f"http://127.0.0.1:{port}/"
