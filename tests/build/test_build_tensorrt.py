"""The path of full TensorRT as far as a machine without a GPU goes: TensorRT for RTX stands in under its name.

What is TensorRT's own there (timing, caches of timings, plugins in networks) has not run here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from build_parts import LEAN, custom, needs_rtx, small

sys.path.append(str(Path(__file__).parents[1] / "plugins"))
import native_builds

from edge_lsla.build.tensorrt import builder
from edge_lsla.build.tensorrt.builder import build_engine, describe_runtime
from edge_lsla.build.tensorrt.settings import BuildSettings
from edge_lsla.errors import EdgeLslaError, GraphError, MissingComponentError, UsageError
from edge_lsla.tensorrt import flavours

ROOT = Path(__file__).parents[2]
TENSORRT = BuildSettings("tensorrt")


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "libplugin.so"
    path.write_text("not a library")
    return path


@needs_rtx
@pytest.mark.usefixtures("stand_in")
def test_it_builds_for_this_machine_without_targets(tiny: dict[str, bytes]) -> None:
    assert describe_runtime("tensorrt").version == "10.13.3.9"
    facts = build_engine(tiny["fp32"], TENSORRT).facts
    assert (facts.backend, facts.version, facts.targets) == ("tensorrt", "10.13.3.9", ())
    assert facts.workspace_bytes == 2**30


@needs_rtx
@pytest.mark.usefixtures("stand_in")
def test_a_timing_cache_is_kept_for_the_next_build(tmp_path: Path) -> None:
    settings = replace(TENSORRT, timing_cache=tmp_path / "timings")
    assert build_engine(small(), settings).facts.timing_cache == "new"
    (tmp_path / "timings").write_bytes(b"timings")  # TensorRT for RTX measures nothing, and keeps nothing
    assert build_engine(small(), settings).facts.timing_cache == "reused"


class Config:
    """A builder's configuration as TensorRT documents it: bytes that are no cache, and a cache of another GPU."""

    def __init__(self) -> None:
        self.set: list[bytes] = []

    def create_timing_cache(self, data: bytes) -> bytes | None:
        return None if data == b"corrupt" else data

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache == b"of another GPU":
            return False
        self.set.append(cache)
        return True


@pytest.mark.parametrize(
    ("data", "usable", "given"),
    [(b"good", True, b"good"), (b"corrupt", False, b""), (b"of another GPU", False, b""), (b"", False, b"")],
)
def test_an_unusable_timing_cache_is_replaced_by_an_empty_one(data: bytes, usable: bool, given: bytes) -> None:
    config = Config()
    assert flavours.read_timing_cache(config, data) is usable
    assert config.set == [given]


@needs_rtx
@pytest.mark.usefixtures("stand_in")
def test_a_timing_cache_that_cannot_be_written_costs_no_engine(tmp_path: Path) -> None:
    said: list[str] = []
    engine = build_engine(small(), replace(TENSORRT, timing_cache=tmp_path / "none" / "timings"), report=said.append)
    assert engine.data
    assert [line for line in said if "timing cache was not kept" in line]


def test_a_node_without_plugin_or_function_names_the_plugin_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "_run", None)
    words = r"no plugin resolves edge_lsla::LslaAttention: node attention_0 \(LslaAttention\); .*`plugin build`"
    with pytest.raises(MissingComponentError, match=words) as caught:
        build_engine(custom("LslaAttention"), TENSORRT)
    assert caught.value.exit_code == 3


def test_a_library_that_is_not_there_names_the_plugin_build(tmp_path: Path) -> None:
    with pytest.raises(MissingComponentError, match=r"no file .*none.so; .*`plugin build`"):
        build_engine(custom("LslaAttention"), replace(TENSORRT, plugin_library=tmp_path / "none.so"))


def test_functions_must_be_dropped_for_the_plugin(tiny: dict[str, bytes], text_file: Path) -> None:
    with pytest.raises(GraphError, match="still holds the function of LslaAttention"):
        build_engine(tiny["fp32"], replace(TENSORRT, plugin_library=text_file))


def test_a_plugin_for_nothing_is_refused(text_file: Path) -> None:
    with pytest.raises(UsageError, match="no operator for the plugin"):
        build_engine(small(), replace(TENSORRT, plugin_library=text_file))


@needs_rtx
@pytest.mark.usefixtures("stand_in")
def test_a_file_that_is_no_library_names_the_plugin_build(text_file: Path) -> None:
    with pytest.raises(MissingComponentError, match=r"does not load the plugin library: .*`plugin build`"):
        build_engine(custom("LslaAttention"), replace(TENSORRT, plugin_library=text_file))


@needs_rtx
@native_builds.compiler
@native_builds.headers
@native_builds.needs_compiler
@native_builds.needs_headers
@pytest.mark.usefixtures("stand_in")
class TestThePlugin:
    """The real library, built from a fake index of kernels."""

    def library(self) -> Path:
        assert native_builds.OLDEST is not None
        return native_builds.build("plain-for-builder", native_builds.OLDEST)

    def test_an_operator_that_it_lacks_is_named_before_parsing(self) -> None:
        settings = replace(TENSORRT, plugin_library=self.library())
        with pytest.raises(MissingComponentError, match=r"no plugin resolves edge_lsla::NoSuch: node attention_0"):
            build_engine(custom("NoSuch"), settings)

    def test_an_abort_of_the_parser_is_a_sentence(self) -> None:
        """It finds the creator, and this product's networks take no plugins: NVIDIA's code aborts the process."""
        settings = replace(TENSORRT, plugin_library=self.library())
        with pytest.raises(
            EdgeLslaError, match=r"TensorRT .*building a tensorrt engine, in the phase 'parsing'"
        ) as caught:
            build_engine(custom("LslaAttention", num_heads=1, window=2), settings)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 1


REGISTRY = """
import json, sys
import tensorrt_lean_bindings as trt
from edge_lsla.tensorrt import flavours
from edge_lsla.errors import MissingComponentError

lean = flavours.Flavour("tensorrt", trt, trt.__version__)
print(json.dumps(flavours.missing_plugins(lean, ["LslaAttention"], "1")))
try:
    flavours.load_plugin_library(lean, sys.argv[1])
except MissingComponentError as error:
    print(error)
if len(sys.argv) > 2:
    flavours.load_plugin_library(lean, sys.argv[2])
    print(json.dumps(flavours.missing_plugins(lean, ["LslaAttention", "QLslaAttention", "NoSuch"], "1")))
"""


@pytest.mark.skipif(not LEAN, reason="tensorrt-lean is not installed (make runtimes)")
@native_builds.compiler
@native_builds.headers
@native_builds.needs_compiler
@native_builds.needs_headers
@pytest.mark.parametrize("runtime", LEAN, ids=lambda path: path.name)
def test_the_registries_of_tensorrt_itself_answer(runtime: Path, text_file: Path) -> None:
    assert native_builds.OLDEST is not None
    library = native_builds.build("plain-for-builder", native_builds.OLDEST)
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}:{runtime}"}
    command = [sys.executable, "-c", REGISTRY, str(text_file), str(library)]
    result = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    lines = [line for line in result.stdout.splitlines() if line.startswith(("[", "TensorRT"))]
    assert json.loads(lines[0]) == ["LslaAttention"]
    assert "does not load the plugin library" in lines[1]
    assert json.loads(lines[2]) == ["NoSuch"], result.stderr
