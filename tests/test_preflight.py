"""Every way in which an artifact and a device can differ, each with its sentence and the class of its exit code."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from edge_lsla.bundle import Artifact, Manifest, Passport, Tolerance
from edge_lsla.bundle.manifest import GOLDEN_INPUTS, Golden, golden_logits_name
from edge_lsla.device import Device, PluginLibrary
from edge_lsla.engine_facts import engine_versions
from edge_lsla.errors import CompatibilityError, EdgeLslaError, TrustError
from edge_lsla.preflight import check_artifact, check_graph, refuse
from edge_lsla.preprocessing import Preprocessing

INDEX, LIBRARY = "c" * 64, "d" * 64
MB = 2**20

ORIN = Device(
    machine="aarch64",
    gpu="Orin",
    capability=87,
    driver="540.4.0",
    cuda="12.6",
    l4t="36.4.3",
    jetpack="6.2",
    memory_total=7600 * MB,
    memory_available=5000 * MB,
    memory_shared=True,
    gpu_memory_total=7600 * MB,
    gpu_memory_available=5000 * MB,
    tensorrt="10.3.0",
    onnxruntime="1.23.2",
    plugin=PluginLibrary(Path("/opt/p.so"), LIBRARY, "aarch64", 1, INDEX, (86, 87), 80),
)
DESKTOP = Device(
    machine="x86_64",
    gpu="NVIDIA GeForce RTX 3060",
    capability=86,
    driver="580.65.06",
    cuda="13.0",
    memory_shared=False,
    gpu_memory_total=12000 * MB,
    gpu_memory_available=11000 * MB,
    tensorrt_rtx="1.7.1.116",
    onnxruntime="1.23.2",
)

BUILT = {
    "tensorrt": "10.3.0.30",
    "gpu": "Orin",
    "driver": "540.4.0",
    "cuda": "12.6",
    "l4t": "36.4.3",
    "machine": "aarch64",
    "plugin_sha256": LIBRARY,
    "cubin_index": INDEX,
    "operator_version": "1",
    "profiles": "1-4-8,16-16-16",
    "memory_bytes": str(100 * MB),
}


def artifact(backend: str, kind: str, versions: dict[str, str], targets: tuple[str, ...] = ()) -> Artifact:
    return Artifact(f"{backend}-int8.{kind}", backend, "int8", kind, versions, targets, "0" * 64, 40 * MB)


ENGINE = artifact("tensorrt", "engine", BUILT, ("sm87",))
ONNX = artifact("tensorrt", "onnx", {"tensorrt": "10.3.0"})
RTX = artifact("tensorrt-rtx", "engine", {"tensorrt-rtx": "1.7.1.116", "cuda": "13.0"}, ("sm86", "sm89"))
RTX_ONNX = artifact("tensorrt-rtx", "onnx", {"tensorrt-rtx": "1.7.1.116", "needs": "1.7"})
CPU = artifact("onnxruntime", "onnx", {"onnxruntime": "1.23.2", "opset": "20"})


def passport(plugin: bool = True, held: tuple[Artifact, ...] = (CPU, ONNX, RTX_ONNX)) -> Passport:
    entries = {golden_logits_name(one.backend, one.precision): "0" * 64 for one in held}
    return Manifest(
        name="m",
        created="2025-01-31T12:00:00Z",
        edge_lsla="0.1.0",
        model={},
        labels=("a",),
        preprocessing=Preprocessing(image_size=4),
        digests={},
        precisions={},
        fidelity={},
        plugin={"operator_version": "1", "cubin_index": INDEX} if plugin else None,
        artifacts=held,
        golden=Golden(1, {GOLDEN_INPUTS: "0" * 64, **entries}, {"int8": Tolerance(1.0)}),
    )


def built(**versions: str | None) -> Artifact:
    """Change what the Jetson's engine was built with; None leaves a fact out."""
    left = {key: value for key, value in {**BUILT, **versions}.items() if value is not None}
    return dataclasses.replace(ENGINE, versions=left)


def library(**changes: Any) -> Device:
    assert ORIN.plugin is not None
    return dataclasses.replace(ORIN, plugin=dataclasses.replace(ORIN.plugin, **changes))


