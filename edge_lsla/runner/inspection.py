"""What TensorRT's engine inspector says of an engine's layers.

The inspector writes JSON whose fields differ by version, by kind of layer and by the verbosity that the engine was
built with. Read here is what is there; what is not stays empty. An engine that was built without detailed verbosity
gives names only. Sources: developer guide, "Engine Inspector"; engines recorded in NVIDIA's engine explorer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from edge_lsla.errors import EdgeLslaError
from edge_lsla.tensorrt.messages import OURS

# TensorRT's words for types, longest first where one begins another.
_TYPES = {
    "bfloat16": "bf16", "bf16": "bf16", "fp16": "fp16", "half": "fp16", "fp32": "fp32", "float": "fp32", "fp8": "fp8",
    "fp4": "fp4", "int8": "int8", "int4": "int4", "int64": "int64", "int32": "int32", "bool": "bool",
}  # fmt: skip
_TYPE = re.compile(rf"(?<![a-z0-9])({'|'.join(_TYPES)})(?![0-9])", re.IGNORECASE)
_FORMATS = ("Format/Datatype", "Format", "Datatype", "DataType")
_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=\[|[^ -~]|$)")  # entries are set apart by a control character


@dataclass(frozen=True)
class EngineLayer:
    """A layer of an engine, after TensorRT fused; "" and () where the inspector does not say.

    Attributes:
        name: TensorRT's own, often of several nodes.
        kind: TensorRT's type of layer.
        precision: of its first input: what it computes in.
        inputs, outputs: format and type of each tensor, in TensorRT's words.
        tactic: the kernel that was chosen.
        plugin: the operator, where it is a plugin of this project; else the type that it has as a plugin; "" for none.
        nodes: the graph's nodes within it. Where TensorRT does not list them, the parts of its name, which may be names
            of weights as well.
    """

    name: str
    kind: str = ""
    precision: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    tactic: str = ""
    plugin: str = ""
    nodes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def read_layers(text: str, where: object) -> tuple[EngineLayer, ...]:
    """Read the inspector's JSON; no layers where the engine was built to tell none.

    Raises:
        EdgeLslaError: it is not the JSON of an engine.
    """
    try:
        told = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise _unreadable(where, str(error)) from error
    layers = told.get("Layers", []) if isinstance(told, dict) else None
    if not isinstance(layers, list):
        raise _unreadable(where, text[:100])
    return tuple(_layer(layer, where) for layer in layers)


def _unreadable(where: object, found: str) -> EdgeLslaError:
    return EdgeLslaError("the engine inspector's answer cannot be read", where, f"report this ({found[:200]})")


def _layer(told: object, where: object) -> EngineLayer:
    if isinstance(told, str):
        return EngineLayer(told, nodes=_parts(told), plugin=_ours(told))
    if not isinstance(told, dict):
        raise _unreadable(where, repr(told))
    name, kind = _word(told, "Name"), _word(told, "LayerType")
    inputs, outputs = tuple(_formats(told, "Inputs")), tuple(_formats(told, "Outputs"))
    first = next(iter((*inputs, *outputs)), "")
    found = _TYPE.search(first)
    weights = told.get("Weights")
    if found is None and isinstance(weights, dict):
        found = _TYPE.search(_word(weights, "Type"))
    metadata = _word(told, "Metadata")
    return EngineLayer(
        name=name,
        kind=kind,
        precision=_TYPES[found[1].lower()] if found else "",
        inputs=inputs,
        outputs=outputs,
        tactic=_word(told, "TacticName") or _word(told, "TacticValue"),
        plugin=_plugin(told, name, kind),
        nodes=tuple(dict.fromkeys(_NODE.findall(metadata))) or _parts(name),
    )


def _word(told: dict[str, Any], key: str) -> str:
    value = told.get(key, "")
    return value if isinstance(value, str) else ""


def _formats(told: dict[str, Any], side: str) -> Iterator[str]:
    tensors = told.get(side, [])
    for tensor in tensors if isinstance(tensors, list) else []:
        if isinstance(tensor, dict):
            words = [_word(tensor, key) for key in _FORMATS]
            yield " ".join(word for word in words if word)


def _plugin(told: dict[str, Any], name: str, kind: str) -> str:
    if "plugin" not in f"{kind} {_word(told, 'ParameterType')}".lower():
        return ""
    types = [_word(told, key) for key in ("PluginType", "PluginName", "Plugin")]
    return _ours(" ".join((*types, name, _word(told, "Metadata")))) or next((one for one in types if one), kind)


def _ours(text: str) -> str:
    """Return the operator of this project that is named as a word of its own."""
    return next((name for name in OURS if re.search(rf"(?<!\w){name}(?!\w)", text)), "")


def _parts(name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part for part in name.split(" + ") if part))
