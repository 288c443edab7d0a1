import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.finding_scenes import SAMPLES, Case, line, oracle, play, walker
from edge_lsla.errors import UsageError
from edge_lsla.events import Box
from edge_lsla.pipeline.finding import REGIONS, Finding, FindingSettings
from edge_lsla.pipeline.frames import Frame
from edge_lsla.pipeline.individuals import UNKNOWN
from edge_lsla.pipeline.motion import MotionSettings
from edge_lsla.pipeline.scene import Scene, Walker
from edge_lsla.pipeline.settings import SourceSettings
from edge_lsla.pipeline.sources import open_source
from edge_lsla.pipeline.tiles import GridSettings
from edge_lsla.pipeline.tracking import TrackSettings
from edge_lsla.pipeline.watch import NOTHING, Observation, WatchReport, WatchSettings, watch
from edge_lsla.predictions import Prediction

PIXELS = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)


def frame(number: int, pixels: Any = PIXELS) -> Frame:
    return Frame(pixels, 1e9 + number / 10, number, "trap-1", live=True, captured=number / 10)


def says(label: str, share: float) -> tuple[Prediction, ...]:
    return (Prediction(0, label, share), Prediction(1, "other", 1 - share))


def test_full_is_one_region_and_runs_of_a_label() -> None:
    finding = Finding("trap-1", FindingSettings("full", min_confidence=0.5))
    arrived, left = [], []
    answers = [says("ant", 0.9)] * 10 + [says("bee", 0.4)] * 30
    for number, answer in enumerate(answers):
        boxes = finding.regions(frame(number))
        assert boxes == (Box(0, 0, 640, 480),)
        (crop,) = finding.crops(frame(number), boxes)
        assert np.shares_memory(crop, PIXELS)
        found = finding.conclude(frame(number), boxes, [answer])
        assert found.detections[0].label == ("ant" if number < 10 else UNKNOWN)
        assert found.detections[0].confidence == answer[0].probability
        arrived += found.arrived
        left += found.left
    assert [track.label for track in arrived] == ["ant"]
    assert [(track.label, track.frames, track.ending) for track in left] == [("ant", 10, "gone")]
    assert max(left[0].crop.shape) == TrackSettings().crop_side_px


def test_the_threshold_is_the_settings_or_the_bundles() -> None:
    assert Finding("a", FindingSettings("full"), 0.7).min_confidence == 0.7
    assert Finding("a", FindingSettings("full", min_confidence=0.2), 0.7).min_confidence == 0.2
    assert Finding("a", FindingSettings("full", min_confidence=0.0), 0.7).min_confidence == 0.0


def test_grid_names_tiles_and_joins_neighbours() -> None:
    finding = Finding("a", FindingSettings("grid", min_confidence=0.5, grid=GridSettings(4, 3, 0.25)))
    boxes = finding.regions(frame(0))
    assert len(boxes) == 12
    assert all(crop.shape[0] == crop.shape[1] for crop in finding.crops(frame(0), boxes))
    answers = [says("ant", 0.3)] * 12
    answers[0], answers[1], answers[11] = says("ant", 0.8), says("ant", 0.9), says("ant", 0.7)
    for number in range(5):
        found = finding.conclude(frame(number), boxes, answers)
    one, other = found.detections
    assert (one.box.left, one.box.right, one.confidence) == (0, boxes[1].right, 0.9)
    assert other.box == boxes[11]
    assert len({track.id for track in found.live}) == 2


def test_no_more_regions_than_asked_are_looked_at() -> None:
    finding = Finding("a", FindingSettings("grid", max_regions=5))
    assert len(finding.regions(frame(0))) == 5
    assert finding.left_out == 7


def test_motion_finds_crops_and_follows() -> None:
    case = Case("one", (walker("lady_beetle_1", line(1.5, 4.5, 200)),), 7)
    scene, finding = Scene(case.walkers, case.scene), Finding("a", case.settings)
    shares, arrived, left = [], [], []
    for number in range(round(case.seconds * case.rate)):
        seconds = number / case.rate
        shot = dataclasses.replace(frame(number, scene.draw(seconds)), captured=seconds)
        boxes = finding.regions(shot)
        truth = scene.truth(seconds, 0.0)
        for crop in finding.crops(shot, boxes):
            assert crop.shape[0] == crop.shape[1] >= 12
        found = finding.conclude(shot, boxes, oracle([], boxes, truth) if boxes else ())
        finding.learn(shot)
        if truth and scene.truth(seconds):
            shares.append(len(boxes) == 1)
        arrived += found.arrived
        left += found.left
    assert sum(shares) > 0.9 * len(shares)
    ((track,), (ended,)) = arrived, left
    assert (track.id, ended.label) == (ended.id, "lady beetle")
    assert 1e9 < track.first < ended.last
    assert ended.frames > 30


