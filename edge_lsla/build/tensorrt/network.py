"""Parse, configure, compile; and what the parsed network says of its types. Runs in the worker only."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_lsla.atomic import write_bytes
from edge_lsla.build.tensorrt.memory import workspace_bytes
from edge_lsla.build.tensorrt.settings import BuildSettings
from edge_lsla.errors import EdgeLslaError
from edge_lsla.operator import VERSION
from edge_lsla.tensorrt import flavours
from edge_lsla.tensorrt.flavours import Flavour
from edge_lsla.tensorrt.messages import (
    ErrorLines,
    ParserFailure,
    explain,
    make_logger,
    missing_plugin,
    no_gpu,
)

COMPUTING = ("CONVOLUTION", "MATRIX_MULTIPLY", "PLUGIN_V3", "ATTENTION")
# What may lie between a DequantizeLinear and the layer that uses it, without changing the numbers.
MOVING = ("SHUFFLE", "IDENTITY", "UNSQUEEZE", "SQUEEZE")
LARGEST_CACHE_BYTES = 256 * 2**20


@dataclass
class Compilation:
    """The objects of one build; TensorRT keeps pointers between them, so they live and end together."""

    flavour: Flavour
    errors: ErrorLines
    logger: Any
    builder: Any
    network: Any


def load_plugins(flavour: Flavour, library: Path, operators: Sequence[str], first_node: str) -> None:
    """Load the plugin library and see that it makes every operator that the graph uses.

    Before parsing: what a parser does with a node that nothing resolves differs by version.

    Raises:
        MissingComponentError: the library does not load, or lacks an operator.
    """
    flavours.load_plugin_library(flavour, str(library))
    missing = flavours.missing_plugins(flavour, operators, str(VERSION))
    if missing:
        raise missing_plugin(missing[0], f"{first_node}, with {library}")


def start(flavour: Flavour) -> Compilation:
    """Create the builder and an empty network.

    Raises:
        MissingComponentError: TensorRT finds no GPU, which it needs for this much.
    """
    trt = flavour.module
    errors = ErrorLines()
    logger = make_logger(trt, errors)
    try:
        builder = trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # pybind11 says so when the library returns a null pointer
        if errors.lines:
            raise explain(errors.lines, "starting") from error
        raise no_gpu(f"{flavour.title} does not start", "it gave no reason") from error
    return Compilation(flavour, errors, logger, builder, flavours.create_network(flavour, builder))


def parse(compilation: Compilation, data: bytes) -> None:
    """Parse a serialised ONNX model into the network.

    Raises:
        EdgeLslaError: see `messages.KNOWN`.
    """
    trt, network = compilation.flavour.module, compilation.network
    parser = trt.OnnxParser(network, compilation.logger)
    if parser.parse(data) and network.num_outputs and network.num_layers:
        return
    failures = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        failures.append(ParserFailure(error.node_name(), error.node_operator(), f"{error.code()}: {error.desc()}"))
    raise explain(compilation.errors.lines, "parsing the graph", failures)


def build(compilation: Compilation, settings: BuildSettings, monitor: Any) -> tuple[bytes, dict[str, Any]]:
    """Compile the network; return the plan and facts of the build.

    Raises:
        EdgeLslaError: see `messages.KNOWN`.
    """
    flavour, builder, network = compilation.flavour, compilation.builder, compilation.network
    trt = flavour.module
    config = builder.create_builder_config()
    config.builder_optimization_level = settings.optimisation_level
    config.progress_monitor = monitor
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that `inspect` can tell an engine's layers
    limit = workspace_bytes(settings)
    if limit is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
    flavours.set_targets(flavour, config, settings.targets)
    _add_profiles(compilation, config, settings)
    state, cache = "none", settings.timing_cache if flavour.takes_timing_cache else None
    if cache is not None:
        state = _read_cache(config, cache)
    started = time.perf_counter()
    plan = builder.build_serialized_network(network, config)
    seconds = time.perf_counter() - started
    if plan is None:
        raise explain(compilation.errors.lines, "compiling the engine")
    notices = []
    if cache is not None:
        if state == "replaced":
            notices.append(f"the timing cache was of no use here and is written anew: {cache}")
        try:
            write_bytes(cache, flavours.timing_cache_bytes(config))
        except EdgeLslaError as error:  # the engine is built; only the next build will be slower
            notices.append(f"the timing cache was not kept: {error}")
    facts = {
        "build_seconds": round(seconds, 3),
        "activation_bytes": compilation.errors.activation_bytes,
        "workspace_bytes": limit,
        "timing_cache": state,
        "notices": notices,
    }
    return bytes(plan), facts


def _add_profiles(compilation: Compilation, config: Any, settings: BuildSettings) -> None:
    tensor = compilation.network.get_input(0)
    shape = tuple(tensor.shape)
    if shape[0] != -1:  # fixed in the graph, and seen to be what was asked for
        return
    for smallest, best, largest in settings.profiles:
        profile = compilation.builder.create_optimization_profile()
        profile.set_shape(tensor.name, (smallest, *shape[1:]), (best, *shape[1:]), (largest, *shape[1:]))
        if config.add_optimization_profile(profile) < 0:
            raise explain(compilation.errors.lines, f"adding the profile {smallest}, {best}, {largest}")


def _read_cache(config: Any, path: Path) -> str:
    try:
        data = path.read_bytes() if path.stat().st_size <= LARGEST_CACHE_BYTES else b"\0"
    except FileNotFoundError:
        data = b""
    except OSError:
        data = b"\0"
    usable = flavours.read_timing_cache(config, data)
    return "reused" if usable else "replaced" if data else "new"


def read_types(network: Any) -> dict[str, Any]:
    """Return what the parsed network says: inputs, outputs, layers, and the types it computes in; see `EngineFacts`."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    counts: dict[str, Counter[str]] = {}
    makes: dict[str, Any] = {}
    for layer in layers:
        for index in range(layer.num_outputs):
            tensor = layer.get_output(index)
            if tensor is not None:
                makes[tensor.name] = layer
        if layer.num_outputs:
            counts.setdefault(layer.type.name, Counter())[layer.get_output_type(0).name] += 1
    computing: dict[str, list[str]] = {}
    for layer in layers:
        if layer.type.name in COMPUTING:
            computing.setdefault(_computes_in(layer, makes), []).append(layer.name)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return {
        "inputs": {tensor.name: [tensor.dtype.name, list(tensor.shape)] for tensor in inputs},
        "outputs": {tensor.name: [tensor.dtype.name, list(tensor.shape)] for tensor in outputs},
        "layers": {kind: dict(sorted(counts[kind].items())) for kind in sorted(counts)},
        "computing": {kind: computing[kind] for kind in sorted(computing)},
    }


def _computes_in(layer: Any, makes: dict[str, Any]) -> str:
    if layer.type.name == "PLUGIN_V3":
        return str(layer.get_output_type(0).name)
    operands = [tensor for index in range(min(2, layer.num_inputs)) if (tensor := layer.get_input(index)) is not None]
    if operands and all(_dequantised(tensor, makes) for tensor in operands):
        return "INT8"
    return str(operands[0].dtype.name if operands else layer.get_output_type(0).name)


def _dequantised(tensor: Any, makes: dict[str, Any]) -> bool:
    layer = makes.get(tensor.name)
    while layer is not None and layer.type.name in MOVING:
        layer = makes.get(layer.get_input(0).name)
    return layer is not None and layer.type.name == "DEQUANTIZE"
