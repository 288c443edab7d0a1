"""Settings of an engine build; importing this loads nothing of TensorRT."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from edge_lsla.errors import UsageError
from edge_lsla.tensorrt.flavours import RTX, TENSORRT

BACKENDS = (TENSORRT, RTX)
LARGEST_BATCH = 4096
SMALLEST_WORKSPACE, LARGEST_WORKSPACE = 2**20, 2**44  # bytes


@dataclass(frozen=True)
class BuildSettings:
    """What engine to build.

    Raises:
        UsageError: a field has a value that cannot be used; the message names the option that sets it, or the field.
    """

    backend: str = field(metadata={"help": "tensorrt or tensorrt-rtx"})
    targets: tuple[str, ...] = field(
        default=(), metadata={"help": 'tensorrt-rtx: compute capabilities, "sm86"; tensorrt builds for this machine'}
    )
    profiles: tuple[tuple[int, int, int], ...] = field(
        default=((1, 1, 1),), metadata={"help": "smallest, best-served and largest batch of each profile"}
    )
    workspace_bytes: int | None = field(
        default=None, metadata={"help": "scratch memory a layer may use; none: 1 GiB, or no limit for tensorrt-rtx"}
    )
    optimisation_level: int = field(default=3, metadata={"help": "0 builds fastest, 5 runs fastest; rtx ignores it"})
    timing_cache: Path | None = field(default=None, metadata={"help": "tensorrt: measurements kept between builds"})
    plugin_library: Path | None = field(default=None, metadata={"help": "tensorrt: this project's plugin"})

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise UsageError(f"unknown backend {self.backend!r}", "backend", f"use {' or '.join(BACKENDS)}")
        self._check_targets()
        self._check_profiles()
        if self.workspace_bytes is not None:
            _check_workspace(self.workspace_bytes)
        _whole("--level", self.optimisation_level, 0, 5)
        for name in ("timing_cache", "plugin_library"):
            value: object = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, (str, os.PathLike)) or not str(value):
                raise UsageError(f"{name} is not a path", name, "give a file")
            if self.backend == RTX:
                why = "its networks take no plugins" if name == "plugin_library" else "it measures nothing"
                raise UsageError(f"tensorrt-rtx takes no {name}: {why}", name, "leave it out, or use tensorrt")
            object.__setattr__(self, name, Path(value))

    @property
    def largest_batch(self) -> int:
        """The largest batch that any profile takes."""
        return max(largest for _, _, largest in self.profiles)

    def _check_targets(self) -> None:
        targets: object = self.targets
        if not isinstance(targets, (tuple, list)) or not all(isinstance(target, str) for target in targets):
            raise UsageError('targets are not a list of names such as "sm86"', "--target", "correct it")
        for target in targets:
            if not re.fullmatch(r"sm[1-9]\d{1,2}", target):
                raise UsageError(f"{target!r} is not a target", "--target", 'write it as "sm86", for capability 8.6')
        if len(set(targets)) != len(targets):
            raise UsageError("a target is named twice", "--target", "name each once")
        if self.backend == TENSORRT and targets:
            raise UsageError(
                "tensorrt builds only for the machine that it runs on",
                "--target",
                "leave the target out and build on the device, or use tensorrt-rtx",
            )
        if self.backend == RTX and not targets:
            raise UsageError(
                "tensorrt-rtx needs a target", "--target", 'name compute capabilities, such as "sm86,sm89"'
            )
        # In order of capability, so that the same set gives the same engine.
        object.__setattr__(self, "targets", tuple(sorted(targets, key=lambda target: int(target[2:]))))

    def _check_profiles(self) -> None:
        profiles: object = self.profiles
        if not isinstance(profiles, (tuple, list)) or not profiles:
            raise UsageError("profiles is not a list of batch sizes", "profiles", "give (smallest, best, largest)")
        for profile in profiles:
            if not isinstance(profile, (tuple, list)) or len(profile) != 3:
                raise UsageError(f"profile {profile!r} is not three batch sizes", "profiles", "correct it")
            for batch in profile:
                _whole("--batch", batch, 1, LARGEST_BATCH)
            smallest, best, largest = profile
            if not smallest <= best <= largest:
                raise UsageError(
                    f"batch profile {smallest}, {best}, {largest} is not in ascending order",
                    "profiles",
                    "give the smallest, the best-served and the largest batch",
                )
        object.__setattr__(self, "profiles", tuple(tuple(profile) for profile in profiles))


def _check_workspace(size: object) -> None:
    """Say it as the command line does, in MiB."""
    low, high = SMALLEST_WORKSPACE, LARGEST_WORKSPACE
    if isinstance(size, bool) or not isinstance(size, int) or not low <= size <= high:
        whole = isinstance(size, int) and not isinstance(size, bool) and size % 2**20 == 0
        given = f"{size // 2**20:,} MiB" if whole and isinstance(size, int) else f"{size!r} bytes"
        what = f"a workspace of {given} is not from {low // 2**20} to {high // 2**20:,} MiB"
        raise UsageError(what, "--workspace", "leave it out, or give another size")


def _whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{value!r} is not a whole number from {low} to {high}", name, "correct it")
