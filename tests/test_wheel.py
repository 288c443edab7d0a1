"""What a field device installs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

BLOCKED = """
import sys
class Blocker:
    names = {"torch", "onnx", "onnxscript", "onnx_graphsurgeon", "typer", "rich", "av", "cv2", "matplotlib",
             "safetensors", "calibration", "cli", "plugins", "psutil"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocker())
"""


def test_the_wheel_holds_only_the_library(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True,
        capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        metadata = next(opened.read(name).decode() for name in names if name.endswith("METADATA"))
    tops = {name.split("/")[0] for name in names}
    assert tops == {"edge_lsla", wheel.name.rsplit("-", 3)[0] + ".dist-info"}
    assert any(name.endswith("entry_points.txt") for name in names)
    needed = {line.split(":")[1].split(">")[0].strip() for line in metadata.splitlines()
              if line.startswith("Requires-Dist") and "extra ==" not in line}  # fmt: skip
    assert needed == {"numpy", "pillow", "onnxruntime"}


def test_without_typer_the_command_says_what_to_install() -> None:
    program = BLOCKED + "import runpy\nrunpy.run_module('edge_lsla', run_name='__main__')"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 3
    assert result.stderr.startswith("error: ")
    assert "pip install typer rich" in result.stderr


def test_the_embedding_needs_nothing_else(tmp_path: Path, pictures: Path, checkpoint: Path) -> None:
    bundle = tmp_path / "x.lsla"
    subprocess.run(
        [sys.executable, "cli.py", "build-engine", str(checkpoint), "-o", str(bundle)], cwd=ROOT, check=True,
        capture_output=True,
    )  # fmt: skip
    picture = next((pictures / "test").rglob("*.jpg"))
    program = (
        f"from edge_lsla import load\nwith load({str(bundle)!r}, verify=True) as m: print(m({str(picture)!r})[0].label)"
    )
    out = subprocess.run(
        [sys.executable, "-c", BLOCKED + program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert out.stdout.strip() in ("ant", "bee", "lady beetle")
