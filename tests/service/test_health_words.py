"""How long something has lasted, on the status page."""

from __future__ import annotations

import pytest

from edge_lsla.service.health import duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-3, "0 s"), (44, "44 s"), (119, "119 s"), (130, "2 min"), (7100, "118 min"), (7300, "2 h"), (400_000, "5 days")],
)
def test_a_time_has_a_unit_that_fits(seconds: float, said: str) -> None:
    assert duration(seconds) == said
