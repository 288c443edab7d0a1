"""NVIDIA's own code loads the library: registries of TensorRT 10.16, 11.0 and 11.4, and the ONNX parser of RTX 1.7."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import native_builds
import numpy as np
import onnx
import pytest
from native_builds import HEADERS, compiler, headers, needs_compiler, needs_headers

from calibration.qdq import insert_qdq
from calibration.ranges import collect_ranges
from calibration.settings import CalibrationSettings, QdqSettings
from edge_lsla.export.onnx_export import export_onnx
from edge_lsla.model.checkpoint import open_checkpoint
from edge_lsla.operator import NAME, QUANTISED_NAME, RESIDUAL_NAME
from edge_lsla.surgery.function import drop_function
from edge_lsla.surgery.fuse import fuse, fuse_quantised
from plugins.library import LIBRARY, REGISTER

HERE = Path(__file__).parent
# `make runtimes` installs them, each into a folder of its own: no two can be imported in one process.
RUNTIMES = Path(sys.prefix) / "runtimes"
LEAN = sorted(RUNTIMES.glob("tensorrt-lean-*"))
RTX = sorted(RUNTIMES.glob("tensorrt-rtx-*"))
pytestmark = [compiler, headers, needs_compiler, needs_headers]


def environment(runtime: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(runtime), **more}


@functools.cache
def probe(runtime: Path, version: str) -> dict[str, Any]:
    """Load a library built against headers of one version into the registry of a runtime of another."""
    library = native_builds.build(f"plain-{version}", HEADERS[version])
    command = [sys.executable, str(HERE / "registry_probe.py"), "tensorrt_lean_bindings", str(library)]
    result = subprocess.run(command, env=environment(runtime), capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = {**json.loads(result.stdout.splitlines()[-1]), "stderr": result.stderr}
    return found


@pytest.mark.skipif(len(LEAN) < 3, reason="not all of tensorrt-lean 10.16, 11.0, 11.4 are installed (make runtimes)")
@pytest.mark.parametrize("version", HEADERS)
@pytest.mark.parametrize("runtime", LEAN, ids=lambda path: path.name)
def test_the_registry_loads_the_library_and_creates_plugins(runtime: Path, version: str) -> None:
    found = probe(runtime, version)
    assert found["version"] == runtime.name.rpartition("-")[2]
    assert found["loaded"]
    assert set(found["operators"]) == {"LslaAttention", "LslaResidualAttention", "QLslaAttention"}
    for name, operator in found["operators"].items():
        assert operator["listed"] == 1
        assert {"num_heads", "window"} <= set(operator["fields"])
        assert ("epsilon" in operator["fields"]) == (name == "LslaResidualAttention")
        assert operator["good"] == [name, "1", ""]
        assert operator["missing"] is None
        assert operator["out_of_range"] is None
    assert found["after_deregistering"] == 0
    # Each refusal says why, in our words: TensorRT only says that creation failed.
    assert found["stderr"].count("edge-lsla plugin: ") == 6
    assert "num_heads" in found["stderr"]
    assert "17" in found["stderr"]


# What trtexec --staticPlugins, Polygraphy and DeepStream do with a plugin library: nothing but open it.
OPEN = """
import ctypes, importlib, sys
trt = importlib.import_module(sys.argv[1]) if sys.argv[1] else None
handles = [trt.get_plugin_registry().load_library(path) for path in sys.argv[3:]]
ctypes.CDLL(sys.argv[2])
print([one.name for one in trt.get_plugin_registry().all_creators if "Lsla" in one.name] if trt else [])
"""


def opened(module: str, register: Path, runtime: Path | None, *loaded: Path) -> tuple[str, str]:
    """Open the register library after the registry has loaded others; return the creators' names and what was said."""
    variables = environment(runtime) if runtime else dict(os.environ)
    command = [sys.executable, "-c", OPEN, module, str(register), *map(str, loaded)]
    result = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=True)
    return result.stdout.strip(), result.stderr.strip()


@pytest.mark.skipif(len(LEAN) < 3, reason="not all of tensorrt-lean 10.16, 11.0, 11.4 are installed (make runtimes)")
@pytest.mark.parametrize("version", HEADERS)
@pytest.mark.parametrize("runtime", LEAN, ids=lambda path: path.name)
def test_opening_the_register_library_registers_the_plugin(runtime: Path, version: str) -> None:
    library = native_builds.build(f"plain-{version}", HEADERS[version])
    found, said = opened("tensorrt_lean_bindings", library.with_name(REGISTER), runtime)
    built, running = version.partition(".")[0], runtime.name.rpartition("-")[2].partition(".")[0]
    if built == running:
        assert (found, said) == ("['LslaAttention', 'LslaResidualAttention', 'QLslaAttention']", "")
    else:
        sentence = f"built for TensorRT {built}, this process has {running}; build it again with that version's headers"
        assert (found, said) == ("[]", f"edge-lsla plugin: not registered: {sentence}")


