"""Which batches an engine runs for N images: its profiles, and how N is split over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BatchProfile:
    """An optimisation profile of an engine.

    Attributes:
        index: its number in the engine.
        smallest, best, largest: batch sizes that it takes, and the one that it was tuned for.
    """

    index: int
    smallest: int
    best: int
    largest: int


@dataclass(frozen=True)
class Part:
    """One execution.

    Attributes:
        profile: number of the profile that runs it.
        images: how many of the caller's images it holds.
        batch: how many it computes; more than `images` where the profile takes no fewer, and the rest is padding.
    """

    profile: int
    images: int
    batch: int


def split(images: int, profiles: Sequence[BatchProfile]) -> list[Part]:
    """Split `images` (> 0) into executions, in order: always the largest batch that some profile takes whole.

    Of several profiles that take it, the one tuned for the nearest batch runs it. Only a rest that is smaller than
    every profile's smallest batch is padded.
    """
    parts = []
    while images:
        fitting = [profile for profile in profiles if profile.smallest <= images]
        if fitting:
            batch = max(min(images, profile.largest) for profile in fitting)
            able = [profile for profile in fitting if profile.smallest <= batch <= profile.largest]
            profile = min(able, key=lambda one: (abs(one.best - batch), one.largest))
            parts.append(Part(profile.index, batch, batch))
            images -= batch
        else:
            profile = min(profiles, key=lambda one: (one.smallest, one.largest))
            parts.append(Part(profile.index, images, profile.smallest))
            images = 0
    return parts
