"""Engines from the cache or the builder: a cache that is broken in part costs no engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from build_parts import RTX, needs_rtx, small

from edge_lsla.device import Device
from edge_lsla.engine_building import TypedGraph, _timing_cache, obtain_engine
from edge_lsla.engine_cache import EngineCache, EngineKey, EngineOptions

ROOT = Path(__file__).parents[2]
DEVICE = Device("x86_64")
TARGETS = ("sm86",)
GRAPH = TypedGraph(small(), "tensorrt-rtx", "fp32", "function")


@pytest.fixture
def cache(tmp_path: Path, rtx: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an engine cache in which nothing was built yet."""
    folder = tmp_path / "engines"
    monkeypatch.setenv("EDGE_LSLA_ENGINE_CACHE", str(folder))
    return EngineCache().folder


def obtain() -> int:
    return len(obtain_engine(GRAPH, TARGETS, EngineOptions(), DEVICE).data)


def link(path: Path) -> None:
    (path.parent / "elsewhere").mkdir()
    path.symlink_to(path.parent / "elsewhere")


def loose(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


UNUSABLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "link": (link, "is a symbolic link"),
    "open to others": (loose, "is open to other users (mode 0777)"),
    "file": (lambda path: path.write_text("") and None, "is not a folder"),
}


@needs_rtx
@pytest.mark.parametrize("name", UNUSABLE)
def test_a_work_folder_that_cannot_be_used(cache: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, why = UNUSABLE[name]
    make(cache / "work")
    assert obtain() > 1000
    said = capsys.readouterr().out
    assert f"a folder of the engine cache is not used: engine cache's folder 'work' {why}: {cache / 'work'}; " in said
    assert ", or set EDGE_LSLA_ENGINE_CACHE to another folder" in said
    obtain()
    assert "built before and kept" in capsys.readouterr().out


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_timing_folder_that_cannot_be_used(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, why = UNUSABLE[name]
    cache = EngineCache(tmp_path / "engines")
    make(cache.folder / "timing")
    assert _timing_cache(cache, DEVICE) is None
    assert f"engine cache's folder 'timing' {why}" in capsys.readouterr().out


FULL = """
set -e
mkdir -m 700 "$1/work"
mount -t tmpfs -o size=4k,mode=700 none "$1/work"
exec "$2" -c "$3"
"""
OBTAIN = """
import sys
sys.path.insert(0, "tests/build")
import test_obtain_engine as test
print(test.obtain(), "bytes")
"""


@needs_rtx
def test_a_full_work_folder(cache: Path, tmp_path: Path) -> None:
    """A real file system of 4 KiB, in a name space of its own."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount a file system of his own")
    (tmp_path / "temporary").mkdir()
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}:{RTX}", "TMPDIR": str(tmp_path / "temporary"), "COLUMNS": "500"}
    command = ["unshare", "-rm", "sh", "-c", FULL, "sh", str(cache), sys.executable, OBTAIN]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert (
        f"cannot write the build's files (No space left on device): {cache / 'work'}; free some space there, or set "
        "EDGE_LSLA_ENGINE_CACHE; building among the system's temporary files"
    ) in done.stdout
    assert done.stdout.rstrip().endswith(" bytes")
    assert not list((tmp_path / "temporary").iterdir())
    assert len(list(cache.glob("*.engine"))) == 1  # there is room for it


BAD_FACTS = {
    "none": "{}",
    "no JSON": "{",
    "too deep": "[" * 10**5 + "]" * 10**5,
    "a list": "[]",
    "of another engine": None,
    "endless": '{"targets": [], "profiles": [[Infinity, 1, 1]], "notices": []}',
}


@needs_rtx
@pytest.mark.parametrize("name", BAD_FACTS)
def test_facts_that_cannot_be_used_are_a_notice(
    cache: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[EngineKey] = []
    load = EngineCache.load
    monkeypatch.setattr(EngineCache, "load", lambda self, key: keys.append(key) or load(self, key))  # to learn the key
    obtain()
    entry = EngineCache().load(keys[0])
    assert entry is not None
    facts = BAD_FACTS[name] or json.dumps(json.loads(entry.facts["facts"]) | {"plan_bytes": 1})
    EngineCache().put(keys[0], entry.data, {"facts": facts})
    capsys.readouterr()
    assert obtain() == len(entry.data)
    said = capsys.readouterr().out
    assert f"facts of a cached engine cannot be used: {cache}; it is built again" in said
    assert "built before" not in said
    obtain()
    assert "built before and kept" in capsys.readouterr().out


@needs_rtx
def test_a_cache_that_disappears_costs_no_engine(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    obtain()
    shutil.rmtree(cache)
    cache.write_text("in its place")
    assert obtain() > 1000
    assert "engines are not kept: engine cache is not a folder" in capsys.readouterr().out