ALL = "['LslaAttention', 'LslaResidualAttention', 'QLslaAttention']"


def register_for(runtime: Path) -> Path:
    """Return a register library built against headers of the runtime's major version."""
    major = runtime.name.rpartition("-")[2].partition(".")[0]
    version = next((one for one in HEADERS if one.partition(".")[0] == major), None)
    if version is None:
        pytest.skip(f"no headers of TensorRT {major}")
    return native_builds.build(f"plain-{version}", HEADERS[version]).with_name(REGISTER)


@pytest.mark.skipif(len(LEAN) < 3, reason="not all of tensorrt-lean 10.16, 11.0, 11.4 are installed (make runtimes)")
@pytest.mark.parametrize("runtime", LEAN, ids=lambda path: path.name)
def test_a_plugin_that_is_registered_already_is_left_alone(runtime: Path, tmp_path: Path) -> None:
    register = register_for(runtime)
    assert opened("tensorrt_lean_bindings", register, runtime, register.with_name(LIBRARY)) == (ALL, "")
    alone = tmp_path / REGISTER  # even where the plugin does not lie beside it
    shutil.copyfile(register, alone)
    assert opened("tensorrt_lean_bindings", alone, runtime, register.with_name(LIBRARY)) == (ALL, "")
    found, said = opened("tensorrt_lean_bindings", alone, runtime)
    missing = f"{tmp_path / LIBRARY} cannot be read; it must lie beside this library"
    assert (found, said) == ("[]", f"edge-lsla plugin: not registered: {missing}")


@pytest.mark.skipif(len(LEAN) < 3, reason="not all of tensorrt-lean 10.16, 11.0, 11.4 are installed (make runtimes)")
@pytest.mark.parametrize("runtime", LEAN, ids=lambda path: path.name)
def test_a_link_to_the_register_library_finds_the_plugin(runtime: Path, tmp_path: Path) -> None:
    link = tmp_path / "plugins" / REGISTER
    link.parent.mkdir()
    link.symlink_to(register_for(runtime))
    assert opened("tensorrt_lean_bindings", link, runtime) == (ALL, "")


def test_without_tensorrt_the_register_library_says_so(tmp_path: Path) -> None:
    library = native_builds.build("recording", native_builds.OLDEST, record_fields=True)
    _, said = opened("", library.with_name(REGISTER), None)
    sentence = "no TensorRT is loaded in this process; the program must load TensorRT first"
    assert said == f"edge-lsla plugin: not registered: {sentence}"


@pytest.fixture(scope="module")
def models(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, onnx.ModelProto]:
    """The tiny model with each of the operators, as TensorRT would parse it."""
    path = tmp_path_factory.mktemp("fused") / "model.onnx"
    export_onnx(open_checkpoint(checkpoint).model, 32, path)
    attention, _ = fuse(onnx.load(path))
    images = np.random.default_rng(0).standard_normal((4, 3, 32, 32), dtype=np.float32)
    ranges = collect_ranges(attention, [images], CalibrationSettings())
    int8, _ = insert_qdq(attention, ranges, QdqSettings("tensorrt", attention="int8"))
    fused = {NAME: attention, RESIDUAL_NAME: fuse(attention, "residual")[0], QUANTISED_NAME: fuse_quantised(int8)[0]}
    return {name: drop_function(model) for name, model in fused.items()}


@pytest.mark.skipif(not RTX, reason="tensorrt-rtx is not installed (make runtimes)")
@pytest.mark.parametrize("runtime", RTX[-1:], ids=lambda path: path.name)
@pytest.mark.parametrize("operator", [NAME, RESIDUAL_NAME, QUANTISED_NAME])
def test_the_parser_resolves_the_node_to_the_plugin(
    runtime: Path, operator: str, models: dict[str, onnx.ModelProto], tmp_path: Path
) -> None:
    onnx.save(models[operator], tmp_path / "fused.onnx")
    library = native_builds.build("recording", native_builds.OLDEST, record_fields=True)
    record = tmp_path / "fields.jsonl"
    command = [sys.executable, str(HERE / "parser_probe.py"), str(library), str(tmp_path / "fused.onnx")]
    variables = environment(runtime, EDGE_LSLA_RECORD_FIELDS=str(record))
    result = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert record.exists(), f"exit code {result.returncode}: {result.stderr}"
    recorded = json.loads(record.read_text().splitlines()[0])
    fields = {field["name"]: field["value"] for field in recorded["fields"]}
    node = next(node for node in models[operator].graph.node if node.op_type == operator)
    wanted = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert [recorded["operator"], recorded["version"], recorded["namespace"]] == [operator, "1", ""]
    assert fields["num_heads"] == [wanted["num_heads"]]
    assert fields["window"] == [wanted["window"]]
    if operator == RESIDUAL_NAME:
        assert fields["epsilon"] == pytest.approx([wanted["epsilon"]])
