"""What an artifact's `versions` tell of the engine or graph that it is, written and read; `preflight` compares it.

All keys may be absent, all values are text:

| key | what |
| --- | --- |
| the backend's name | version that built an engine, or that was seen to parse the ONNX |
| `needs` | of an ONNX artifact: the oldest version of the backend that can parse it |
| `gpu`, `driver`, `cuda`, `l4t`, `machine` | of the device that built an engine (see `Device`) |
| `version_compatible` | "1": built for later versions of TensorRT too |
| `attention` | "plugin", "function" or "split"; without it, TensorRT artifacts of a passport with a plugin need it |
| `plugin_sha256`, `cubin_index`, `operator_version` | of the plugin library that an engine was built with |
| `profiles` | smallest, best-served and largest batch of each profile of an engine: "1-4-8,16-16-16" |
| `memory_bytes` | device memory that an engine needs beside its own size |
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from edge_lsla.bundle import Artifact
from edge_lsla.device import Device
from edge_lsla.errors import BundleError

_PROFILES = r"[0-9]{1,9}(-[0-9]{1,9}){2}(,[0-9]{1,9}(-[0-9]{1,9}){2}){0,63}"
_LARGEST_MEMORY = 2**42  # bytes, 4 TiB: no GPU has that much


def read_profiles(artifact: Artifact) -> tuple[tuple[int, int, int], ...]:
    """Return the profiles of an engine as its `versions` say: smallest, best-served and largest batch of each.

    Returns:
        None of them where nothing is said.

    Raises:
        BundleError: what is said cannot be.
    """
    if (text := artifact.versions.get("profiles")) is None:
        return ()
    sizes = re.fullmatch(_PROFILES, text) and [[int(size) for size in one.split("-")] for one in text.split(",")]
    if not sizes or any(not 1 <= low <= best <= high for low, best, high in sizes):
        raise _damaged("profiles", text, artifact)
    return tuple((low, best, high) for low, best, high in sizes)


def read_memory(artifact: Artifact) -> int | None:
    """Return the device memory that an engine needs beside its own size, bytes, as its `versions` say.

    Returns:
        None where nothing is said.

    Raises:
        BundleError: what is said cannot be.
    """
    if (text := artifact.versions.get("memory_bytes")) is None:
        return None
    if not re.fullmatch("[0-9]{1,18}", text) or int(text) > _LARGEST_MEMORY:
        raise _damaged("memory_bytes", text, artifact)
    return int(text)


def _damaged(key: str, text: str, artifact: Artifact) -> BundleError:
    return BundleError(f"the manifest's {key} cannot be {text!r}", artifact.name, "rebuild the bundle")


def engine_versions(
    device: Device | None, backend: str, version: str, profiles: Sequence[Sequence[int]], memory_bytes: int = 0
) -> dict[str, str]:
    """Return what the table above has of an engine, for its artifact's `versions`.

    Args:
        device: that built it; None for an engine that is built for other GPUs.
        backend, version: what built it.
        profiles: smallest, best-served and largest batch of each.
        memory_bytes: device memory that it needs beside its own size.
    """
    found: dict[str, str | None] = {backend: version, "memory_bytes": str(memory_bytes)}
    found["profiles"] = ",".join("-".join(str(size) for size in one) for one in profiles)
    if device is not None:
        found |= {key: getattr(device, key) for key in ("gpu", "driver", "cuda", "l4t", "machine")}
        if device.plugin is not None and backend == "tensorrt":
            found |= {"plugin_sha256": device.plugin.sha256, "cubin_index": device.plugin.index_digest}
            found["operator_version"] = str(device.plugin.operator_version)
    return {key: text for key, text in found.items() if text is not None}
