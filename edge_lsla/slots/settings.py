"""What a new model must show before it watches alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_lsla.errors import UsageError

LARGEST_MB = 4096  # of a bundle, by its format


@dataclass(frozen=True)
class SlotSettings:
    """Which bundles are taken, and how a new one is tried.

    A new model first runs in shadow: it is given some of the crops that the active one answers, and nobody acts on what
    it says. Then it is switched to, on probation. The model before it stays ready until the probation ends.

    Attributes:
        require_signature: whether a trusted key must have signed a bundle.
        trusted_keys: folder of `*.pub` files; None takes the user's, see docs/bundle.md.
        allow_other_labels: whether a new model may name other classes than the active one.
        largest_mb: the largest bundle that is taken, megabytes.
        spare_disk_mb: what must stay free on the disk beside a new bundle, megabytes.
        spare_memory_mb: what must be free before a second model is opened, and for the one before to stay open during
            the probation, megabytes.
        most_starts: how often the service may be started anew, without having been stopped, while a model is on trial;
            one more start, and the model before it is taken again.
        shadow_batches: batches that a new model answers in shadow, at least.
        shadow_seconds: how long it runs in shadow, at least.
        shadow_share: the part of the time that the trial may use the processor beside the live model, 0 to 1.
        error_limit: the part of the batches in shadow that may fail, 0 to 1.
        latency_limit_ms: the largest 95th percentile of a batch's time, milliseconds; None sets no limit.
        latency_ratio: the largest median of a batch's time as a multiple of the other model's, on the same batches.
        latency_window_seconds: how long times are gathered on probation before they are judged, at least, and until
            there are `probation_batches` of them; the two limits above must be exceeded in two such windows in a row.
            At most half of `probation_seconds` is taken.
        agreement_limit: the least part of crops for which both models name the same class, 0 to 1; None sets no limit.
        probation_seconds: how long a new model is on probation, at least.
        probation_batches: batches that it answers on probation, at least.

    Raises:
        UsageError: a field has a value that cannot be used; the message names it.
    """

    require_signature: bool = False
    trusted_keys: Path | None = None
    allow_other_labels: bool = False
    largest_mb: int = 1024
    spare_disk_mb: int = 100
    spare_memory_mb: int = 200
    most_starts: int = 2
    shadow_batches: int = 50
    shadow_seconds: float = 60.0
    shadow_share: float = 0.2
    error_limit: float = 0.0
    latency_limit_ms: float | None = None
    latency_ratio: float = 1.5
    latency_window_seconds: float = 30.0
    agreement_limit: float | None = None
    probation_seconds: float = 600.0
    probation_batches: int = 20

    def __post_init__(self) -> None:
        if not 1 <= self.largest_mb <= LARGEST_MB:
            raise UsageError(f"a bundle has 1 to {LARGEST_MB} MB", "largest_mb", "correct it")
        for name in ("spare_disk_mb", "spare_memory_mb"):
            if getattr(self, name) < 0:
                raise UsageError("free space cannot be below 0", name, "correct it")
        for name in ("most_starts", "shadow_batches", "probation_batches"):
            if getattr(self, name) < 1:
                raise UsageError("at least 1 is needed", name, "correct it")
        for name in ("shadow_seconds", "probation_seconds", "latency_window_seconds"):
            if not 0 <= getattr(self, name) <= 30 * 86400:
                raise UsageError("a trial takes 0 seconds to 30 days", name, "correct it")
        for name in ("error_limit", "agreement_limit"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise UsageError("a share is from 0 to 1", name, "correct it")
        if not 0 < self.shadow_share <= 1:
            raise UsageError("a share of the time is above 0 and at most 1", "shadow_share", "correct it")
        if self.latency_limit_ms is not None and not self.latency_limit_ms > 0:
            raise UsageError("a time limit is above 0 ms", "latency_limit_ms", "correct it")
        if not self.latency_ratio >= 1:
            raise UsageError("a new model must be allowed to take as long as the active one", "latency_ratio",
                             "give 1 or more")  # fmt: skip
