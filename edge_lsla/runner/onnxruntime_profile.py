"""Time per kernel, by ONNX Runtime's own profiling.

ONNX Runtime names a kernel after the node that it runs, except for what its optimiser made: a function's nodes in place
of their call, fused nodes, nodes that change the layout. The optimised graph comes with the times, so that a caller who
has the graph itself can find the nodes again (`edge_lsla.layer_times`).
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.errors import EdgeLslaError
from edge_lsla.runner.onnxruntime import open_session, translated_errors
from edge_lsla.runner.profile import WARM_UP, LayerTime, check_profile, medians

_KERNEL = "_kernel_time"  # ends the name of an event that is a kernel's
_RUN = "model_run"  # names the event of a whole inference
# ONNX Runtime's name of a type in its profile; activations of x86 are uint8.
_PRECISIONS = {
    "float": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "double": "fp64",
    "int8": "int8",
    "uint8": "int8",
}


@dataclass(frozen=True)
class OnnxRuntimeProfile:
    """What was measured.

    Attributes:
        times: of each kernel, in the order in which they run.
        optimised: the graph that ran, as ONNX Runtime wrote it: serialised ONNX, with operators of its own.
    """

    times: tuple[LayerTime, ...]
    optimised: bytes


def profile_model(
    model: bytes, images: NDArray[np.float32], repeats: int, *, threads: int | None = None, where: object = "model"
) -> OnnxRuntimeProfile:
    """Measure every kernel of a model, in a session of its own with the runner's options.

    Args:
        model: the serialised ONNX file.
        images: float32 [N, 3, S, S].
        repeats: inferences that count; a few more come before.

    Raises:
        UsageError: there are no images, or `repeats` cannot be used.
        EdgeLslaError: see `OnnxRuntimeRunner`; or the profile is not as ONNX Runtime 1.20 to 1.32 write it.
    """
    check_profile(len(images), repeats)
    with tempfile.TemporaryDirectory(prefix="edge-lsla-profile-") as name:
        folder = Path(name)
        optimised = folder / "optimised.onnx"
        session = open_session(model, threads, where, profile=folder / "profile", optimised=optimised)
        with translated_errors(where):
            for _ in range(WARM_UP + repeats):
                session.run(["logits"], {"images": images})
            written = Path(session.end_profiling())
        return OnnxRuntimeProfile(
            read_profile(written.read_text(encoding="utf-8", errors="replace"), where), optimised.read_bytes()
        )


def read_profile(text: str, where: object) -> tuple[LayerTime, ...]:
    """Read the file that ONNX Runtime wrote, without the inferences for warming up.

    Raises:
        EdgeLslaError: it is not as it should be.
    """
    try:
        events: list[dict[str, Any]] = json.loads(text)
        ends = [event["ts"] + event["dur"] for event in events if event["name"] == _RUN]
        kernels = [event for event in events if event["cat"] == "Node" and event["name"].endswith(_KERNEL)]
        kernels.sort(key=lambda event: event["ts"])
        rounds: list[list[tuple[str, float]]] = [[] for _ in ends]
        described: dict[str, tuple[str, str]] = {}
        at = 0
        for event in kernels:
            while event["ts"] > ends[at]:
                at += 1
            name = event["name"].removesuffix(_KERNEL)
            rounds[at].append((name, event["dur"] / 1000))
            described.setdefault(name, (event["args"]["op_name"], _precision(event["args"])))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise _unknown(where, f"{type(error).__name__}: {error}") from error
    if len(rounds) <= WARM_UP or not all(len(one) == len(rounds[0]) for one in rounds) or not rounds[0]:
        raise _unknown(where, f"{len(rounds)} inferences of {sorted({len(one) for one in rounds})} kernels")
    return tuple(
        LayerTime(name, *described[name], milliseconds, calls)
        for name, (milliseconds, calls) in medians(rounds[WARM_UP:]).items()
    )


def _unknown(where: object, found: str) -> EdgeLslaError:
    return EdgeLslaError("ONNX Runtime's profile cannot be read", where, f"report this and the version ({found[:200]})")


def _precision(arguments: dict[str, Any]) -> str:
    """Return the precision of a kernel's tensors; 8 bits where any has them, for they are why it is there."""
    sides = (arguments.get("input_type_shape", []), arguments.get("output_type_shape", []))
    types = [kind for side in sides for tensor in side for kind in tensor]
    known = [_PRECISIONS[kind] for kind in types if kind in _PRECISIONS]
    if "int8" in known:
        return "int8"
    return known[0] if known else str(types[0]) if types else ""
