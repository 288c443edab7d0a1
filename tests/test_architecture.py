"""One direction of imports, and light entry points."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Everything a stage may import besides itself. Two files compose stages: edge_lsla/app.py and cli.py.
SHARED = {
    "atomic",
    "bundle",
    "data",
    "description",
    "device",
    "engine_cache",
    "engine_facts",
    "errors",
    "events",
    "operator",
    "plugin_library",
    "predictions",
    "preflight",
    "preprocessing",
    "reading",
    "tensorrt",
    "__version__",
}
STAGES = {"model", "export", "surgery", "calibration", "build", "runner", "pipeline", "sinks"}
# What the field service is made of; none knows another, and `service` composes them.
STAGES |= {"records", "delivery", "status", "slots", "governor"}
# Training is the one use of the model that is no step towards the field; the plugin has verbs of its own.
ALSO = {"training": {"model"}, "plugins": {"console"}}
OUTSIDE = {"calibration", "plugins"}  # top-level folders, not in the wheel
COMPOSERS = {
    "__main__",
    "abstention",
    "app",
    "bundling",
    "comparing",
    "comparison_table",
    "forms",
    "gate_evaluations",
    "gate_pictures",
    "console",
    "counting",
    "doctor",
    "engine_building",
    "evaluation",
    "inspecting",
    "layer_picture",
    "layer_tables",
    "layer_times",
    "precision_choice",
    "precision_report",
    "quantising",
    "recalibrating",
    "service",
    "sources",
    "tables",
    "rebuilding",
    "timing",
    "typed_graphs",
    "verbs",
    "watching",
}
HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "tensorrt",
    "tensorrt_rtx",
    "triton",
    "pycuda",
    "cuda",
    "cv2",
    "av",
    "matplotlib",
    "paho",
    "prometheus_client",
    "starlette",
    "uvicorn",
    "trackers",
    "supervision",
)


def imported(path: Path) -> set[str]:
    """Return the parts of edge_lsla (and the other top-level packages of this repository) that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "edge_lsla" and len(parts) > 1:
                found.add(parts[1])
            elif parts[0] in ("calibration", "plugins", "cli"):
                found.add(parts[0])
    return found


def stage_files() -> list[tuple[str, Path]]:
    folders = {stage: ROOT / "edge_lsla" / stage for stage in (STAGES | set(ALSO)) - OUTSIDE}
    folders |= {name: ROOT / name for name in OUTSIDE}
    files = [(stage, path) for stage, folder in sorted(folders.items()) for path in sorted(folder.rglob("*.py"))]
    assert len(files) > 30
    return files


@pytest.mark.parametrize(("stage", "path"), stage_files(), ids=lambda v: v.name if isinstance(v, Path) else v)
def test_a_stage_imports_no_other_stage(stage: str, path: Path) -> None:
    assert imported(path) <= SHARED | {stage} | ALSO.get(stage, set())


def test_shared_modules_import_no_stage() -> None:
    for name in SHARED - {"__version__"}:
        place = ROOT / "edge_lsla" / name
        for path in [place.with_suffix(".py")] if place.with_suffix(".py").exists() else place.rglob("*.py"):
            assert imported(path) <= SHARED, path


def test_every_module_has_a_place_in_this_test() -> None:
    places = {p.stem for p in (ROOT / "edge_lsla").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert places - {"__init__"} == (SHARED - {"__version__"}) | (STAGES | set(ALSO) | COMPOSERS) - OUTSIDE


def test_the_library_never_imports_the_command_line() -> None:
    for path in (ROOT / "edge_lsla").rglob("*.py"):
        assert "cli" not in imported(path)
        if path.relative_to(ROOT / "edge_lsla").parts[0].removesuffix(".py") not in COMPOSERS:
            assert not imported(path) & {"app", "console"}, path


@pytest.mark.parametrize("arguments", [["-c", "import edge_lsla"], ["cli.py", "--help"], ["cli.py", "infer", "--help"],
                                       ["-m", "edge_lsla", "--help"]], ids=" ".join)  # fmt: skip
def test_entry_points_load_no_heavy_module(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", *arguments]
    log = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stderr
    loaded = {line.rpartition("|")[2].strip() for line in log.splitlines() if line.startswith("import time:")}
    assert "edge_lsla" in loaded
    assert not loaded & set(HEAVY)


def test_exported_names_exist_and_are_listed() -> None:
    import edge_lsla

    assert all(getattr(edge_lsla, name) is not None for name in edge_lsla.__all__)
    assert edge_lsla.__all__ == sorted(edge_lsla.__all__)
    with pytest.raises(AttributeError, match="no_such"):
        _ = edge_lsla.no_such
