"""Regions and individuals in pictures and lines."""

import json

import numpy as np
from observations import PREDICTIONS, observation

from edge_lsla.events import Box
from edge_lsla.pipeline.individuals import Detection, Track
from edge_lsla.pipeline.watch import Observation
from edge_lsla.sinks.annotate import SURE, annotate, annotated
from edge_lsla.sinks.lines import record
from edge_lsla.sinks.observed import marks


def found(size: tuple[int, int] = (640, 480)) -> Observation:
    plain = observation(10, size)
    box, other = Box(200, 100, 300, 180), Box(400, 200, 420, 230)
    detections = (
        Detection(box, "ant", 0.5, PREDICTIONS, "a" * 32),
        Detection(other, "unknown", 0.3, PREDICTIONS),
    )
    track = Track("a" * 32, "lady_beetle", 0.94, box, 1.0, 2.0, 1.0, 9, np.zeros((4, 4, 3), np.uint8))
    return Observation(plain.frame, PREDICTIONS, "lady_beetle", 12.3, 24.8, 0, detections, (track,))


def test_boxes_are_drawn_with_what_the_individual_is() -> None:
    seen = found()
    assert marks(seen) == [(Box(200, 100, 300, 180), "lady_beetle", 0.94), (Box(400, 200, 420, 230), "unknown", 0.3)]
    drawn, plain = annotated(seen), seen.frame.pixels
    assert drawn.shape == plain.shape
    assert (drawn[100, 220:280] == SURE).all()  # the box's upper edge
    assert (drawn[120:160, 299] == SURE).all()
    assert (drawn[130:160, 230:280] == plain[130:160, 230:280]).all()  # the insect is left as it is
    assert (drawn[80:98, 202:260] != plain[80:98, 202:260]).any()  # its label above
    assert (drawn[-60:, 20:200] != plain[-60:, 20:200]).any()  # the line below


def test_boxes_keep_their_place_in_a_small_picture() -> None:
    pixels = np.full((120, 160, 3), 40, np.uint8)
    drawn = annotate(pixels, (), regions=[(Box(40, 60, 80, 100), "ant", 0.9)])
    assert drawn.shape[:2] == (360, 480)
    assert (drawn[180:182, 150:230] == SURE).all()
    tall = annotate(np.full((900, 20, 3), 40, np.uint8), (), regions=[(Box(5, 400, 15, 410), "ant", 0.9)])
    assert (tall == SURE).all(axis=2).any()


def test_labels_at_the_edges_stay_in_the_picture() -> None:
    pixels = np.full((480, 640, 3), 40, np.uint8)
    for box in (Box(0, 0, 30, 30), Box(610, 450, 640, 480), Box(0, 0, 640, 480)):
        drawn = annotate(pixels, (), regions=[(box, "a very long name of a class that no picture has room for", 0.1)])
        assert drawn.shape == pixels.shape
        assert (drawn != pixels).any()


def test_lines_carry_detections_and_tracks() -> None:
    line = json.loads(json.dumps(record(found())))
    assert line["detections"] == [
        {"box": [200, 100, 300, 180], "label": "ant", "confidence": 0.5, "track": "a" * 32},
        {"box": [400, 200, 420, 230], "label": "unknown", "confidence": 0.3, "track": None},
    ]
    assert line["tracks"] == [{"id": "a" * 32, "label": "lady_beetle", "confidence": 0.94, "box": [200, 100, 300, 180]}]
    assert record(observation())["detections"] == []
