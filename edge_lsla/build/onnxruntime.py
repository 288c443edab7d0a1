"""Artifacts for ONNX Runtime: the typed ONNX itself, which it optimises when it loads it."""

from __future__ import annotations

from typing import Any

from edge_lsla.bundle import NewArtifact
from edge_lsla.errors import UsageError

PRECISIONS = ("fp32", "int8")


def check_precision(precision: str) -> None:
    """Refuse a precision that this backend gains nothing from.

    Raises:
        UsageError: unknown, or for GPUs only.
    """
    if precision == "fp16":
        raise UsageError(
            "fp16 gains nothing on a CPU, where ONNX Runtime computes it in fp32",
            "--precision fp16",
            "use fp32 or int8",
        )
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}", "--precision", f"use {' or '.join(PRECISIONS)}")


def build(model: Any, precision: str, version: str) -> NewArtifact:
    """Make the artifact of an onnx.ModelProto that is ready for ONNX Runtime.

    Args:
        model: typed graph, Q/DQ nodes inserted for int8.
        precision: "fp32" or "int8".
        version: of the ONNX Runtime on this machine, which was seen to load it.
    """
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    versions = {"onnxruntime": version, "opset": str(opset)}
    return NewArtifact(model.SerializeToString(deterministic=True), "onnxruntime", precision, versions=versions)
