import itertools

import numpy as np
import pytest

from edge_lsla.errors import UsageError
from edge_lsla.events import Box
from edge_lsla.pipeline.tiles import GridSettings, merge_tiles, tiles


@pytest.mark.parametrize("size", [(640, 480), (1920, 1080), (480, 640), (64, 64), (17, 301)])
@pytest.mark.parametrize("settings", [GridSettings(), GridSettings(1, 1, 0.0), GridSettings(5, 2, 0.5)])
def test_squares_cover_the_frame_evenly(size: tuple[int, int], settings: GridSettings) -> None:
    found = tiles(size, settings)
    covered = np.zeros((size[1], size[0]), bool)
    for box in found:
        assert box.width == box.height
        assert box.right <= size[0]
        assert box.bottom <= size[1]
        covered[box.top : box.bottom, box.left : box.right] = True
    assert covered.all()
    lefts, tops = sorted({box.left for box in found}), sorted({box.top for box in found})
    assert len(found) == len(lefts) * len(tops)
    for starts in (lefts, tops):
        steps = [after - before for before, after in itertools.pairwise(starts)]
        assert not steps or max(steps) - min(steps) <= 1  # rounded to pixels
        # Neighbours share what was asked for; rounding the side up and the places costs a pixel each.
        assert all(found[0].width - step >= settings.overlap * found[0].width - 2 for step in steps)


def test_the_grid_asked_for_is_the_least() -> None:
    assert len(tiles((640, 480), GridSettings(4, 3, 0.25))) == 12
    assert len(tiles((1920, 1080), GridSettings(1, 1, 0.0))) == 2  # one square cannot cover it


def test_neighbours_of_one_label_are_one() -> None:
    row = [Box(0, 0, 10, 10), Box(8, 0, 18, 10), Box(16, 0, 26, 10), Box(40, 0, 50, 10)]
    assert merge_tiles(row, ["ant", "ant", "bee", "ant"]) == [[0, 1], [2], [3]]
    assert merge_tiles(row, ["ant", "bee", "ant", "ant"]) == [[0], [1], [2], [3]]
    assert merge_tiles([], []) == []


@pytest.mark.parametrize("field", [{"columns": 0}, {"rows": 65}, {"overlap": 0.8}, {"overlap": -0.1}])
def test_settings_name_the_field(field: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(field))):
        GridSettings(**field)  # type: ignore[arg-type]
