"""What is known of a built engine: enough to name it, to key it, and to prove its types without a GPU."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EngineFacts:
    """Facts of an engine.

    Attributes:
        backend: "tensorrt" or "tensorrt-rtx".
        version: of TensorRT.
        targets: compute capabilities, "sm86"; empty for tensorrt, which builds for this machine's GPU.
        profiles: smallest, best-served and largest batch of each.
        inputs, outputs: name to [data type, sizes], -1 where free.
        layers: of the parsed network, before TensorRT fuses them: type to data type of the output to count.
        computing: names of the convolutions, matrix products and plugins, by the type they compute in. "INT8": every
            operand comes from a DequantizeLinear, or a plugin gives it; else it is the type of the first operand.
        onnx_sha256, plan_sha256, plan_bytes: of the graph, and of the engine.
        parse_seconds, build_seconds: each alone, without starting the process.
        peak_bytes: largest resident size of the process that built it.
        activation_bytes: scratch memory of one execution with the largest batch, where TensorRT says it.
        workspace_bytes: the limit set; None for TensorRT's own.
        timing_cache: "none", "new", "reused" or "replaced" (it was unusable).
        notices: sentences for the user.
    """

    backend: str
    version: str
    targets: tuple[str, ...]
    profiles: tuple[tuple[int, int, int], ...]
    inputs: dict[str, list[Any]]
    outputs: dict[str, list[Any]]
    layers: dict[str, dict[str, int]]
    computing: dict[str, list[str]]
    onnx_sha256: str
    plan_sha256: str
    plan_bytes: int
    parse_seconds: float
    build_seconds: float
    peak_bytes: int
    activation_bytes: int | None
    workspace_bytes: int | None
    timing_cache: str
    notices: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> EngineFacts:
        """Read what `to_json` gave; a TypeError or ValueError for anything else."""
        tuples = {
            "targets": tuple(values["targets"]),
            "profiles": tuple((int(low), int(best), int(high)) for low, best, high in values["profiles"]),
            "notices": tuple(values["notices"]),
        }
        return cls(**{**values, **tuples})
