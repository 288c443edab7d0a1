"""What travels with a model from checkpoint to bundle, kept in the ONNX file's own metadata."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_lsla.data.folders import read_classes
from edge_lsla.errors import GraphError, UsageError
from edge_lsla.preprocessing import Preprocessing

KEY = "edge_lsla"  # of the metadata entry


@dataclass(frozen=True)
class Description:
    """A model's identity.

    Attributes:
        model: the configuration, or {"factory": "module:factory"}, JSON-ready.
        labels: class names, in the order of the logits.
        preprocessing: how pictures become inputs.
        checkpoint: SHA-256 of the checkpoint file, hexadecimal; None where there was none.
    """

    model: dict[str, Any]
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    checkpoint: str | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return str(self.model.get("name") or self.model.get("factory") or "model")

    def to_metadata(self) -> str:
        """Return the text of the metadata entry."""
        values = {
            "model": self.model,
            "labels": list(self.labels),
            "preprocessing": self.preprocessing.to_dict(),
            "checkpoint": self.checkpoint,
        }
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_metadata(cls, text: str, where: object) -> Description:
        """Read the text of a metadata entry.

        Raises:
            GraphError: it is damaged.
        """
        try:
            values = json.loads(text)
            labels = tuple(str(label) for label in values["labels"])
            preprocessing = Preprocessing(**values["preprocessing"])
            return cls(dict(values["model"]), labels, preprocessing, values.get("checkpoint"))
        except (ValueError, KeyError, TypeError, RecursionError, UsageError) as error:
            raise GraphError("description in the ONNX file is damaged", where, f"export it again ({error})") from error


def attach(model: Any, description: Description) -> None:
    """Write the description into an onnx.ModelProto, replacing an earlier one."""
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != KEY]
    del model.metadata_props[:]
    for key, value in sorted([*kept, (KEY, description.to_metadata())]):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


def find(model: Any, where: object) -> Description | None:
    """Read the description of an onnx.ModelProto; None where it has none.

    Raises:
        GraphError: it is damaged.
    """
    entries: Sequence[Any] = [entry for entry in model.metadata_props if entry.key == KEY]
    return Description.from_metadata(entries[0].value, where) if entries else None


def describe(model: Any, path: Path, labels: Path | None = None) -> Description:
    """Return the description of an onnx.ModelProto, made from its shapes where it carries none.

    Args:
        labels: a list of class names that takes the place of its own.

    Raises:
        GraphError: it is damaged, or the graph is no classifier from `images` to `logits`.
        DatasetError: the list of class names cannot be read.
    """
    names = read_classes(labels) if labels else None
    found = find(model, path)
    if found is not None:
        return dataclasses.replace(found, labels=names) if names else found
    inputs = [entry for entry in model.graph.input if entry.name == "images"]
    outputs = [entry for entry in model.graph.output if entry.name == "logits"]
    if not inputs or not outputs:
        raise GraphError("graph's input and output are not images and logits", path, "export it with `export`")
    shapes = [[d.dim_value for d in entry.type.tensor_type.shape.dim] for entry in (inputs[0], outputs[0])]
    if len(shapes[0]) != 4 or len(shapes[1]) != 2 or not shapes[0][3] or not shapes[1][1]:
        raise GraphError("graph's image size or class count is not fixed", path, "export it with `export`")
    names = names or tuple(f"class {index}" for index in range(shapes[1][1]))
    return Description({"name": path.stem}, names, Preprocessing(shapes[0][3]))
