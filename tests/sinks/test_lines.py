import io
import json
import time
from pathlib import Path

import pytest
from observations import observation

from edge_lsla.errors import EdgeLslaError, UsageError
from edge_lsla.sinks.lines import JsonLines, Lines


def test_one_line_a_second() -> None:
    stream = io.StringIO()
    with Lines(stream, every=0.2) as lines:
        for number in range(30):
            lines.write(observation(number, live=True, time=time.time(), dropped=4))
            time.sleep(0.01)
    assert not stream.closed
    shown = stream.getvalue().splitlines()
    assert 2 <= len(shown) <= 3
    assert shown[0][2] == shown[0][5] == ":"
    for part in ("lady beetle", "94.0 %", "24.8 fps", "12.3 ms", "4 dropped"):
        assert part in shown[0]


def test_times_of_recordings_and_observations_without_predictions() -> None:
    stream = io.StringIO()
    with Lines(stream, every=0) as lines:
        lines.write(observation(time=3725.5))
        lines.write(observation(predictions=()))
    first, second = stream.getvalue().splitlines()
    assert first.startswith("01:02:05  lady beetle")
    assert "unknown" in second
    assert "0.0 %" in second


def test_json_lines_are_appended_and_flushed(tmp_path: Path) -> None:
    path = tmp_path / "seen.jsonl"
    path.write_text('{"cut": ')  # the power went
    with JsonLines(path) as lines:
        lines.write(observation(7, live=True))
        assert json.loads(path.read_text().splitlines()[1])["sequence"] == 7  # already there
    with JsonLines(path) as lines:
        lines.write(observation(8, predictions=()))
    seven, eight = (json.loads(line) for line in path.read_text().splitlines()[1:])
    assert seven["label"] == "lady_beetle"
    assert seven["confidence"] == 0.94
    assert [p["label"] for p in seven["predictions"]] == ["lady_beetle", "ant", "Käfer"]
    assert seven["time"] == 0.28
    assert (seven["latency_ms"], seven["fps"], seven["dropped"]) == (12.34, 24.8, 0)
    assert (eight["label"], eight["confidence"], eight["predictions"]) == ("unknown", 0.0, [])


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot append"), JsonLines(tmp_path):
        pass
    with JsonLines(tmp_path / "a") as lines:
        pass
    with pytest.raises(ValueError, match="inside its `with` block"):
        lines.write(observation())
    if Path("/dev/full").exists():
        with pytest.raises(EdgeLslaError, match="cannot write"), JsonLines("/dev/full") as lines:
            lines.write(observation())
