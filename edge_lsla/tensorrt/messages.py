"""What TensorRT says, to what we say: one sentence each, with the remedy and the exit code.

`KNOWN` is tried in order against every line that TensorRT logged, and against the errors of its parser. What none of
them knows ends as TensorRT's own last error, cut short.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edge_lsla.errors import CompatibilityError, EdgeLslaError, GraphError, MissingComponentError, UsageError
from edge_lsla.operator import DOMAIN, NAME, QUANTISED_NAME, RESIDUAL_NAME

OURS = (NAME, RESIDUAL_NAME, QUANTISED_NAME)
LONGEST = 240
Make = Callable[[re.Match[str], str], EdgeLslaError]


@dataclass(frozen=True)
class Known:
    """A message of TensorRT.

    Attributes:
        name: of the case, for tests.
        pattern: found in one line.
        make: the error, from the match and the place (a node of the graph, or what was being done).
        provoked: seen from TensorRT for RTX 1.7 in tests/build; otherwise from documentation and published logs.
    """

    name: str
    pattern: str
    make: Make
    provoked: bool


@dataclass(frozen=True)
class ParserFailure:
    """An error of the ONNX parser: the node, its operator, and what is wrong."""

    node: str
    operator: str
    description: str

    @property
    def place(self) -> str:
        """Where, for people."""
        if not self.operator:
            return "the graph"
        return f"node {self.node or 'without a name'} ({self.operator})"


def _no_creator(match: re.Match[str], place: str) -> EdgeLslaError:
    operator = re.search(r"\((\w+)\)$", place)
    if operator and operator[1] in OURS:
        return missing_plugin(operator[1], place)
    return GraphError("TensorRT knows no such operator", place, "export with standard ONNX operators")


def missing_plugin(operator: str, where: str) -> MissingComponentError:
    """The error for an operator of this project that no plugin resolves."""
    return MissingComponentError(
        f"no plugin resolves {DOMAIN}::{operator}", where, "build the plugin on this machine with `plugin build`"
    )


def no_gpu(what: str, where: str) -> MissingComponentError:
    """The error for work that needs a GPU and its driver."""
    return MissingComponentError(
        what, where, "check the NVIDIA driver with `doctor`, or build with tensorrt-rtx, which needs no GPU"
    )


def _simple(error: type[EdgeLslaError], what: str, remedy: str) -> Make:
    """Make an error of fixed words; {1} and {2} in them are the match's groups."""

    def make(match: re.Match[str], place: str) -> EdgeLslaError:
        groups = [match[0], *(group or "" for group in match.groups())]
        return error(what.format(*groups), place, remedy.format(*groups))

    return make


KNOWN = (
    # The parser's.
    Known("missing creator", r"Plugin not found, are the plugin name, version, and namespace correct",
          _no_creator, True),
    Known("corrupt", r"MODEL_DESERIALIZE_FAILED|Failed to parse the ONNX model",
          _simple(GraphError, "TensorRT cannot read the ONNX file", "export it again"), True),
    Known("element type", r"Failed to convert ONNX da[tc]e type|Unsupported ONNX data type",
          _simple(GraphError, "TensorRT has no such data type", "use float32, float16, int8, int32 or int64"), True),
    Known("mixed types", r"must have same input types\. But they are of types (\w+) and (\w+)",
          _simple(GraphError, "the types written in the graph disagree ({1} and {2})",
                  "write the typed graph again: a strongly typed network converts nothing"), True),
    Known("asymmetric", r"Non-zero zero point is not supported",
          _simple(GraphError, "TensorRT takes no zero point other than 0", "insert Q/DQ for tensorrt"), True),
    Known("quantised type", r"input has type (\w+) but must have type [^.]*Int8",
          _simple(GraphError, "TensorRT dequantises no {1}",
                  "leave biases unquantised: insert Q/DQ for tensorrt"), True),
    Known("inner dimensions", r"last dimension of input0 = (\d+) and second to last dimension of input1 = (\d+)",
          _simple(GraphError, "a matrix product of {1} columns with {2} rows", "export the graph again"), True),
    Known("unsupported node", r"UNSUPPORTED_NODE|plugin creator version \w+ was not found|is not supported by TensorRT",
          _simple(GraphError, "TensorRT does not support this operator", "export with operators that it has"), True),
    # The builder's.
    Known("too many elements", r"Tensor (\S+) has (\d+) elements which exceeds the maximum",
          _simple(GraphError, "the graph makes {1} of {2} values, more than TensorRT takes", "export it again"), True),
    Known("turing", r"Cannot compile operation '([^']*)' for Turing \((\w+)\): (\w+) GEMM is not supported",
          lambda match, place: CompatibilityError(
              f"{match[2]} has no {match[3]} matrix products, which attention needs in every precision"
              if match[3] == "FP32" else f"{match[2]} has no {match[3]} matrix products",
              f"{place}, operation {match[1]}", f"leave {match[2].lower()} out of --target"), True),
    Known("unsupported capability", r"Target GPU SM (\d+) is not supported|Unsupported SM:? ?(\w*)",
          _simple(CompatibilityError, "this TensorRT does not know the GPU (SM {1}{2})",
                  "install a TensorRT that does; `doctor` shows both"), False),
    # Said both of the machine's memory and of the workspace limit.
    Known("allocation", r"OutOfMemory \(Requested size was (\d+) bytes",
          lambda match, place: EdgeLslaError(
              f"TensorRT could not have {int(match[1]) // 2**20 + 1} MB in one piece", place,
              "raise --workspace if it is lower; else close other programs or lower the largest batch"), True),
    Known("workspace limit", r"no tactics to implement the operation within workspace limit",
          _simple(EdgeLslaError, "the workspace is too small", "raise --workspace or lower the largest batch"), True),
    Known("no implementation", r"Could not find any implementation for node (\S+)",
          _simple(EdgeLslaError, "TensorRT found no way to compute {1} within the memory limit",
                  "raise --workspace, lower the largest batch, or close other programs"), False),
    Known("out of memory", r"std::bad_alloc|(?i:out of memory)|Requested amount of (?:GPU )?memory \((\d+)",
          _simple(EdgeLslaError, "memory ran out",
                  "close other programs, lower --workspace or the largest batch"), False),
    Known("profile missing", r"input tensor (\w+) is missing dimensions in profile (\d+)|"
                             r"Network has dynamic or shape inputs, but no optimization profile",
          _simple(GraphError, "an input with a free size has no profile",
                  "export with the batch size alone free"), True),
    Known("profile", r"Dimension mismatch for tensor (\w+) and profile (\d+)\. (.*?)\. In ",
          _simple(UsageError, "profile {2} does not fit {1}: {3}", "give sizes that the graph has"), True),
    Known("cancelled", r"BuildCanceled", _simple(EdgeLslaError, "the build was cancelled", "start it again"), True),
    # Serialised plans.
    Known("version tag", r"Version tag does not match\. Note: Current Version: (\d+), Serialized Engine Version: (\d+)|"
                         r"expecting library version (\S+) got ([\d.]+)",
          _simple(CompatibilityError, "the engine is of another TensorRT ({2}{4}, here {1}{3})",
                  "build it again with `build-engine`"), False),
    Known("magic tag", r"Trying to load an engine created with incompatible serialization version|(?i:magic ?tag)",
          _simple(CompatibilityError, "this is no engine of this TensorRT",
                  "build it again with `build-engine`"), True),
    Known("other device", r"generated on an incompatible device, expecting compute ([\d.]+) got compute ([\d.]+)",
          _simple(CompatibilityError, "the engine is for compute capability {2}, this GPU has {1}",
                  "build it on this device with `build-engine`"), False),
    Known("serialisation", r"Error Code \d+: Serialization",
          _simple(EdgeLslaError, "TensorRT could not read or write an engine", "build it again"), False),
    # Last: it may follow from any other.
    Known("no driver", r"cudaError (\d+): (CUDA driver version is insufficient|no CUDA-capable device)|"
                       r"CUDA initialization failure with error:? (\d+)",
          lambda match, place: no_gpu(
              "there is no GPU driver that TensorRT can use", f"CUDA error {match[1] or match[3]}"),
          True),
)  # fmt: skip


