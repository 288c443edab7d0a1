"""What is in a bundle's artifacts: for `inspect`.

Graphs are read from their bytes, with neither onnx nor a GPU. Of an engine the passport tells targets, batches and
memory; its layers are TensorRT's to tell, on a device that can open it. What cannot be read here is said in a sentence.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edge_lsla.build.tensorrt.nodes import read_functions
from edge_lsla.build.tensorrt.outline import Node, read_outline
from edge_lsla.build.tensorrt.weights import read_weights, weight_totals
from edge_lsla.engine_facts import read_memory, read_profiles
from edge_lsla.errors import BundleError, EdgeLslaError, GraphError, MissingComponentError, TrustError
from edge_lsla.operator import DOMAIN, NAME, QUANTISED_NAME, RESIDUAL_NAME
from edge_lsla.runner.inspection import EngineLayer

if TYPE_CHECKING:
    from edge_lsla.bundle import Artifact, Bundle, Manifest

OPERATORS = (NAME, RESIDUAL_NAME, QUANTISED_NAME)
UNOPENED = "TensorRT's layers are not read; --layers does it, on a device that can open this engine"


@dataclass(frozen=True)
class GraphContents:
    """A typed graph.

    Attributes:
        nodes: how many, without those of its functions.
        operators: how many of each, the commonest first; of other domains than ONNX's as "domain::operator".
        functions: nodes in the body of each local function.
        attention: how attention is written: "plugin" (nodes that only a plugin computes), "function" (nodes with a
            standard body), "split" (ONNX's Attention and the outer term), "operators" (standard ones), or "none".
        attention_nodes: names by operator, of this project's operators and ONNX's Attention; for "operators" the
            Softmax nodes.
        weights: tensors, values and bytes by type.
    """

    nodes: int
    operators: dict[str, int]
    functions: dict[str, int]
    attention: str
    attention_nodes: dict[str, list[str]]
    weights: dict[str, dict[str, int]]

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        return sum(total["bytes"] for total in self.weights.values())


@dataclass(frozen=True)
class ArtifactContents:
    """An artifact.

    Attributes:
        graph: of a typed graph that can be read.
        precisions: precision by layer, as the passport has it for the artifact or the graph it was built from.
        profiles: smallest, best-served and largest batch of each profile of an engine.
        memory_bytes: GPU memory of an engine, itself included; None where the passport does not say.
        engine_layers: what TensorRT tells; None where it was not asked, or cannot be.
        notes: what cannot be said, and why.
    """

    artifact: Artifact
    graph: GraphContents | None = None
    precisions: dict[str, str] | None = None
    profiles: tuple[tuple[int, ...], ...] = ()
    memory_bytes: int | None = None
    engine_layers: tuple[EngineLayer, ...] | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        layers = self.engine_layers
        return {
            "name": self.artifact.name,
            "backend": self.artifact.backend,
            "precision": self.artifact.precision,
            "kind": self.artifact.kind,
            "size": self.artifact.size,
            "sha256": self.artifact.sha256,
            "targets": list(self.artifact.targets),
            "versions": dict(self.artifact.versions),
            "graph": asdict(self.graph) | {"weight_bytes": self.graph.weight_bytes} if self.graph else None,
            "precisions": self.precisions,
            "profiles": [list(profile) for profile in self.profiles],
            "memory_bytes": self.memory_bytes,
            "engine_layers": None if layers is None else [layer.to_dict() for layer in layers],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Origin:
    """Where a bundle comes from, as far as this machine can tell.

    Attributes:
        signature: a sentence: none, valid, not valid, or why it cannot be verified.
        key_id: of who signed, hexadecimal; None: not signed, or malformed.
        valid: whether the signature is that key's and of this bundle; None: not signed, or not verified.
        trusted: whether the key is among this user's trusted keys; None: it cannot be told.
        built_here: whether this machine built it.
    """

    signature: str
    key_id: str | None
    valid: bool | None
    trusted: bool | None
    built_here: bool

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


def examine_origin(bundle: Bundle) -> Origin:
    """Say who signed a bundle, and whether it was built here; nothing is raised for what cannot be told."""
    from edge_lsla.bundle import PublicKey, trusted_keys, verify_signature, was_built_here
    from edge_lsla.bundle.signing import parse_signature

    here = was_built_here(bundle.manifest.sha256())
    if bundle.signature is None:
        return Origin("none", None, None, None, here)
    try:
        signature = parse_signature(bundle.signature, bundle.path)
    except (BundleError, TrustError) as error:
        return Origin(f"NOT VALID: {error.what}", None, False, None, here)
    key, name = signature.key_id, f"the key {signature.key_id}"
    try:
        verify_signature(bundle, {key: PublicKey(key, bytes.fromhex(signature.public_key), bundle.path)})
    except MissingComponentError as error:
        return Origin(f"said to be by {name}; not verified: {error}", key, None, None, here)
    except EdgeLslaError as error:
        return Origin(f"NOT VALID: {error.what}", key, False, None, here)
    try:
        own = trusted_keys().get(key)
    except EdgeLslaError as error:
        return Origin(f"valid, by {name}; whether it is trusted cannot be told: {error}", key, True, None, here)
    if own is None:
        return Origin(f"valid, by {name}, which is not trusted here", key, True, False, here)
    return Origin(f"valid, by {name}, trusted here ({own.path.name})", key, True, True, here)


def inspect_bundle(
    bundle: Bundle, backend: str = "auto", precision: str | None = None, *, open_engines: bool = False
) -> tuple[ArtifactContents, ...]:
    """Say what is in each artifact of a backend ("auto": all) and precision (None: all).

    Args:
        open_engines: let TensorRT read those engines that this device can open and trusts.

    Raises:
        CompatibilityError: the bundle holds no such artifact.
    """
    if backend != "auto":
        bundle.artifact(backend, precision)  # says what the bundle holds instead
    return tuple(
        _engine(bundle, artifact, open_engines) if artifact.kind == "engine" else _graph(bundle, artifact)
        for artifact in bundle.manifest.artifacts
        if backend in ("auto", artifact.backend) and precision in (None, artifact.precision)
    )


def read_graph(data: bytes) -> GraphContents:
    """Read a serialised ONNX model.

    Raises:
        GraphError: not an ONNX model, or cut short.
    """
    outline, functions, weights = read_outline(data), read_functions(data), read_weights(data)
    nodes = outline.nodes[: len(outline.nodes) - sum(functions.values())]  # those of functions come last
    ours = [node for node in nodes if node.domain == DOMAIN and node.operator in OPERATORS]
    standard = [node for node in nodes if (node.domain, node.operator) == ("", "Attention")]
    softmax = [node for node in nodes if (node.domain, node.operator) == ("", "Softmax")]
    if ours:
        form = "function" if all((DOMAIN, node.operator) in functions for node in ours) else "plugin"
    else:
        form = "split" if standard else "operators" if softmax else "none"
    named: dict[str, list[str]] = {}
    for node in (*ours, *standard, *(softmax if form == "operators" else ())):
        named.setdefault(node.operator, []).append(node.name)
    return GraphContents(
        nodes=len(nodes),
        operators=dict(Counter(_operator(node) for node in nodes).most_common()),
        functions={f"{domain}::{name}": count for (domain, name), count in functions.items()},
        attention=form,
        attention_nodes=named,
        weights=weight_totals(weights),
    )


def _operator(node: Node) -> str:
    return f"{node.domain}::{node.operator}" if node.domain else node.operator


def _graph(bundle: Bundle, artifact: Artifact) -> ArtifactContents:
    precisions = layer_precisions(bundle.manifest, artifact)
    try:
        return ArtifactContents(artifact, read_graph(bundle.read(artifact)), precisions)
    except GraphError as error:
        return ArtifactContents(artifact, None, precisions, notes=(str(error),))


def layer_precisions(manifest: Manifest, artifact: Artifact) -> dict[str, str] | None:
    """Return precision by layer, as the passport has it for an artifact, or for the graph that it was built from."""
    like = (artifact.backend, artifact.precision)
    graphs = [one.name for one in manifest.artifacts if one.kind == "onnx" and (one.backend, one.precision) == like]
    found = (manifest.precisions.get(name) for name in (artifact.name, *graphs, artifact.precision))
    return next((dict(layers) for layers in found if layers), None)


def _engine(bundle: Bundle, artifact: Artifact, open_it: bool) -> ArtifactContents:
    notes: list[str] = []
    memory: int | None = None
    profiles: tuple[tuple[int, ...], ...] = ()
    try:
        beside = read_memory(artifact)
        if beside is None:
            notes.append("the passport does not say how much memory the engine needs")
        else:
            memory = artifact.size + beside
    except BundleError as error:
        notes.append(error.what)
    try:
        profiles = read_profiles(artifact)
        if not profiles:
            notes.append("the passport does not say which batches the engine takes")
    except BundleError as error:
        notes.append(error.what)
    layers = None
    if not open_it:
        notes.append(UNOPENED)
    else:
        try:
            layers = _engine_layers(bundle, artifact)
        except EdgeLslaError as error:
            notes.append(f"TensorRT's layers cannot be read here: {error}")
    if layers and not any(layer.kind for layer in layers):
        notes.append("the engine was built without details: its inspector tells names only")
    elif layers == ():
        notes.append("the engine was built so that its inspector tells nothing")
    precisions = layer_precisions(bundle.manifest, artifact)
    return ArtifactContents(artifact, None, precisions, profiles, memory, layers, tuple(notes))


def _engine_layers(bundle: Bundle, artifact: Artifact) -> tuple[EngineLayer, ...]:
    """Open an engine, if it is the one that this device would run.

    Raises:
        EdgeLslaError: why it cannot be opened.
    """
    from edge_lsla.bundle import allows_native_code, was_built_here
    from edge_lsla.device import describe_device
    from edge_lsla.preflight import check_artifact, refuse
    from edge_lsla.runner.choosing import Request, choose
    from edge_lsla.runner.tensorrt import TensorRtRunner

    trust = None
    try:
        allows_native_code(bundle, was_built_here(bundle.manifest.sha256()))
    except TrustError as error:
        trust = error
    refuse(check_artifact(artifact, bundle.manifest, describe_device(), trust=trust, bundle=bundle.path))
    chosen = choose(bundle, Request(artifact.backend, artifact.precision))
    with chosen.runner as runner:
        if chosen.artifact != artifact or not isinstance(runner, TensorRtRunner):
            raise EdgeLslaError("this device runs another artifact instead", chosen.artifact.name)
        return runner.layers()
