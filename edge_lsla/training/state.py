"""The resumable state of a training run: one file that is whole or absent, loaded without unpickling objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from edge_lsla.atomic import atomic_path
from edge_lsla.errors import CheckpointError, EdgeLslaError

FORMAT = 1


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state atomically; values are tensors, numbers, texts, lists and dictionaries."""
    with atomic_path(path) as temporary:
        try:
            torch.save({"format": FORMAT, **state}, temporary)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise EdgeLslaError("cannot write", path, f"free some space or choose another folder ({reason})") from error


def load_state(path: Path, must_match: dict[str, Any]) -> dict[str, Any]:
    """Read a state and hold its description against this run's.

    Raises:
        CheckpointError: damaged, of another format, or of a run with other settings, model or data.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler raises whatever damaged bytes lead it to
        raise CheckpointError("training state is damaged", path, "start anew in another folder") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError("training state is of another format", path, "start anew in another folder")
    for name, value in must_match.items():
        if state.get(name) != value:
            what = f"training state is of a run with other {name}{_difference(state.get(name), value)}"
            raise CheckpointError(what, path, "repeat its settings, or use another folder")
    return state


def _difference(old: object, new: str) -> str:
    """Name the fields in which two descriptions differ, where they are JSON objects."""
    try:
        before, after = json.loads(str(old)), json.loads(new)
        changes = [f"{key} {before.get(key)!r} -> {after[key]!r}" for key in after if before.get(key) != after[key]]
    except (ValueError, AttributeError, TypeError):
        return ""
    return f" ({', '.join(changes)})"