def find(line: str) -> tuple[Known, re.Match[str]] | None:
    """Return the first known message found in a line."""
    for known in KNOWN:
        match = re.search(known.pattern, line)
        if match:
            return known, match
    return None


def explain(lines: Sequence[str], doing: str, failures: Sequence[ParserFailure] = ()) -> EdgeLslaError:
    """Translate a failure.

    Args:
        lines: what TensorRT logged as errors, oldest first.
        doing: what was being done, such as "parsing the graph".
        failures: the parser's errors; they know the node.
    """
    lines = [cause for line in lines if (cause := _cause(line))]
    candidates = [(_cause(failure.description), failure.place) for failure in failures]
    candidates += [(line, doing) for line in lines]
    found = [(KNOWN.index(hit[0]), index, hit) for index, (text, _) in enumerate(candidates) if (hit := find(text))]
    if found:
        _, index, (known, match) = min(found, key=lambda entry: entry[:2])
        return known.make(match, candidates[index][1])
    if failures:
        where = f"{failures[0].place}: {short(candidates[0][0])}"
        return GraphError("TensorRT cannot parse the graph", where, "export it again")
    said = short(lines[-1]) if lines else "it gave no reason"
    return EdgeLslaError(f"TensorRT failed while {doing}", said, "see the release notes of this version, or report it")


def _cause(text: str) -> str:
    """Return a message without the CUDA error that RTX 1.7 adds: reporting any error, it looks for a GPU."""
    return re.sub(r"\[[^\]\n]*catchCudaError[^\]\n]*\][^\n]*", "", text).strip()


def short(line: str) -> str:
    """Return a message of TensorRT in one line, without its source files, cut to `LONGEST` characters."""
    line = re.sub(r"\(?\bIn \w+ at /\S+:\d+\)?", "", " ".join(line.split()))
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


class ErrorLines:
    """What TensorRT logged as errors; thread-safe, as its threads log."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.last_note = ""

    def add(self, severity: str, text: str) -> None:
        """Keep an error, and of the notes what tells the engine's memory."""
        if severity in ("ERROR", "INTERNAL_ERROR"):
            self.lines.append(text)
        elif severity == "INFO" and "Activation Memory" in text:
            self.last_note = text

    @property
    def activation_bytes(self) -> int | None:
        """Scratch memory of one execution, where TensorRT said it."""
        match = re.search(r"Total Activation Memory: (\d+)", self.last_note)
        return int(match[1]) if match else None


def make_logger(trt: Any, kept: ErrorLines) -> Any:
    """Return a trt.ILogger that keeps what it is told."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # the base exists once TensorRT is loaded
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            kept.add(severity.name, msg)

    return Logger()
