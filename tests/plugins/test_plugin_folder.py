"""Whose folder a build works in: its own, a new one, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_lsla.errors import UsageError
from plugins.folder import LOCK, MARKER, WORK, check_folder, exclusive


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ["cmake/CMakeLists.txt", "logs/today.log", "notes.txt", "kernels/index.json"])
def test_a_folder_of_somebody_else_is_refused_and_kept(name: str, tmp_path: Path) -> None:
    theirs = tmp_path / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text('{"entries": []}')
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="this folder holds what no build wrote"), exclusive(tmp_path):
        pass
    assert contents(tmp_path) == before


def test_new_empty_and_own_folders_are_taken_and_marked(tmp_path: Path) -> None:
    old = tmp_path / "old"
    (old / "kernels").mkdir(parents=True)
    (old / "kernels" / "index.json").write_text('{"format": 1, "operator_version": 1}')  # before there was a marker
    (old / "cmake").mkdir()
    empty = tmp_path / "empty"
    empty.mkdir()
    locked = tmp_path / "locked"  # by a build that begins at this moment
    locked.mkdir()
    (locked / LOCK).touch()
    for folder in (old, empty, locked, tmp_path / "new" / "deep"):
        for _ in range(2):
            with exclusive(folder) as work:
                assert work == folder / WORK
                assert not list(work.iterdir())
        assert "plugin build" in (folder / MARKER).read_text()
        assert not work.exists()
        check_folder(folder)


@pytest.mark.parametrize("name", [WORK, "logs", "cache", "cmake", "cmake-aarch64", LOCK, MARKER])
def test_a_link_in_place_of_its_own_is_refused_and_not_followed(name: str, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "precious").write_text("data")
    out = tmp_path / "out"
    with exclusive(out):
        pass
    (out / name).unlink(missing_ok=True)
    (out / name).symlink_to(theirs / "precious" if name in (LOCK, MARKER) else theirs)
    with pytest.raises(UsageError, match=rf"is a link or no such thing: {out / name}; remove it"), exclusive(out):
        pass
    assert (theirs / "precious").read_text() == "data"
    assert contents(theirs) == {"precious"}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write here"):
        check_folder(tmp_path / "file")
