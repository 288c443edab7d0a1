"""Every TensorRT name that the code uses exists in the recorded versions and in the installed ones, or is guarded."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from build_parts import LEAN, RTX, needs_rtx

from edge_lsla.tensorrt.flavours import GUARDED

ROOT = Path(__file__).parents[2]
RECORDED = sorted((Path(__file__).parent / "surfaces").glob("tensorrt-*.txt"))
FILES = sorted(
    [*(ROOT / "edge_lsla" / "build" / "tensorrt").glob("*.py"), *(ROOT / "edge_lsla" / "tensorrt").glob("*.py")]
)
# A variable of one of these names holds an object of that class, in every file here.
HOLDS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "registry": "IPluginRegistry",
    "layer": "ILayer",
    "tensor": "ITensor",
    "error": "ParserError",
    "cache": "ITimingCache",
}
# Methods of a class here that TensorRT calls by name.
IMPLEMENTED = {"ILogger.log", "IProgressMonitor.phase_start", "IProgressMonitor.step_complete",
               "IProgressMonitor.phase_finish"}  # fmt: skip
# The same variable names with another meaning: (file, name).
OTHERWISE = {
    "network.py": {"cache", "config.progress_monitor"},
    "worker.py": {"network", "error"},
    "builder.py": {"error"},
    "outline.py": {"error", "tensor"},
    "flavours.py": {"error"},
    "settings.py": {"profile"},
}
ANYTHING = {"__members__", "__init__", "name"}  # of Python's enumerations and classes


def chain(node: ast.expr) -> list[str] | None:
    """`a.b.c` as its names."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return [node.id, *names] if isinstance(node, ast.Name) else None


@functools.cache
def used() -> dict[str, str]:
    """Name to the first place that uses it: `Class`, `Class.member` or a function of the module."""
    found: dict[str, str] = {}
    for path in FILES:
        skipped = OTHERWISE.get(path.name, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = chain(node) if isinstance(node, ast.Attribute) else None
            if names is None:
                continue
            if names[0] == "trt":
                kept = [name for name in names[1:3] if name not in ANYTHING]
                name = ".".join(kept)
            elif names[0] in HOLDS and names[0] not in skipped:
                name = f"{HOLDS[names[0]]}.{names[1]}"
            else:
                continue
            found.setdefault(name, f"{path.name}:{node.lineno}")
    return found


@functools.cache
def recorded(path: Path) -> frozenset[str]:
    return frozenset(path.read_text(encoding="ascii").split())


@functools.cache
def live(runtime: Path, module: str) -> frozenset[str]:
    variables = {**os.environ, "PYTHONPATH": str(runtime)}
    command = [sys.executable, "-W", "ignore", str(Path(__file__).parent / "surface_probe.py"), module]
    result = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=True)
    return frozenset(result.stdout.split())


def missing(surface: frozenset[str]) -> Iterator[str]:
    for name in sorted(used() | dict.fromkeys(IMPLEMENTED, "by name")):
        if name not in surface and name not in GUARDED:
            yield f"{name} ({used().get(name, 'called by TensorRT')})"


def test_the_code_is_read() -> None:
    expected = {"Builder", "OnnxParser", "Builder.create_network", "Builder.build_serialized_network",
                "IBuilderConfig.set_memory_pool_limit", "IBuilderConfig.builder_optimization_level",
                "IOptimizationProfile.set_shape", "IPluginRegistry.load_library", "IPluginRegistry.get_creator",
                "NetworkDefinitionCreationFlag.STRONGLY_TYPED", "MemoryPoolType.WORKSPACE", "ComputeCapability",
                "IBuilderConfig.set_compute_capability", "ILayer.get_output_type", "ITensor.dtype",
                "ParserError.node_operator", "ITimingCache.serialize", "get_plugin_registry"}  # fmt: skip
    assert expected <= set(used())


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_every_name_exists_in_the_recording(path: Path) -> None:
    assert len(recorded(path)) > 1500
    assert not list(missing(recorded(path)))


def test_three_versions_are_recorded_sorted() -> None:
    assert [path.stem for path in RECORDED] == ["tensorrt-10.13", "tensorrt-10.3", "tensorrt-11.1"]
    for path in RECORDED:
        lines = path.read_text(encoding="ascii").splitlines()
        assert lines == sorted(set(lines))


def test_what_left_in_11_is_not_in_its_recording() -> None:
    """The recordings tell versions apart: these are known to have gone."""
    by_version = {path.stem.rpartition("-")[2]: recorded(path) for path in RECORDED}
    gone = {"BuilderFlag.FP16", "BuilderFlag.INT8", "IBuilderConfig.int8_calibrator", "Builder.platform_has_fast_fp16",
            "NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "OnnxParser.supports_model",
            "ICudaEngine.device_memory_size"}  # fmt: skip
    assert gone <= by_version["10.3"]
    assert gone <= by_version["10.13"]
    assert not gone & by_version["11.1"]
    assert not gone & set(used())


def test_every_guarded_name_is_used_and_absent_somewhere() -> None:
    for name in GUARDED:
        assert name in used()
        assert not any(name in recorded(path) for path in RECORDED), f"{name} needs no guard"


@needs_rtx
def test_every_name_exists_in_tensorrt_rtx() -> None:
    assert RTX is not None
    surface = live(RTX, "tensorrt_rtx")
    assert not list(missing(surface))
    assert set(GUARDED) <= surface


@pytest.mark.skipif(not LEAN, reason="tensorrt-lean is not installed (make runtimes)")
@pytest.mark.parametrize("runtime", LEAN, ids=lambda path: path.name)
def test_what_the_lean_runtime_has_of_the_classes_agrees(runtime: Path) -> None:
    """It has no builder: only the classes that it exports can be compared."""
    surface = live(runtime, "tensorrt_lean_bindings")
    names = [name for name in used() if "." in name and name.split(".")[0] in surface]
    assert "IPluginRegistry.load_library" in names
    assert not [name for name in names if name not in surface and name not in GUARDED]
