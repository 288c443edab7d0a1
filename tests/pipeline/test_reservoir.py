"""The reservoir: a uniform sample of all frames, bounded, whole after restarts and power cuts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration.splits import divide
from edge_lsla.errors import UsageError
from edge_lsla.pipeline.frames import Frame
from edge_lsla.pipeline.reservoir import LONGEST_SIDE, SAVED_EVERY, STATE, Reservoir, ReservoirSettings, draw

NOON = 1_767_225_600.0  # 2026-01-01T00:00:00Z


@dataclass(frozen=True)
class Seen:
    frame: Frame


def seen(number: int, shape: tuple[int, int] = (8, 8)) -> Seen:
    """A frame of one grey level, ten a minute."""
    pixels = np.full((*shape, 3), number % 256, np.uint8)
    return Seen(Frame(pixels, NOON + 6 * number, number, "test", live=True))


def fill(folder: Path, numbers: range, settings: ReservoirSettings) -> Reservoir:
    with Reservoir(folder, settings) as reservoir:
        for number in numbers:
            reservoir.write(seen(number))
    return reservoir


def kept(folder: Path) -> list[tuple[str, int]]:
    """Names of the pictures, and the grey levels that tell which frames they are."""
    return [(path.name, int(np.asarray(Image.open(path)).mean().round())) for path in sorted(folder.glob("*.jpg"))]


def test_the_first_frames_are_kept_whole(tmp_path: Path) -> None:
    fill(tmp_path / "a" / "b", range(12), ReservoirSettings(20))
    assert [grey for _, grey in kept(tmp_path / "a" / "b")] == list(range(12))
    assert kept(tmp_path / "a" / "b")[11][0] == "20260101T0001_0011.jpg"
    assert json.loads((tmp_path / "a" / "b" / STATE).read_text()) == {"seen": 12, "size": 20, "seed": 0}


def test_never_more_than_asked_for_and_restarts_change_nothing(tmp_path: Path) -> None:
    settings = ReservoirSettings(10, seed=3)
    at_once, in_parts = tmp_path / "once", tmp_path / "parts"
    fill(at_once, range(200), settings)
    for part in (range(5), range(5, 60), range(60, 61), range(61, 200)):
        assert fill(in_parts, part, settings).seen == part.stop
        assert len(kept(in_parts)) == min(10, part.stop)
    assert kept(at_once) == kept(in_parts)
    assert sorted(name[-8:-4] for name, _ in kept(at_once)) == [f"{place:04d}" for place in range(10)]


def test_every_frame_is_as_likely_as_any_other() -> None:
    frames, size, runs = 40, 10, 1000
    counts = np.zeros(frames)
    for seed in range(runs):
        places: dict[int, int] = {}
        for number in range(1, frames + 1):
            place = draw(number, ReservoirSettings(size, seed))
            if place is not None:
                places[place] = number - 1
        counts[list(places.values())] += 1
    assert counts.sum() == runs * size
    spread = (runs * (size / frames) * (1 - size / frames)) ** 0.5  # of a binomial count
    assert np.abs(counts - runs * size / frames).max() < 4.5 * spread  # the seeds are fixed: it holds or it does not


def test_after_a_power_cut_the_pictures_are_its_own(tmp_path: Path) -> None:
    settings = ReservoirSettings(8)
    reservoir = Reservoir(tmp_path, settings)
    reservoir.__enter__()
    for number in range(6):
        reservoir.write(seen(number))  # and the power goes: nobody leaves the block
    again = Reservoir(tmp_path, settings)
    assert again.seen == 6
    with again:
        for number in range(6, SAVED_EVERY + 20):
            again.write(seen(number))
        assert json.loads((tmp_path / STATE).read_text())["seen"] >= SAVED_EVERY
    assert len(kept(tmp_path)) == 8


def test_large_frames_become_smaller(tmp_path: Path) -> None:
    with Reservoir(tmp_path) as reservoir:
        reservoir.write(seen(7, (1200, 3000)))
    with Image.open(next(tmp_path.glob("*.jpg"))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (LONGEST_SIDE, 410))


def test_minutes_are_never_on_both_sides(tmp_path: Path) -> None:
    fill(tmp_path, range(60), ReservoirSettings(64))
    divided = divide(tmp_path, labelled=False)
    assert len(divided.search) + len(divided.gate) == 60
    assert not set(divided.search.clusters) & set(divided.gate.clusters)
    assert len(set(divided.gate.clusters)) == 3


def places(folder: Path) -> list[str]:
    return sorted(name[-8:-4] for name, _ in kept(folder))


def numbered(number: int) -> list[str]:
    return [f"{place:04d}" for place in range(number)]


def test_a_smaller_reservoir_is_a_sample_of_the_larger_one(tmp_path: Path) -> None:
    fill(tmp_path, range(200), ReservoirSettings(60))
    before = kept(tmp_path)
    Reservoir(tmp_path, ReservoirSettings(20))  # asking alone, as --check does, changes nothing
    assert kept(tmp_path) == before
    assert fill(tmp_path, range(0), ReservoirSettings(20)).seen == 200
    assert {grey for _, grey in kept(tmp_path)} < {grey for _, grey in before}
    assert {name[:13] for name, _ in kept(tmp_path)} <= {name[:13] for name, _ in before}  # the minute stays
    assert places(tmp_path) == numbered(20)
    assert json.loads((tmp_path / STATE).read_text()) == {"seen": 200, "size": 20, "seed": 0}
    fill(tmp_path, range(200, 256), ReservoirSettings(20))
    assert places(tmp_path) == numbered(20)


def test_what_stays_in_a_smaller_reservoir_is_drawn_and_not_the_oldest(tmp_path: Path) -> None:
    frames, size, runs = 12, 4, 150
    counts = np.zeros(frames)
    for seed in range(runs):
        fill(tmp_path / str(seed), range(frames), ReservoirSettings(frames, seed))
        fill(tmp_path / str(seed), range(0), ReservoirSettings(size, seed))
        counts[[grey for _, grey in kept(tmp_path / str(seed))]] += 1
    assert counts.sum() == runs * size
    spread = (runs * (size / frames) * (1 - size / frames)) ** 0.5  # of a binomial count
    assert np.abs(counts - runs * size / frames).max() < 4.5 * spread  # the seeds are fixed: it holds or it does not


def test_a_larger_reservoir_begins_to_count_anew_with_what_is_there(tmp_path: Path) -> None:
    fill(tmp_path, range(100), ReservoirSettings(10))
    before = kept(tmp_path)
    assert fill(tmp_path, range(100, 115), ReservoirSettings(30)).seen == 25
    assert [one for one in kept(tmp_path) if one in before] == before
    assert json.loads((tmp_path / STATE).read_text()) == {"seen": 25, "size": 30, "seed": 0}
    assert places(tmp_path) == numbered(25)  # the next fifteen are all kept
    fill(tmp_path, range(115, 180), ReservoirSettings(30))
    assert places(tmp_path) == numbered(30)


def test_a_larger_reservoir_that_kept_every_frame_is_as_if_it_always_was(tmp_path: Path) -> None:
    fill(tmp_path / "one", range(8), ReservoirSettings(10))
    fill(tmp_path / "one", range(8, 100), ReservoirSettings(30))
    fill(tmp_path / "other", range(100), ReservoirSettings(30))
    assert kept(tmp_path / "one") == kept(tmp_path / "other")


def test_a_power_cut_amid_a_resizing_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, range(200), ReservoirSettings(60))
    unlink, left = Path.unlink, iter(range(25))

    def cut(path: Path, missing_ok: bool = False) -> None:
        next(left)  # the power goes with StopIteration
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", cut)
        with pytest.raises(StopIteration):
            Reservoir(tmp_path, ReservoirSettings(20)).__enter__()
    assert len(kept(tmp_path)) == 35
    fill(tmp_path, range(200, 256), ReservoirSettings(20))
    assert places(tmp_path) == numbered(20)


def test_folders_that_are_no_reservoir_of_this_kind_are_refused(tmp_path: Path) -> None:
    for size in (0, 10_001):
        with pytest.raises(UsageError, match="size"):
            ReservoirSettings(size)
    fill(tmp_path / "r", range(3), ReservoirSettings(5))
    with pytest.raises(UsageError, match=r"draws with seed 0: .*r; ask for the same"):
        Reservoir(tmp_path / "r", ReservoirSettings(5, seed=1))
    state = tmp_path / "r" / STATE
    damaged = ('{"seen": 3, "seed": 0}', '{"seen": 3, "size": 0, "seed": 0}', '{"seen": 3, "size": "5", "seed": 0}')
    for text in ("", "[]", '{"seen": -1}', '{"seen": true}', *damaged):
        state.write_text(text)
        with pytest.raises(UsageError, match="count"):
            Reservoir(tmp_path / "r", ReservoirSettings(5))
    state.unlink()
    with pytest.raises(UsageError, match="holds pictures that no reservoir keeps"):
        Reservoir(tmp_path / "r", ReservoirSettings(5))
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="folder cannot be made"):
        Reservoir(tmp_path / "file")
