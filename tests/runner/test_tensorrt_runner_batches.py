from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_lsla.runner.batches import BatchProfile, Part, split

ONE_TO_EIGHT = (BatchProfile(0, 1, 1, 8),)
ONE_OR_EIGHT = (BatchProfile(0, 1, 1, 1), BatchProfile(1, 8, 8, 8))
FOUR_TO_SIX = (BatchProfile(0, 4, 4, 6),)


@pytest.mark.parametrize(
    ("images", "profiles", "expected"),
    [
        (3, ONE_TO_EIGHT, [Part(0, 3, 3)]),
        (20, ONE_TO_EIGHT, [Part(0, 8, 8), Part(0, 8, 8), Part(0, 4, 4)]),
        (10, ONE_OR_EIGHT, [Part(1, 8, 8), Part(0, 1, 1), Part(0, 1, 1)]),
        (2, FOUR_TO_SIX, [Part(0, 2, 4)]),
        (7, FOUR_TO_SIX, [Part(0, 6, 6), Part(0, 1, 4)]),
        (1, (BatchProfile(0, 8, 8, 8), BatchProfile(1, 2, 4, 8)), [Part(1, 1, 2)]),
    ],
)  # fmt: skip
def test_the_largest_batch_that_is_whole_comes_first(
    images: int, profiles: tuple[BatchProfile, ...], expected: list[Part]
) -> None:
    assert split(images, profiles) == expected


def test_of_several_profiles_the_one_tuned_for_the_batch_runs_it() -> None:
    profiles = (BatchProfile(0, 1, 8, 8), BatchProfile(1, 1, 1, 8), BatchProfile(2, 1, 4, 8))
    assert [split(images, profiles)[0].profile for images in (1, 2, 3, 4, 5, 7, 8)] == [1, 1, 2, 2, 2, 0, 0]


sizes = st.lists(st.integers(1, 12), min_size=3, max_size=3).map(sorted)


@given(st.integers(1, 100), st.lists(sizes, min_size=1, max_size=4))
def test_every_image_is_computed_once_in_a_batch_that_is_allowed(images: int, ranges: list[list[int]]) -> None:
    profiles = [BatchProfile(index, *limits) for index, limits in enumerate(ranges)]
    parts = split(images, profiles)
    assert sum(part.images for part in parts) == images
    for part in parts:
        profile = profiles[part.profile]
        assert profile.smallest <= part.batch <= profile.largest
        assert 1 <= part.images <= part.batch
    assert all(part.images == part.batch for part in parts[:-1])
    padded = parts[-1].batch - parts[-1].images
    assert not padded or parts[-1].batch == min(profile.smallest for profile in profiles)
