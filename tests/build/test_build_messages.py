"""TensorRT's words to ours: provoked from the real builder where this machine can, else from published logs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_parts import RTX, SM86, graph, needs_rtx, small
from onnx import TensorProto, helper

from edge_lsla.build.tensorrt.builder import build_engine
from edge_lsla.build.tensorrt.settings import BuildSettings
from edge_lsla.errors import CompatibilityError, EdgeLslaError, GraphError, MissingComponentError, UsageError
from edge_lsla.tensorrt.messages import KNOWN, LONGEST, ParserFailure, explain, find, short

ROOT = Path(__file__).parents[2]
node = helper.make_node


@dataclass(frozen=True)
class Provoked:
    """A graph that makes TensorRT for RTX 1.7 say the message of that name."""

    name: str
    data: bytes
    error: type[EdgeLslaError]
    words: str
    settings: BuildSettings = SM86


def head(*nodes: Any, end: str, **weights: np.ndarray[Any, Any]) -> bytes:
    """Nodes from `images`, and a mean and matrix product from tensor `end` to `logits`."""
    last = {"axes": np.array([2, 3]), "matrix": np.ones((3, 5), np.float32)}
    tail = (node("ReduceMean", [end, "axes"], ["mean"], keepdims=0), node("MatMul", ["mean", "matrix"], ["logits"]))
    return graph(*nodes, *tail, weights={**weights, **last})


SCALE = np.array(0.1, np.float32)
CASES = [
    Provoked("missing creator", head(node("Wobble", ["images"], ["x"], name="odd"), end="x"), GraphError,
             r"no such operator: node odd \(Wobble\)"),
    Provoked("mixed types", head(node("Cast", ["images"], ["h"], to=TensorProto.FLOAT16),
                                 node("Add", ["h", "images"], ["x"], name="sum"), end="x"), GraphError,
             r"disagree \(Half and Float\): node sum \(Add\)"),
    Provoked("asymmetric", head(node("QuantizeLinear", ["images", "s", "z"], ["q"], name="q"),
                                node("DequantizeLinear", ["q", "s", "z"], ["x"]), end="x",
                                s=SCALE, z=np.array(5, np.int8)), GraphError,
             r"no zero point other than 0: node q \(QuantizeLinear\)"),
    Provoked("quantised type", head(node("DequantizeLinear", ["b", "s"], ["f"], name="bias"),
                                    node("Add", ["images", "f"], ["x"]), end="x",
                                    s=SCALE, b=np.ones((1, 3, 1, 1), np.int32)), GraphError,
             r"dequantises no Int32: node bias \(DequantizeLinear\)"),
    Provoked("inner dimensions", head(node("MatMul", ["images", "wrong"], ["x"], name="mm"), end="x",
                                      wrong=np.ones((7, 8), np.float32)), GraphError,
             r"8 columns with 7 rows: node mm \(MatMul\)"),
    Provoked("unsupported node", head(node("SequenceConstruct", ["images"], ["seq"], name="list"),
                                      node("ConcatFromSequence", ["seq"], ["x"], axis=0), end="x"), GraphError,
             r"does not support this operator: node list \(SequenceConstruct\)"),
    Provoked("element type", head(node("Cast", ["images"], ["t"], to=TensorProto.STRING, name="text"),
                                  node("Cast", ["t"], ["x"], to=TensorProto.FLOAT), end="x"), GraphError,
             r"text \(Cast\)"),
    Provoked("too many elements", graph(node("Reshape", ["images", "s"], ["logits"]),
                                        weights={"s": np.array([2**31 - 1, 2**31 - 1])}), GraphError,
             "the graph makes logits of 4611686014132420609 values, more than TensorRT takes: .*; export it again"),
    Provoked("turing", small(), CompatibilityError,
             r"SM75 has no FP32 matrix products, which attention .*: compiling the engine, operation head; "
             "leave sm75 out of --target",
             replace(SM86, targets=("sm75",))),
]  # fmt: skip


@needs_rtx
@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_the_real_builder_says_becomes_a_sentence(case: Provoked) -> None:
    with pytest.raises(case.error, match=case.words) as caught:
        build_engine(case.data, case.settings)
    assert type(caught.value) is case.error
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


@needs_rtx
@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    ("workspace", "words"),
    [(2**20, "workspace is too small: compiling"), (2**26, r"could not have \d+ MB in one piece: compiling")],
)
def test_a_workspace_that_is_too_small_is_said(tiny: dict[str, bytes], workspace: int, words: str) -> None:
    with pytest.raises(EdgeLslaError, match=words) as caught:
        build_engine(tiny["fp32"], replace(SM86, workspace_bytes=workspace, profiles=((1, 1, 2048),)))
    assert "--workspace" in str(caught.value)
    assert caught.value.exit_code == 1


@needs_rtx
@pytest.mark.usefixtures("rtx")
def test_an_unknown_target_is_refused_with_those_it_knows() -> None:
    with pytest.raises(UsageError, match=r"does not build for sm87, sm90: --target; it knows sm75, sm80.*sm121"):
        build_engine(small(), replace(SM86, targets=("sm86", "sm90", "sm87")))


@needs_rtx
@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda plan: plan, "MissingComponentError there is no GPU driver"),
        (lambda plan: b"x" * 1000, "CompatibilityError this is no engine of this TensorRT"),
    ],
    ids=["no driver", "magic tag"],
)
def test_a_plan_that_cannot_be_read_says_why(
    damage: Any, expected: str, tmp_path: Path, rtx: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ctypes

    try:
        ctypes.CDLL("libcuda.so.1")
        pytest.skip("this machine has a GPU driver")
    except OSError:
        pass
    (tmp_path / "plan").write_bytes(damage(build_engine(small(), SM86).data))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{RTX}")
    command = [sys.executable, str(Path(__file__).parent / "deserialise_probe.py"), str(tmp_path / "plan")]
    out = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert out.splitlines()[-1].startswith(f"True {expected}")


# Not to be provoked here: as users report them.
PUBLISHED = {
    "unsupported capability": (
        "IBuilder::buildSerializedNetwork: Error Code 9: API Usage Error (Target GPU SM 120 is not supported by this "
        "TensorRT release.)", CompatibilityError, "does not know the GPU (SM 120)"),
    "version tag": (
        "[stdArchiveReader.cpp::StdArchiveReader::40] Error Code 1: Serialization (Serialization assertion "
        "stdVersionRead == serializationVersion failed.Version tag does not match. Note: Current Version: 213, "
        "Serialized Engine Version: 205)", CompatibilityError, "of another TensorRT (205, here 213)"),
    "version tag ": (
        "6: The engine plan file is not compatible with this version of TensorRT, expecting library version 8.2.3 got "
        "8.2.1, please rebuild.", CompatibilityError, "of another TensorRT (8.2.1, here 8.2.3)"),
    "other device": (
        "The engine plan file is generated on an incompatible device, expecting compute 8.6 got compute 8.7, please "
        "rebuild.", CompatibilityError, "is for compute capability 8.7, this GPU has 8.6"),
    "out of memory": (
        "Requested amount of GPU memory (150994944 bytes) could not be allocated. There may not be enough free memory "
        "for allocation to succeed.", EdgeLslaError, "memory ran out"),
    "out of memory ": (
        "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)", EdgeLslaError,
        "memory ran out"),
    "no implementation": (
        "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any implementation for node "
        "{ForeignNode[head]}.)", EdgeLslaError, "no way to compute {ForeignNode[head]}.)"),
    "no driver": (
        "CUDA initialization failure with error: 35. Please check your CUDA installation.", MissingComponentError,
        "CUDA error 35"),
    "serialisation": ("Error Code 1: Serialization (Serialization assertion failed)", EdgeLslaError,
                      "could not read or write an engine"),
    "profile": (
        "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Dimension mismatch for tensor images and "
        "profile 0. At dimension axis 2, profile has min=9, opt=9, max=9 but tensor has 8. In validate at "
        "/_src/optimizer/api/network.cpp:4054)", UsageError, "profile 0 does not fit images: At dimension axis 2"),
    "profile missing": (
        "Error Code 4: API Usage Error (Dynamic input tensor x is missing dimensions in profile 0. In validate at "
        "/_src/optimizer/api/network.cpp:4046)", GraphError, "no profile"),
    "cancelled": ("IBuilder::buildSerializedNetwork: Error Code 7: BuildCanceled (Build canceled by user)",
                  EdgeLslaError, "was cancelled"),
    "corrupt": ("(deserializeOnnxModel): MODEL_DESERIALIZE_FAILED: Assertion failed: Failed to parse the ONNX model.",
                GraphError, "cannot read the ONNX file"),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_messages_become_sentences(name: str) -> None:
    line, kind, words = PUBLISHED[name]
    hit = find(line)
    assert hit is not None
    assert hit[0].name == name.strip()
    error = explain([line], "compiling the engine")
    assert type(error) is kind
    assert words in str(error)


def test_every_known_message_has_a_test() -> None:
    others = {"allocation", "workspace limit", "no driver", "magic tag"}
    assert {known.name for known in KNOWN} == {case.name for case in CASES} | {n.strip() for n in PUBLISHED} | others


def test_a_cause_goes_before_what_follows_from_it() -> None:
    follows = (
        "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
        "/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient for it))"
    )
    cause = "Error Code 2: OutOfMemory (Requested size was 1149219064 bytes.)"
    assert "could not have 1096 MB" in str(explain([follows, cause, follows], "compiling the engine"))
    assert "something odd" in str(explain(["something odd", follows], "compiling the engine"))
    failure = ParserFailure("n", "Odd", f"INVALID: something odd\n{follows}")
    assert str(explain([follows], "parsing", [failure])).endswith(
        "node n (Odd): INVALID: something odd; export it again"
    )


def test_unknown_words_are_passed_on_cut_and_without_source_files() -> None:
    line = "Error Code 99: Odd (something odd " + "x" * 400 + ") In build at /_src/optimizer/a.cpp:12)"
    error = explain(["first", line], "compiling the engine")
    assert type(error) is EdgeLslaError
    assert "TensorRT failed while compiling the engine: Error Code 99: Odd (something odd xxx" in str(error)
    assert len(error.where) <= LONGEST  # type: ignore[arg-type]
    assert "/_src" not in short(line)
    failure = ParserFailure("n", "Odd", "INVALID: something\nodd")
    assert "cannot parse the graph: node n (Odd): INVALID: something odd; export" in str(
        explain([], "parsing", [failure])
    )
    assert "it gave no reason" in str(explain([], "compiling the engine"))
