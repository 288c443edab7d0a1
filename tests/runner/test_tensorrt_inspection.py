"""What the engine inspector and the profiler tell, without a GPU.

The inspector's answers here are written by hand, in the form of NVIDIA's documentation and of the engines recorded in
its engine explorer: they prove that the reader bears what versions and kinds of layers leave out, and nothing of
TensorRT. Real engines are inspected under the `gpu` marker.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import test_tensorrt_runner_names as names
from host_gpu import CLASSES, HostEngine, HostExecution, HostGpu, images

from edge_lsla.errors import EdgeLslaError, UsageError
from edge_lsla.runner.executor import WARM_UP, Executor
from edge_lsla.runner.inspection import EngineLayer, read_layers

ROOT = Path(__file__).parents[2]
MAKE_PROFILER = """
import tensorrt_rtx
from edge_lsla.runner.tensorrt_engine import make_profiler
reports = []
profiler = make_profiler(tensorrt_rtx, reports)
assert isinstance(profiler, tensorrt_rtx.IProfiler)
profiler.report_layer_time("conv", 1.5)
print(reports)
"""


def tensor(words: str) -> dict[str, object]:
    return {"Name": "t", "Dimensions": [1, 8], "Format/Datatype": words}


def told(**fields: object) -> EngineLayer:
    (layer,) = read_layers(json.dumps({"Layers": [fields]}), "x.engine")
    return layer


def test_a_detailed_layer() -> None:
    layer = told(
        Name="node_a + node_b",
        LayerType="gemm",
        Inputs=[tensor("Row major Int8 format"), tensor("Row major linear FP32")],
        Outputs=[tensor("Row major linear FP16 format")],
        TacticName="sm80_xmma_gemm",
        TacticValue="0x12",
        Metadata="[ONNX Layer: node_a]\x1e[ONNX Layer: node[1]]",
    )
    assert layer == EngineLayer(
        name="node_a + node_b",
        kind="gemm",
        precision="int8",
        inputs=("Row major Int8 format", "Row major linear FP32"),
        outputs=("Row major linear FP16 format",),
        tactic="sm80_xmma_gemm",
        nodes=("node_a", "node[1]"),
    )
    assert json.loads(json.dumps(layer.to_dict()))["nodes"] == ["node_a", "node[1]"]


@pytest.mark.parametrize(
    ("words", "precision"),
    [
        ("Row major linear FP32", "fp32"),
        ("Half", "fp16"),
        ("Float", "fp32"),
        ("BFloat16", "bf16"),
        ("N/A due to dynamic shapes BF16", "bf16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Int32", "int32"),
        ("Channel major FP16 format where C % 8 == 0", "fp16"),
        ("Bool", "bool"),
        ("some new words", ""),
    ],
)
def test_types_in_tensorrts_words(words: str, precision: str) -> None:
    assert told(Name="l", Inputs=[tensor(words)], Outputs=[tensor("FP4")]).precision == precision


def test_formats_and_types_under_other_keys() -> None:
    layer = told(Name="l", Inputs=[{"Name": "t", "Format": "kLINEAR", "Datatype": "Half"}], TacticValue="0x3ea")
    assert (layer.inputs, layer.precision, layer.tactic) == (("kLINEAR Half",), "fp16", "0x3ea")
    assert told(Name="l", Inputs=[tensor("")], Weights={"Type": "Int8", "Count": 4}).precision == "int8"


@pytest.mark.parametrize(
    ("fields", "plugin"),
    [
        ({"LayerType": "PluginV3", "PluginType": "LslaAttention"}, "LslaAttention"),
        ({"LayerType": "PluginV3", "Metadata": "[ONNX Layer: lsla_attention_0]"}, "PluginV3"),
        ({"LayerType": "kgen", "ParameterType": "PluginV3", "PluginName": "QLslaAttention"}, "QLslaAttention"),
        ({"LayerType": "PluginV2", "PluginType": "Somebody"}, "Somebody"),
        ({"LayerType": "Convolution", "Name": "LslaAttention"}, ""),
    ],
)
def test_plugins_are_named(fields: dict[str, object], plugin: str) -> None:
    assert told(**{"Name": "lsla_attention_0", **fields}).plugin == plugin


def test_an_engine_without_details_gives_names() -> None:
    layers = read_layers('{"Layers": ["conv1 + gelu", "LslaAttention"], "Bindings": ["images", "logits"]}', "x")
    assert layers == (
        EngineLayer("conv1 + gelu", nodes=("conv1", "gelu")),
        EngineLayer("LslaAttention", nodes=("LslaAttention",), plugin="LslaAttention"),
    )


def test_an_engine_that_tells_nothing_gives_none() -> None:
    assert read_layers("", "x") == read_layers("{}", "x") == read_layers('{"Layers": []}', "x") == ()


@pytest.mark.parametrize("fields", [{"Name": 3}, {"Inputs": "x", "Outputs": [1]}, {"Metadata": [], "Weights": 1}, {}])
def test_fields_of_other_types_are_left_out(fields: dict[str, object]) -> None:
    layer = told(**fields)
    assert (layer.kind, layer.precision, layer.inputs, layer.outputs) == ("", "", (), ())


@pytest.mark.parametrize("text", ["{", "[]", '{"Layers": 3}', '{"Layers": [4]}', "[" * 100_000])
def test_other_answers_are_refused(text: str) -> None:
    with pytest.raises(EdgeLslaError, match=r"inspector's answer cannot be read: x\.engine; report this"):
        read_layers(text, "x.engine")


class TellingEngine(HostEngine):
    """An engine in host memory that also tells of itself."""

    fails_at: int | None = None
    told = 0

    def execution(self, *given: object) -> TellingExecution:
        made = super().execution(*given)  # type: ignore[arg-type]
        made.__class__ = TellingExecution
        return made  # type: ignore[return-value]

    def layers(self) -> str:
        assert self.gpu.depth
        return '{"Layers": ["conv", "head"]}'


class TellingExecution(HostExecution):
    engine: TellingEngine

    def profile(self) -> list[tuple[str, float]]:
        self.enqueue()
        self.stream.synchronise()
        self.engine.told += 1
        if self.engine.told == self.engine.fails_at:
            self.enqueue()
            raise EdgeLslaError("TensorRT failed while profiling")
        return [("conv", float(self.engine.told)), ("head", 1.0)]


@pytest.fixture
def gpu() -> HostGpu:
    return HostGpu()


def executor(gpu: HostGpu, engines: list[TellingEngine]) -> Executor:
    def make() -> TellingEngine:
        engines.append(TellingEngine(gpu))
        return engines[-1]

    return Executor(gpu, make)


def test_profiling_runs_on_its_own_and_leaves_nothing(gpu: HostGpu) -> None:
    engines: list[TellingEngine] = []
    running = executor(gpu, engines)
    running.run(images(4))
    before, engines[0].batches[:] = [*gpu.living], []
    rounds = running.profile(images(4), 3)
    assert rounds == [[("conv", WARM_UP + 1.0 + n), ("head", 1.0)] for n in range(3)]
    assert engines[0].batches == [4] * (WARM_UP + 3)
    assert gpu.living == before
    assert running.run(images(4)).shape == (4, CLASSES)
    assert running.layers() == '{"Layers": ["conv", "head"]}'
    running.close()
    assert not gpu.living
    for call in (lambda: running.profile(images(4), 1), running.layers):
        with pytest.raises(UsageError, match="closed"):
            call()


def test_only_whole_batches_are_profiled(gpu: HostGpu) -> None:
    running = executor(gpu, [])
    with pytest.raises(UsageError, match="takes no batch of 9 in one go"):
        running.profile(images(9), 1)
    with pytest.raises(UsageError, match="repeats"):
        running.profile(images(1), 0)
    running.close()


def test_a_failure_while_profiling_frees_the_execution(gpu: HostGpu) -> None:
    engines: list[TellingEngine] = []
    running = executor(gpu, engines)
    before = [*gpu.living]
    engines[0].fails_at = 2
    with pytest.raises(EdgeLslaError, match="failed while profiling"):
        running.profile(images(1), 5)
    assert gpu.living == before
    assert running.run(images(1)).shape == (1, CLASSES)
    running.close()
    assert not gpu.living


def used(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    monkeypatch.setitem(names.HOLDS, "inspector", "EngineInspector")
    return names.used()


@pytest.mark.parametrize("path", names.RECORDED, ids=lambda path: path.stem)
def test_inspector_and_profiler_exist_in_the_recording(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {"ICudaEngine.create_engine_inspector", "EngineInspector.get_engine_information", "IProfiler",
                "LayerInformationFormat.JSON", "IExecutionContext.profiler", "IExecutionContext.report_to_profiler",
                "IExecutionContext.enqueue_emits_profile"}  # fmt: skip
    assert expected <= used(monkeypatch)
    recorded = set(path.read_text(encoding="ascii").split())
    assert used(monkeypatch) - recorded <= names.RTX_ONLY
    # What ours implements, and TensorRT calls.
    assert "IProfiler.report_layer_time" in recorded


@pytest.mark.skipif(names.RTX is None, reason="tensorrt-rtx is not installed (make runtimes)")
def test_the_real_base_class_takes_our_profiler() -> None:
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(names.RTX)])}
    command = [sys.executable, "-W", "ignore", "-c", MAKE_PROFILER]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[('conv', 1.5)]"), done.stderr