def test_a_busy_frame_and_wrong_numbers_of_answers() -> None:
    finding = Finding("a", FindingSettings("full"))
    with pytest.raises(ValueError, match="0 predictions for 1"):
        finding.conclude(frame(0), finding.regions(frame(0)), [])


def test_an_unknown_thing_is_an_individual_too_and_sits_no_longer_than_the_ground_takes() -> None:
    way = ((1.5, -40.0, 240.0), (3.5, 300.0, 240.0), (60.0, 300.0, 240.0))
    settings = FindingSettings(min_confidence=0.95, motion=MotionSettings(history_seconds=40))  # the oracle says 0.9
    outcome = play(Case("sits", (walker("spider_2", way),), 18, rate=8, settings=settings))
    (track,) = outcome.left
    assert (track.label, track.ending) == (UNKNOWN, "settled")
    assert track.seconds < 12
    named = dataclasses.replace(settings, min_confidence=0.5)
    outcome = play(Case("sits", (walker("spider_2", way),), 18, rate=8, settings=named))
    assert (outcome.left, len(outcome.live)) == ([], 1)


@pytest.mark.parametrize("field", [{"regions": "all"}, {"max_regions": 0}, {"padding": 3}, {"min_confidence": 1.5}])
def test_settings_name_the_field(field: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(field))):
        FindingSettings(**field)


class Kept:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []

    def write(self, observation: Observation) -> None:
        self.seen.append(observation)

    def __enter__(self) -> "Kept":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def watched(regions: str, **more: Any) -> tuple[WatchReport, list[Observation], list[int]]:
    """Watch walking insects as a recording, so that the number of frames is certain."""
    pictures = tuple(sorted(SAMPLES.glob("*.jpg")))
    source = open_source("synthetic", SourceSettings(rate=10_000, frames=80, pictures=pictures, insects=3))
    source.live = False  # type: ignore[misc]
    kept, sizes = Kept(), []

    def classify(crops: Any) -> Any:
        sizes.append(len(crops))
        return [says("ant", 0.9)] * len(crops)

    finding = Finding("a", FindingSettings(regions, **more))
    return watch(source, classify, [kept], WatchSettings(), threading.Event(), finding), kept.seen, sizes


def test_watch_counts_individuals_where_regions_are_sought() -> None:
    report, seen, sizes = watched("grid")
    assert (report.counted, report.frames, len(seen)) == ("individuals", 80, 80)
    assert set(sizes) == {12}  # the tiles of a frame are a batch
    assert report.counts == {"ant": 1}
    assert report.to_dict()["counted"] == "individuals"
    assert len(seen[-1].detections) == len(seen[-1].tracks) == 1
    assert seen[-1].label == "ant"
    assert seen[-1].detections[0].track == seen[-1].tracks[0].id


def test_watch_says_nothing_where_nothing_moves() -> None:
    report, seen, sizes = watched("motion")  # 80 frames are over before the ground is known
    assert {one.label for one in seen} == {NOTHING}
    assert (report.counts, sizes) == ({}, [])


def test_the_synthetic_source_walks_with_a_truth() -> None:
    pictures = tuple(sorted(SAMPLES.glob("*.jpg")))
    settings = SourceSettings(size=(320, 240), rate=1000, frames=3, pictures=pictures, insects=2)
    with open_source("synthetic", settings) as one, open_source("synthetic", settings) as two:
        scene: Scene = one.scene  # type: ignore[attr-defined]
        assert [insect.label for insect in scene.walkers] == ["ant", "ant"]
        assert all((a.pixels == b.pixels).all() for a, b in zip(one, two))
    with pytest.raises(UsageError, match="pictures"):
        open_source("synthetic", SourceSettings(insects=2))
    with pytest.raises(UsageError, match="insects"):
        SourceSettings(insects=-1)


def test_truth_is_what_is_drawn(tmp_path: Path) -> None:
    way = ((0.0, -100.0, 200.0), (4.0, 700.0, 200.0))
    insect = walker("lady_beetle_1", way)
    empty, scene = Scene([]), Scene([insect])
    assert isinstance(insect, Walker)
    assert scene.truth(0.0) == ()
    (there,) = scene.truth(2.0)
    assert (there.number, there.label) == (0, "lady beetle")
    changed = np.abs(scene.draw(2.0).astype(int) - empty.draw(2.0)).max(axis=2) > 30
    rows, columns = np.nonzero(changed)
    box = there.box
    assert (rows.min() - box.top, columns.min() - box.left) <= (4, 4)
    assert changed[box.top : box.bottom, box.left : box.right].sum() == changed.sum()
    assert REGIONS == ("full", "grid", "motion")
