"""Finding and abstaining by the verbs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_lsla.runner.model import load


@pytest.mark.parametrize(("regions", "seconds"), [("motion", 4), ("grid", 1.5)])
def test_a_camera_counts_individuals(command, bundle: Path, tmp_path: Path, regions: str, seconds: float) -> None:
    events, video = tmp_path / "e.jsonl", tmp_path / "v.mp4"
    shot = command("infer", "camera", "synthetic", "--engine", bundle, "--max-seconds", seconds, "--regions", regions,
                   "--events", events, "--save", video, "--no-window", "--size", "320x240", "--json")  # fmt: skip
    assert shot.code == 0, shot.err
    assert shot.json["counted"] == "individuals"
    assert "individuals:" in shot.err
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert len(lines) == shot.json["frames"]
    assert video.stat().st_size > 1000
    # Insects walk in within the first seconds; what the tiny model calls them is chance.
    assert any(line["detections"] for line in lines)
    named = {track["id"] for line in lines for track in line["tracks"]}
    assert len(named) == sum(shot.json["counts"].values()) > 0


def test_full_counts_frames_as_before_and_other_words_are_refused(command, bundle: Path) -> None:
    full = ("infer", "camera", "synthetic", "--engine", bundle, "--max-frames", 3, "--no-window", "--size", "64x64")
    shot = command(*full, "--regions", "full", "--json")
    assert (shot.json["counted"], sum(shot.json["counts"].values())) == ("frames", 3)
    wrong = command(*full, "--regions", "all")
    assert wrong.code == 2
    assert "full, grid, motion" in wrong.err


def test_evaluate_finds_the_least_confidence(command, bundle: Path, pictures: Path, tmp_path: Path) -> None:
    base = ("evaluate", bundle, "--data", pictures, "--split", "train")
    with load(bundle) as model:
        first = [(model(path)[0], path) for path in (pictures / "train").rglob("*.jpg")]
    rights = sorted((one.probability, one.label == path.parent.name.replace("_", " ")) for one, path in first)
    share = sum(right for _, right in rights) / len(rights)
    found = command(*base, "--accept-right", max(0.01, round(share - 0.01, 3)), "--json")
    assert found.code == 0, found.err
    abstention = found.json["abstention"]
    assert (abstention["images"], abstention["coverage"]) == (48, 1.0)
    assert abstention["right"] == pytest.approx(share, abs=1e-4)
    assert "right" in found.err
    empty = command(*base, "--accept-right", 0.01, "--nothing", pictures / "test", "--json").json["abstention"]
    assert empty["images"] == 60
    impossible = command(*base, "--accept-right", 1, "--sure", "--json")
    assert (impossible.code, impossible.json["abstention"]) == (0, None)
    assert command(*base, "--sure").code == 2


def test_a_bundle_records_a_threshold_where_pictures_are_held_out(
    command, checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import edge_lsla.abstention as abstention

    monkeypatch.setattr(abstention, "LEAST_HELD_OUT", 12)  # val of the tiny data set
    monkeypatch.setattr(abstention, "LEAST_ACCEPTED", 1)
    monkeypatch.setattr(abstention.choose_threshold, "__defaults__", (0.2,))
    path = tmp_path / "a.lsla"
    built = command("build-engine", checkpoint, "-o", path, "--precision", "fp32", "--data", pictures)
    assert built.code == 0, built.err
    assert "had better be unknown" in built.out
    with load(path) as model:
        recorded = model.manifest.abstention
    assert recorded is not None
    assert recorded["images"] == 12
    shown = command("evaluate", path, "--data", pictures, "--json").json["recorded_threshold"]
    assert shown["threshold"] == recorded["threshold"]
    assert "abstention threshold" in command("inspect", path).out
