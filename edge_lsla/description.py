"""What travels with a model from checkpoint to bundle, kept in the ONNX file's own metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
        except (ValueError, KeyError, TypeError, UsageError) as error:
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
