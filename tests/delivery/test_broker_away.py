"""The real store, a broker that is away, a killed process and a restarted broker: nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.broker_away import run
from benchmarks.mosquitto import PROGRAM


@pytest.mark.broker
@pytest.mark.skipif(PROGRAM is None, reason="no mosquitto: apt-get install mosquitto")
def test_every_event_arrives(tmp_path: Path) -> None:
    figures = run(200, tmp_path)
    assert figures["received"] == figures["recorded_at_all"] >= 200
    assert figures["received_while_away"] == figures["never_recorded"] == 0
