"""Every TensorRT name that the runner uses exists in the recorded versions, or in RTX alone and is guarded."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD_TESTS = ROOT / "tests" / "build"
RECORDED = sorted((BUILD_TESTS / "surfaces").glob("tensorrt-*.txt"))
RTX = next(iter(sorted((Path(sys.prefix) / "runtimes").glob("tensorrt-rtx-*"), reverse=True)), None)
FILE = ROOT / "edge_lsla" / "runner" / "tensorrt_engine.py"
# What a variable or attribute of this name holds there; "" is the module itself.
HOLDS = {
    "trt": "",
    "engine": "ICudaEngine",
    "_engine": "ICudaEngine",
    "_runtime": "Runtime",
    "context": "IExecutionContext",
    "settings": "IRuntimeConfig",
}
# Used only where `Flavour.names_targets` said that this is TensorRT for RTX.
RTX_ONLY = {
    "DynamicShapesKernelSpecializationStrategy",
    "DynamicShapesKernelSpecializationStrategy.EAGER",
    "ICudaEngine.create_runtime_config",
    "IExecutionContext.is_stream_capturable",
    "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
    "IRuntimeConfig.set_execution_context_allocation_strategy",
}


def used() -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(FILE.read_text(encoding="utf-8"))):
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.insert(0, node.attr)
            node = node.value
        if isinstance(node, ast.Name) and names:
            names.insert(0, node.id)
        if names[:1] == ["self"]:
            # `TensorRtExecution` has the runner's own engine under the same name.
            names = [] if names[1:] in (["_engine", "enqueue"], ["_engine", "no_graph"]) else names[1:]
        if len(names) > 1 and names[0] in HOLDS:
            holder = HOLDS[names[0]]
            found.add(".".join(names[1:3]) if not holder else f"{holder}.{names[1]}")
    return found


def test_the_code_is_read() -> None:
    expected = {"Runtime", "Runtime.deserialize_cuda_engine", "ICudaEngine.get_tensor_profile_shape",
                "ICudaEngine.device_memory_size_v2", "ICudaEngine.create_execution_context", "TensorIOMode.INPUT",
                "IExecutionContext.execute_async_v3", "IExecutionContext.set_tensor_address", "DataType.FLOAT",
                "IExecutionContext.set_optimization_profile_async", "IExecutionContext.set_device_memory",
                "ExecutionContextAllocationStrategy.USER_MANAGED"}  # fmt: skip
    assert expected | RTX_ONLY <= used()


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_every_name_exists_in_the_recording(path: Path) -> None:
    recorded = set(path.read_text(encoding="ascii").split())
    assert used() - recorded <= RTX_ONLY


def test_what_only_rtx_has_is_absent_somewhere() -> None:
    oldest = next(path for path in RECORDED if path.stem == "tensorrt-10.3")
    assert not RTX_ONLY & set(oldest.read_text(encoding="ascii").split())


@pytest.mark.skipif(RTX is None, reason="tensorrt-rtx is not installed (make runtimes)")
def test_every_name_exists_in_tensorrt_rtx() -> None:
    command = [sys.executable, "-W", "ignore", str(BUILD_TESTS / "surface_probe.py"), "tensorrt_rtx"]
    variables = {**os.environ, "PYTHONPATH": str(RTX)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=True)
    assert used() <= set(done.stdout.split())