def orin(**changes: Any) -> Device:
    return dataclasses.replace(ORIN, **changes)


def desktop(**changes: Any) -> Device:
    return dataclasses.replace(DESKTOP, **changes)


HERE = "build the engine here: `build-engine b.lsla -o NEW.lsla --backend tensorrt`"
HERE_RTX = "build the engine here: `build-engine b.lsla -o NEW.lsla --backend tensorrt-rtx`"
AGAIN = f"measure it: `benchmark b.lsla`; if it is slower, {HERE}"
CPU_TOO = "or run the bundle on the CPU: --backend onnxruntime"
JETPACK = "on a Jetson: sudo apt install nvidia-jetpack; elsewhere: pip install tensorrt"
NO_GPU = {"gpu": None, "capability": None, "gpu_memory_total": None, "gpu_memory_available": None}

# code: (artifact, device, options, exit code (0: it only warns), what, remedy)
MATRIX: dict[str, tuple[Artifact, Device, dict[str, Any], int, str, str]] = {
    "backend-missing": (
        ENGINE, orin(tensorrt=None), {}, 3, "TensorRT is not installed on this device", JETPACK
    ),
    "backend-missing rtx": (
        RTX, desktop(tensorrt_rtx=None), {}, 3,
        "TensorRT for RTX is not installed on this device", "pip install tensorrt-rtx-cu13",
    ),
    "backend-missing cpu": (
        CPU, orin(onnxruntime=None), {}, 3, "ONNX Runtime is not installed on this device", "pip install onnxruntime"
    ),
    "backend-old": (
        ONNX, orin(tensorrt="8.5.2.2"), {}, 4,
        "edge-lsla needs TensorRT 10.3 or newer and this device has 8.5.2.2", f"update it: {JETPACK}",
    ),
    "backend-old rtx": (
        RTX_ONNX, desktop(tensorrt_rtx="1.0.0.21"), {}, 4,
        "edge-lsla needs TensorRT for RTX 1.7 or newer and this device has 1.0.0.21",
        "update it: pip install tensorrt-rtx-cu13",
    ),
    "parser-old": (
        artifact("tensorrt", "onnx", {"needs": "10.7"}), ORIN, {}, 4,
        "ONNX needs TensorRT 10.7 or newer and this device has 10.3.0", f"update it: {JETPACK}",
    ),
    "parser-untried": (
        artifact("onnxruntime", "onnx", {"onnxruntime": "1.24.1"}), ORIN, {}, 0,
        "ONNX was tried with ONNX Runtime 1.24.1 and this device has the older 1.23.2", "try it: `selftest b.lsla`",
    ),
    "tensorrt-jetson": (
        ONNX, orin(tensorrt="11.3.0.5", l4t="36.4.3"), {}, 4,
        "TensorRT 11.3.0.5 does not support Jetsons and this is one, with Jetson Linux 36.4.3",
        f"install JetPack's own TensorRT: {JETPACK}",
    ),
    "bits": (
        ONNX, orin(bits=32), {}, 4,
        "TensorRT needs 64 bits and this Python has 32", "install a 64-bit system and Python",
    ),
    "rtx-machine": (
        RTX_ONNX, desktop(machine="aarch64"), {}, 4,
        "TensorRT for RTX runs on x86_64 and this processor is aarch64",
        f"use TensorRT: `build-engine b.lsla -o NEW.lsla --backend tensorrt`, {CPU_TOO}",
    ),
    "engine-machine": (
        built(machine="x86_64"), ORIN, {}, 4,
        "engine was built on x86_64 and this processor is aarch64", HERE,
    ),
    "no-driver": (
        RTX, desktop(driver=None, cuda=None, **NO_GPU), {}, 3,
        "TensorRT for RTX needs NVIDIA's driver and this device has none", f"install the driver, {CPU_TOO}",
    ),
    "no-gpu": (
        RTX, desktop(**NO_GPU), {}, 3,
        "TensorRT for RTX needs an NVIDIA GPU and the driver (580.65.06) finds none", f"check `nvidia-smi`, {CPU_TOO}",
    ),
    "gpu-unsupported": (
        RTX, desktop(gpu="NVIDIA H100", capability=90), {}, 4,
        "TensorRT for RTX supports sm75, sm80, sm86, sm89, sm120, sm121 and this GPU, NVIDIA H100, is sm90",
        f"use TensorRT: `build-engine b.lsla -o NEW.lsla --backend tensorrt`, {CPU_TOO}",
    ),
    "gpu-unsupported old": (
        ONNX, library(architectures=(61,)), {"device": {"gpu": "NVIDIA GeForce GTX 1080", "capability": 61}}, 4,
        "TensorRT supports sm75 and later and this GPU, NVIDIA GeForce GTX 1080, is sm61",
        f"use a newer GPU, {CPU_TOO}",
    ),
    "target": (
        RTX, desktop(gpu="NVIDIA GeForce RTX 5070", capability=120), {}, 4,
        "engine was built for sm86, sm89 and this GPU, NVIDIA GeForce RTX 5070, is sm120",
        "build the engine here: `build-engine b.lsla -o NEW.lsla --backend tensorrt-rtx --target sm120`",
    ),
    "target tensorrt": (
        dataclasses.replace(ENGINE, targets=("sm86",)), ORIN, {}, 4,
        "engine was built for sm86 and this GPU, Orin, is sm87", HERE,
    ),
    "driver-old": (
        RTX, desktop(driver="550.54.15", cuda="12.4"), {}, 4,
        "engine needs CUDA 13.0 and the driver 550.54.15 knows CUDA 12.4 at most", f"update the driver, or {HERE_RTX}",
    ),
    "cuda-minor": (
        dataclasses.replace(RTX, versions={**RTX.versions, "cuda": "13.2"}), DESKTOP, {}, 0,
        "engine needs CUDA 13.2 and the driver 580.65.06 knows CUDA 13.0 at most",
        "update the driver if the engine does not load",
    ),
    "untrusted": (
        ENGINE, ORIN, {"trust": TrustError("bundle is not signed", "b.lsla", "sign it: `bundle sign`")}, 4,
        "bundle is not signed", "sign it: `bundle sign`",
    ),
    "facts-missing": (
        built(tensorrt=None), ORIN, {}, 4,
        "the manifest does not say which version of TensorRT built the engine", HERE,
    ),
    "facts-damaged": (
        built(profiles="1-8"), ORIN, {}, 2,
        "the manifest's profiles cannot be '1-8'", "rebuild the bundle",
    ),
    "engine-version": (
        built(tensorrt="10.3.1"), ORIN, {}, 4,
        "engine was built with TensorRT 10.3.1 and this device has 10.3.0", HERE,
    ),
    "engine-version rtx": (
        RTX, desktop(tensorrt_rtx="1.8.0.1"), {}, 4,
        "engine was built with TensorRT for RTX 1.7.1.116 and this device has 1.8.0.1", HERE_RTX,
    ),
    "engine-version nonsense": (
        built(tensorrt="banana"), ORIN, {}, 4,
        "engine was built with TensorRT banana and this device has 10.3.0", HERE,
    ),
    "engine-newer": (
        built(tensorrt="10.13.3", version_compatible="1"), ORIN, {}, 4,
        "engine was built with TensorRT 10.13.3 and this device has 10.3.0, which is older",
        f"update TensorRT, or {HERE}",
    ),
    "engine-major": (
        built(tensorrt="8.6.1", version_compatible="1"), ORIN, {"device": {"tensorrt": "11.4.1"}}, 4,
        "engine was built with TensorRT 8.6.1 and this device has 11.4.1, too many releases later", HERE,
    ),
    "gpu-name": (
        built(gpu="Orin (nvgpu)"), ORIN, {}, 4,
        "engine was built for the GPU Orin (nvgpu) and this one is Orin", HERE,
    ),
    "driver": (
        built(driver="540.3.0"), ORIN, {}, 0,
        "engine was built with driver 540.3.0 and this device has 540.4.0", AGAIN,
    ),
    "cuda-major": (
        built(cuda="11.4"), ORIN, {}, 4, "engine was built with CUDA 11.4 and this device has CUDA 12.6", HERE
    ),
    "l4t-only-there": (
        ENGINE, orin(l4t=None), {}, 4,
        "engine was built on a Jetson with Jetson Linux 36.4.3 and this device is no Jetson", HERE,
    ),
    "l4t-only-here": (
        built(l4t=None), ORIN, {}, 4,
        "engine was not built on a Jetson and this device is one, with Jetson Linux 36.4.3", HERE,
    ),
    "l4t-major": (
        built(l4t="38.2.0"), ORIN, {}, 4, "engine was built with Jetson Linux 38.2.0 and this device has 36.4.3", HERE
    ),
    "l4t-minor": (
        built(l4t="36.4.0"), ORIN, {}, 0, "engine was built with Jetson Linux 36.4.0 and this device has 36.4.3", AGAIN
    ),
    "operator-newer": (
        built(operator_version="2"), ORIN, {}, 4,
        "artifact needs version 2 of the operators and this edge-lsla has 1",
        "update edge-lsla and its plugin library on this device",
    ),
    "attention-unknown": (
        artifact("tensorrt-rtx", "onnx", {"attention": "flash"}), DESKTOP, {}, 4,
        "attention is written in a form that this edge-lsla does not know, 'flash'",
        "update edge-lsla, or rebuild the bundle",
    ),
    "attention-plugin": (
        artifact("tensorrt-rtx", "onnx", {"attention": "plugin"}), DESKTOP, {}, 4,
        "attention is left to the plugin, and TensorRT for RTX takes none",
        "rebuild the bundle from its checkpoint with --backend tensorrt-rtx",
    ),
    "plugin-missing": (
        ONNX, orin(plugin=None), {}, 3,
        "artifact needs the plugin library and this device has none", "make it: `plugin build`",
    ),
    "plugin-missing damaged": (
        ENGINE, orin(plugin=None, notices=("plugin library is damaged, or not one of edge-lsla: /p.so; make it",)),
        {}, 3,
        "artifact needs the plugin library and the plugin library is damaged, or not one of edge-lsla",
        "make it: `plugin build`",
    ),
    "plugin-machine": (
        ONNX, library(machine="x86_64"), {}, 4,
        "plugin library /opt/p.so is for x86_64 and this processor is aarch64",
        "make it on this device: `plugin build`",
    ),
    "plugin-index": (
        built(cubin_index="e" * 64), ORIN, {}, 4,
        "plugin library's kernels are cccccccccccc and the artifact was made with eeeeeeeeeeee",
        f"install the plugin of that release, or {HERE}",
    ),
    "plugin-other": (
        ONNX, library(index_digest="e" * 64), {}, 0,
        "plugin library's kernels are eeeeeeeeeeee and the artifact was made with cccccccccccc",
        "check the numbers: `selftest b.lsla`",
    ),
    "plugin-rebuilt": (
        built(plugin_sha256="e" * 64), ORIN, {}, 0,
        "plugin library is dddddddddddd and the engine was built with eeeeeeeeeeee, of the same kernels",
        "nothing to do unless `selftest b.lsla` fails",
    ),
    "plugin-architecture": (
        ENGINE, library(architectures=(89, 110), ptx=None), {}, 4,
        "plugin library has kernels for sm89, sm110 and this GPU is sm87",
        "make it with them: `plugin build --arch 87`",
    ),
    "plugin-ptx": (
        ENGINE, library(architectures=(), ptx=80), {}, 0,
        "plugin library has kernels for no GPU and this GPU is sm87, for which the driver compiles them, slower",
        "run `plugin build`",
    ),
    "facts-damaged number": (
        built(memory_bytes="much"), ORIN, {}, 2,
        "the manifest's memory_bytes cannot be 'much'", "rebuild the bundle",
    ),
    "batch": (
        ENGINE, ORIN, {"batch": 12}, 4,
        "engine's profiles cover batches of 1 to 8 and 16 to 16 and 12 is asked for",
        f"choose another --batch, or {HERE[:-1]} --batch 12`",
    ),
    "batch below": (
        built(profiles="4-4-8"), ORIN, {}, 4,
        "engine's profiles cover batches of 4 to 8 and 1 is asked for",
        f"choose another --batch, or {HERE[:-1]} --batch 1`",
    ),
    "memory-total": (
        ENGINE, orin(gpu_memory_total=128 * MB, gpu_memory_available=100 * MB), {}, 4,
        "artifact needs 140 MB of memory and this device has 128 MB",
        f"use a smaller batch, model or precision, {CPU_TOO}",
    ),
    "memory-free": (
        RTX, desktop(gpu_memory_available=30 * MB), {}, 4,
        "artifact needs 40 MB of GPU memory and 30 MB of 12,000 MB are free",
        "close other programs, or use a smaller batch",
    ),
    "memory-tight": (
        ONNX, ORIN, {"memory_needed": 4900 * MB}, 0,
        "artifact needs 4,900 MB of memory and only 5,000 MB are free", "close other programs if it fails",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MATRIX)
def test_a_mismatch_is_one_sentence_with_both_values_and_a_remedy(name: str) -> None:
    made, device, options, code, what, remedy = MATRIX[name]
    options = dict(options)
    device = dataclasses.replace(device, **options.pop("device", {}))
    found = check_artifact(made, passport(), device, bundle="b.lsla", **options)
    one = next((one for one in found if one.code == name.partition(" ")[0]), None)
    assert one is not None, [other.sentence for other in found]
    assert one.sentence == f"{what}: {made.name}; {remedy}"
    assert (one.error.exit_code if one.error else 0) == code
    assert one.to_dict() == {"code": one.code, "sentence": one.sentence, "refuses": code != 0}
    if code == 0:
        assert [other.code for other in found] == [one.code]  # a warning alone lets it run
        refuse(found)
    else:
        with pytest.raises(EdgeLslaError) as caught:
            refuse((one,))
        assert str(caught.value) == one.sentence
        assert caught.value.exit_code == code


def test_the_matrix_covers_every_code_of_the_module() -> None:
    import re

    from edge_lsla import preflight

    text = Path(preflight.__file__).read_text(encoding="utf-8")
    codes = set(re.findall(r'case\.(?:no|warn)\(\s*"([a-z0-9-]+)"', text))
    assert codes == {name.partition(" ")[0] for name in MATRIX}
    assert len(codes) > 20


@pytest.mark.parametrize(
    ("made", "device"),
    [(ENGINE, ORIN), (ONNX, ORIN), (CPU, ORIN), (RTX, DESKTOP), (RTX_ONNX, DESKTOP), (CPU, Device("x86_64"))],
    ids=["engine", "onnx", "cpu", "rtx", "rtx onnx", "cpu alone"],
)
def test_what_fits_has_no_mismatch(made: Artifact, device: Device) -> None:
    device = dataclasses.replace(device, onnxruntime="1.23.2")
    assert check_artifact(made, passport(), device, batch=8 if made is ENGINE else 1) == ()


def test_a_version_compatible_engine_runs_on_later_releases_of_its_major_and_on_11_from_10() -> None:
    flexible = built(tensorrt="10.3.0", version_compatible="1")
    for version in ("10.3.0", "10.16.1.11", "11.4.1"):
        assert check_artifact(flexible, passport(), orin(tensorrt=version)) == ()
    assert check_artifact(flexible, passport(), orin(tensorrt="12.0.0"))[0].code == "engine-major"
    rtx = dataclasses.replace(RTX, versions={**RTX.versions, "version_compatible": "1"})
    assert check_artifact(rtx, passport(), desktop(tensorrt_rtx="1.7.2.1"))[0].code == "engine-version"


def test_what_an_engine_was_built_on_is_recorded_in_the_form_that_is_checked() -> None:
    recorded = engine_versions(ORIN, "tensorrt", "10.3.0.30", ((1, 4, 8), (16, 16, 16)), 100 * MB)
    assert recorded == BUILT
    assert engine_versions(None, "tensorrt-rtx", "1.7.1.116", [(1, 1, 1)]) == {
        "tensorrt-rtx": "1.7.1.116",
        "profiles": "1-1-1",
        "memory_bytes": "0",
    }


def test_an_onnx_without_the_plugin_needs_none() -> None:
    for form in ("function", "split"):
        plain = artifact("tensorrt", "onnx", {"attention": form})
        assert check_artifact(plain, passport(), orin(plugin=None)) == ()
    assert check_artifact(ONNX, passport(plugin=False), orin(plugin=None)) == ()


def test_trust_is_for_engines_only() -> None:
    refused = TrustError("bundle is not signed", "b.lsla", "sign it")
    assert check_artifact(ONNX, passport(), ORIN, trust=refused) == ()
    assert check_artifact(CPU, passport(), ORIN, trust=refused) == ()


def test_the_first_refusal_is_raised_with_all_as_details() -> None:
    found = check_artifact(built(driver="1.0", gpu="Xavier", l4t="35.1.0"), passport(), ORIN, batch=99)
    assert [one.code for one in found] == ["gpu-name", "driver", "l4t-major", "batch"]
    with pytest.raises(CompatibilityError, match="the GPU Xavier and this one is Orin") as caught:
        refuse(found)
    assert [one["code"] for one in caught.value.details["mismatches"]] == [one.code for one in found]
    assert [one["refuses"] for one in caught.value.details["mismatches"]] == [True, False, True, True]


def test_remedies_can_be_typed_for_the_bundle_at_hand() -> None:
    """A path is quoted, and neither a graph nor the CPU is offered that the bundle does not have."""
    found = check_artifact(RTX, passport(), desktop(tensorrt_rtx="1.8.0"), bundle="my bundle.lsla")
    assert found[0].remedy.endswith("`build-engine 'my bundle.lsla' -o NEW.lsla --backend tensorrt-rtx`")
    alone = passport(held=(RTX,))
    (no_graph,) = check_artifact(RTX, alone, desktop(tensorrt_rtx="1.8.0"))
    assert no_graph.remedy == "rebuild the bundle from its checkpoint with --backend tensorrt-rtx"
    (no_gpu,) = check_artifact(RTX, alone, desktop(**NO_GPU))
    assert no_gpu.remedy == "check `nvidia-smi`"
    (other,) = check_artifact(RTX_ONNX, passport(held=(RTX_ONNX,)), desktop(gpu="NVIDIA H100", capability=90))
    assert other.remedy == "rebuild the bundle from its checkpoint with --backend tensorrt"


@pytest.mark.parametrize(
    ("versions", "version", "codes"),
    [
        ({"tensorrt-rtx": "1.7.1.116", "attention": "split"}, "1.7.1.116", []),
        ({"tensorrt-rtx": "1.7.1.116"}, None, []),
        ({"needs": "1.9"}, "1.7.1.116", ["parser-old"]),
        ({}, "1.6.0", ["backend-old"]),
        ({"attention": "flash", "memory_bytes": "abc"}, "1.7.1.116", ["facts-damaged", "attention-unknown"]),
        ({"attention": "plugin", "operator_version": "9"}, None, ["attention-plugin", "operator-newer"]),
    ],
)
def test_a_graph_is_judged_without_its_gpu(versions: dict[str, str], version: str | None, codes: list[str]) -> None:
    graph = artifact("tensorrt-rtx", "onnx", versions)
    assert [one.code for one in check_graph(graph, passport(), version)] == codes


@pytest.mark.parametrize("text", ["", "9" * 250, "-1", "1e9", "\uff11\uff10", "10.3.0;rm", "..", "10.", "\u202e10"])
def test_absurd_facts_are_refused_or_harmless_and_never_a_crash(text: str) -> None:
    for key in [*BUILT, "needs", "version_compatible", "attention"]:
        for one in (built(**{key: text or " "}), dataclasses.replace(ONNX, versions={key: text or " "})):
            found = check_artifact(one, passport(), ORIN)
            assert all(mismatch.sentence.count("\n") == 0 for mismatch in found)
    assert check_artifact(built(tensorrt=text or " "), passport(), ORIN)[0].error is CompatibilityError
