"""What the doctor finds of GPUs, their libraries and trust: every part sound, absent or broken, and never a fall."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_lsla import doctor
from edge_lsla.device import Device, PluginLibrary
from edge_lsla.doctor import Check, examine

ROOT = Path(__file__).parents[1]
ORIN = Device(
    machine="aarch64", gpu="Orin", capability=87, driver="540.4.0", cuda="12.6", l4t="36.4.3", jetpack="6.2",
    memory_shared=True, gpu_memory_total=7600 * 2**20,
    plugin=PluginLibrary(Path("/opt/p.so"), "d" * 64, "aarch64", 1, "c" * 64, (86, 87), 80),
)  # fmt: skip
NAMES = {
    "NVIDIA driver", "NVIDIA GPU", "TensorRT (backend tensorrt)", "TensorRT for RTX (backend tensorrt-rtx)",
    "Plugin library (backend tensorrt)", "pycuda (engines)", "cuda-python (CUDA graphs)", "cryptography (signatures)",
    "Trusted keys", "Engine cache",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_LSLA_TRUSTED_KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("EDGE_LSLA_ENGINE_CACHE", str(tmp_path / "engines"))


def look(device: Device, monkeypatch: pytest.MonkeyPatch) -> dict[str, Check]:
    """The GPU's checks for another device than this."""
    monkeypatch.setattr("edge_lsla.device.describe_device", lambda: device)
    return {check.name: check for check in doctor._gpu_checks()}


def test_everything_absent_is_not_needed_and_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr("edge_lsla.device.describe_device", lambda: Device("x86_64"))
    found = {check.name: check for check in examine()}
    assert found.keys() >= NAMES
    assert "JetPack" not in found
    for name in NAMES:
        assert not found[name].needed
        assert found[name].found or found[name].remedy, name
    assert found["NVIDIA driver"].remedy.endswith("sudo ubuntu-drivers install")
    assert found["Plugin library (backend tensorrt)"].remedy == "in a checkout: python cli.py plugin build"
    json.dumps([check.to_dict() for check in found.values()])


def test_a_jetson_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    found = look(ORIN, monkeypatch)
    assert found["JetPack"].detail == "6.2, Jetson Linux 36.4.3"
    assert found["NVIDIA driver"].detail == "540.4.0, CUDA 12.6"
    assert found["NVIDIA GPU"].detail == "Orin, sm87, 7,600 MB shared with the CPU"
    assert found["Plugin library (backend tensorrt)"].detail == (
        "/opt/p.so, kernels for sm86, sm87, PTX from sm80; they fit this GPU, sm87"
    )
    assert "nvidia-jetpack" in look(dataclasses.replace(ORIN, driver=None, cuda=None), monkeypatch)[
        "NVIDIA driver"].remedy  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "found", "detail", "remedy"),
    [
        ({"capability": 120}, True, "the driver compiles them for this GPU, sm120, slower", ""),
        ({"capability": 75}, False, "none fits this GPU, sm75", "python cli.py plugin build --arch 75"),
        ({"machine": "x86_64"}, False, "it is for aarch64", "python cli.py plugin build"),
        ({"plugin": None, "notices": ("plugin library is damaged: /p.so; make it",)}, False,
         "plugin library is damaged: /p.so", "python cli.py plugin build"),
        ({"capability": None}, True, "PTX from sm80", ""),
    ],
)  # fmt: skip
def test_a_plugin_library_fits_or_says_what_makes_one_that_does(
    changes: dict[str, object], found: bool, detail: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = look(dataclasses.replace(ORIN, **changes), monkeypatch)["Plugin library (backend tensorrt)"]  # type: ignore[arg-type]
    assert check.found is found
    assert check.detail.endswith(detail)
    assert check.remedy.endswith(remedy)


def test_a_broken_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    notice = "the CUDA driver answers with error 803: libcuda.so.1; restart the device"
    check = look(Device("x86_64", notices=(notice,)), monkeypatch)["NVIDIA driver"]
    assert (check.found, check.detail, check.remedy) == (
        False, "the CUDA driver answers with error 803: libcuda.so.1", "restart the device")  # fmt: skip


def broken(folder: Path, package: str, module: str, source: str) -> None:
    """A package that is installed, as its metadata says, and whose module is as given."""
    metadata = folder / f"{package.replace('-', '_')}-1.2.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    place = folder / Path(*module.split("."))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.with_suffix(".py").write_text(source)


def test_broken_packages_are_told_by_a_process_of_their_own(tmp_path: Path) -> None:
    """Each is loaded where its crash ends nothing, and none of them here."""
    site = tmp_path / "site"
    broken(site, "pycuda", "pycuda.driver", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    broken(site, "cuda-python", "cuda.bindings.driver", "raise RuntimeError('no\\x1b driver')")
    (site / "tensorrt.py").write_text("def (:")
    (site / "tensorrt_rtx.py").write_text("raise RuntimeError('half an installation')")
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o777)
    keys.chmod(0o777)
    (tmp_path / "engines").write_text("no folder")
    code = (
        "import json, sys\nfrom edge_lsla.doctor import examine\n"
        "print(json.dumps([c.to_dict() for c in examine()]))\n"
        "heavy = {'tensorrt', 'tensorrt_rtx', 'pycuda', 'cuda', 'torch', 'cv2', 'onnxruntime'}\n"
        "print(heavy & set(sys.modules), file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{site}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "set()\n"), done.stderr
    found = {one["name"]: one for one in json.loads(done.stdout)}
    for name, words in {
        "pycuda (engines)": "1.2, does not load: ends with -11",
        "cuda-python (CUDA graphs)": "1.2, does not load: RuntimeError: no\x1b driver",
        "TensorRT (backend tensorrt)": "TensorRT does not load: SyntaxError",
        "TensorRT for RTX (backend tensorrt-rtx)": "TensorRT for RTX does not load: RuntimeError: half an inst",
        "Trusted keys": "open to other users (mode 0777)",
        "Engine cache": "is not a folder",
    }.items():
        assert words in found[name]["detail"], found[name]
        assert (found[name]["found"], found[name]["needed"]) == (False, False)
        assert found[name]["remedy"]


def test_keys_and_engines_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="keys need cryptography")
    from edge_lsla.bundle import generate_key

    keys, engines = tmp_path / "keys", tmp_path / "engines"
    keys.mkdir(mode=0o755)
    generate_key(keys / "release.pem")
    engines.mkdir(mode=0o700)
    (engines / "a.engine").write_bytes(bytes(3_000_000))
    found = {check.name: check for check in doctor._trust_checks()}
    assert found["Trusted keys"].detail == f"1 in {keys}"
    assert found["Engine cache"].detail.startswith(f"{engines}, 1 engines, 3.0 MB; ")
    assert all(check.found for check in found.values())


def test_whatever_goes_wrong_is_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fall(*_: object) -> None:
        raise ZeroDivisionError("odd\nsecond line")

    monkeypatch.setattr("edge_lsla.device.describe_device", fall)
    monkeypatch.setattr("edge_lsla.build.tensorrt.builder.describe_runtime", fall)
    monkeypatch.setattr("edge_lsla.bundle.trust.trusted_keys", fall)
    found = {check.name: check for check in examine()}
    for name in ("TensorRT (backend tensorrt)", "Trusted keys"):
        assert (found[name].found, found[name].detail) == (False, "odd")
    assert not found["NVIDIA GPU"].found
