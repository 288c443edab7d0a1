from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from edge_lsla.atomic import atomic_path, write_text
from edge_lsla.errors import EdgeLslaError, UsageError


def test_a_finished_file_replaces_the_old_one_with_ordinary_permissions(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    write_text(target, "new")
    plain = tmp_path / "plain"
    plain.write_text("")
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interruption_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_text() == "old"


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    full = Path("/dev/full")
    with pytest.raises(EdgeLslaError, match=r"cannot write: .*a\.txt; No space left"), atomic_path(tmp_path / "a.txt"):
        full.write_text("x")
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_a_folder_as_output_and_a_forbidden_folder_are_usage_errors(tmp_path: Path) -> None:
    for target in (tmp_path / "no" / "a.txt", tmp_path):
        with pytest.raises(UsageError), atomic_path(target):
            pytest.fail("must not get here")
    if os.geteuid() != 0:  # root writes anywhere
        tmp_path.chmod(0o500)
        with pytest.raises(UsageError, match="no permission"), atomic_path(tmp_path / "a.txt"):
            pytest.fail("must not get here")


def test_what_a_killed_writer_left_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    old, young, other = (tmp_path / name for name in (".a.txt.01234567.part.txt", ".a.txt.89abcdef.part.txt",
                                                      ".b.txt.01234567.part.txt"))  # fmt: skip
    for path in (old, young, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (0, 0))
    write_text(tmp_path / "a.txt", "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([young.name, other.name, "a.txt"])


def test_devices_and_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(UsageError, match="device or a pipe"), atomic_path(target):
            pytest.fail("must not get here")
