"""Checkpoints in and out: safetensors and plain state dicts, never a pickled object."""

from __future__ import annotations

import hashlib
import importlib
import json
import pickle
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from edge_lsla.atomic import atomic_path
from edge_lsla.data.folders import read_classes
from edge_lsla.description import Description
from edge_lsla.errors import CheckpointError, UsageError
from edge_lsla.model.config import VitLslaConfig, find_config
from edge_lsla.model.vit_lsla import VitLsla
from edge_lsla.preprocessing import Preprocessing
from edge_lsla.reading import read_json

METADATA = "edge_lsla"  # our key in the safetensors header
WRAPPERS = ("model", "state_dict", "model_state_dict", "ema", "module")
SHOWN = 6  # names listed in a message before "and N more"


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to export, with all that describes it.

    Attributes:
        model: in evaluation mode, on the CPU, float32.
        image_size: side of the input, pixels.
        description: configuration, labels, preprocessing, and the SHA-256 of the file.
    """

    model: nn.Module
    image_size: int
    description: Description


def save_checkpoint(
    path: Path,
    weights: Mapping[str, Tensor],
    config: VitLslaConfig,
    labels: tuple[str, ...],
    preprocessing: Preprocessing,
    metrics: dict[str, Any] | None = None,
) -> None:
    """Write weights as safetensors, with the configuration, labels and preprocessing in its header."""
    header = {
        "config": config.to_dict(),
        "labels": list(labels),
        "preprocessing": preprocessing.to_dict(),
        "metrics": metrics or {},
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    with atomic_path(path) as temporary:
        # Not save_file: it puts a file of its own, readable by its owner alone, in the place of ours.
        temporary.write_bytes(save(tensors, {METADATA: json.dumps(header, sort_keys=True)}))


def load_checkpoint(
    path: Path,
    *,
    config: VitLslaConfig | None = None,
    factory: str | None = None,
    key_map: Path | None = None,
    labels: tuple[str, ...] | None = None,
    preprocessing: Preprocessing | None = None,
) -> Checkpoint:
    """Build a model and load its weights, refusing in words whatever does not fit.

    Args:
        path: `.safetensors`, or a state dict saved by torch (read with `weights_only`).
        config: the architecture; not needed where the file carries its own.
        factory: "module:function" of a user's own module, called without arguments; its result is the model.
        key_map: JSON file of regular expressions for whole key names and their replacements.
        labels: class names; default: the file's own, else "class 0", ….
        preprocessing: default: the file's own, else ImageNet's mean and deviation at the model's image size.

    Raises:
        CheckpointError: unreadable, unsafe, or keys, shapes or class count do not fit.
        UsageError: the configuration, factory or key map cannot be used.
    """
    weights, header = read_weights(path)
    own_labels, own_preprocessing = _read_header(header, path)
    if key_map is not None:
        weights = _rename(weights, key_map)
    if factory is not None:
        model = call_factory(factory)
        identity: dict[str, Any] = {"factory": factory}
        image_size = preprocessing.image_size if preprocessing else int(getattr(model, "image_size", 224))
    else:
        if config is None:
            if "config" not in header:
                raise CheckpointError("checkpoint does not say which model it is", path, "name it with --model")
            config = VitLslaConfig.from_dict(header["config"], path)
        config = _with_classes(config, weights, labels, path)
        model, identity, image_size = VitLsla(config), config.to_dict(), config.image_size
    _load(model, weights, path)
    if labels is None:
        classes = _class_count(model, image_size)
        labels = own_labels or tuple(f"class {index}" for index in range(classes))
        if len(labels) != classes:
            raise CheckpointError(f"checkpoint has {classes} classes and {len(labels)} labels", path, "give --labels")
    preprocessing = preprocessing or own_preprocessing or Preprocessing(image_size=image_size)
    return Checkpoint(model.eval(), image_size, Description(identity, labels, preprocessing, file_sha256(path)))


def open_checkpoint(
    path: Path, model: str | None = None, key_map: Path | None = None, labels: Path | None = None
) -> Checkpoint:
    """Load a checkpoint as the command line names it; see `load_checkpoint` for the errors.

    Args:
        model: a shipped configuration's name, a configuration file (.json), or "module:function".
        labels: a list of class names, one a line.
    """
    factory = model if model and ":" in model else None
    return load_checkpoint(
        path,
        config=find_config(model) if model and not factory else None,
        factory=factory,
        key_map=key_map,
        labels=read_classes(labels) if labels else None,
    )


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file's tensors by name, and our header where it has one.

    Raises:
        CheckpointError: missing, unreadable, damaged, or holding pickled objects.
    """
    if not path.is_file():
        raise CheckpointError("no such checkpoint", path, "check the path")
    try:
        with path.open("rb") as file:
            start = file.read(16)
        if path.suffix == ".safetensors" or start[8:9] == b"{":
            with safe_open(path, framework="pt") as opened:
                header = json.loads((opened.metadata() or {}).get(METADATA, "{}"))
                return {name: opened.get_tensor(name) for name in opened.keys()}, header  # noqa: SIM118  # not a dict
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error) and "Unsupported" not in str(error):
            raise CheckpointError("checkpoint is damaged or of another format", path, "fetch it again") from error
        raise CheckpointError(
            "checkpoint holds pickled Python objects, which can run code when loaded",
            path,
            "where you trust it, save its state_dict alone: torch.save(model.state_dict(), FILE)",
        ) from error
    except PermissionError as error:
        raise CheckpointError("no permission to read the checkpoint", path, "change its permissions") from error
    except Exception as error:  # torch's unpickler raises whatever damaged bytes lead it to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            "checkpoint is damaged or of another format", path, f"fetch it again ({reason})"
        ) from error
    return _state_dict(loaded, path), {}


def _read_header(header: Any, path: Path) -> tuple[tuple[str, ...] | None, Preprocessing | None]:
    """Return the labels and preprocessing that a file of ours carries."""
    try:
        labels = header.get("labels")
        if labels is not None and not (
            isinstance(labels, list) and all(isinstance(one, str) and one for one in labels)
        ):
            raise TypeError("labels are not a list of names")
        settings = header.get("preprocessing")
        return tuple(labels) if labels else None, Preprocessing(**settings) if settings is not None else None
    except (AttributeError, TypeError, UsageError) as error:
        raise CheckpointError("checkpoint's own description is damaged", path, f"save it again ({error})") from error


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _state_dict(loaded: object, path: Path) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict):
        raise CheckpointError("checkpoint holds no state dict", path, "save model.state_dict()")
    weights = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if not weights:
        raise CheckpointError("checkpoint holds no tensors", path, "save model.state_dict()")
    if all(name.startswith("module.") for name in weights):  # saved from DataParallel
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    return weights


def _rename(weights: dict[str, Tensor], key_map: Path) -> dict[str, Tensor]:
    try:
        rules = read_json(key_map, "key map", UsageError)
        if not isinstance(rules, dict):
            raise ValueError("not an object of pattern: replacement")
        patterns = [(re.compile(pattern), str(replacement)) for pattern, replacement in rules.items()]
        renamed: dict[str, Tensor] = {}
        for name, value in weights.items():
            new = next((p.sub(r, name) for p, r in patterns if p.fullmatch(name)), name)
            if new in renamed:
                raise ValueError(f"two keys become {new!r}")
            renamed[new] = value
    except (ValueError, re.error, IndexError) as error:
        raise UsageError("key map cannot be used", key_map, f"see docs/your-own-model.md ({error})") from error
    return renamed


def call_factory(factory: str) -> nn.Module:
    """Build a user's own module, "module:function" in the working directory or an installed package.

    Raises:
        UsageError: there is no such function, or it does not give a torch.nn.Module.
    """
    module_name, _, function = factory.partition(":")
    sys.path.insert(0, "")  # the user's module lies in the working directory
    try:
        model = getattr(importlib.import_module(module_name), function)()
    except (Exception, SystemExit) as error:  # it is the user's code, and may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise UsageError("model factory cannot be called", factory, f"give module:function ({reason})") from error
    finally:
        sys.path.remove("")
    if not isinstance(model, nn.Module):
        raise UsageError(f"model factory gave a {type(model).__name__}", factory, "it must return a torch.nn.Module")
    return model


def _with_classes(
    config: VitLslaConfig, weights: dict[str, Tensor], labels: tuple[str, ...] | None, path: Path
) -> VitLslaConfig:
    head = weights.get("head.weight")
    if head is not None and head.ndim == 2:
        if labels is not None and len(labels) != head.shape[0]:
            raise CheckpointError(
                f"checkpoint has {head.shape[0]} classes, the label list {len(labels)}", path, "give the right list"
            )
        config = config.with_(classes=int(head.shape[0]))
    return config


def _load(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    missing, unexpected = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    remedy = "choose the right --model, or give a --key-map (docs/your-own-model.md)"
    if missing or unexpected:
        parts = [
            f"{len(names)} {word} key{'s' * (len(names) > 1)} ({_list(names)})"
            for names, word in ((missing, "missing"), (unexpected, "unexpected"))
            if names
        ]
        raise CheckpointError(f"checkpoint does not fit the model, {' and '.join(parts)}", path, remedy)
    wrong = [
        f"{name} is {list(weights[name].shape)}, the model's {list(own[name].shape)}"
        for name in sorted(own)
        if weights[name].shape != own[name].shape
    ]
    if wrong:
        raise CheckpointError(f"checkpoint does not fit the model, {_list(wrong)}", path, remedy)
    odd = [name for name, value in sorted(weights.items()) if value.layout != torch.strided or value.is_complex()]
    if odd:
        raise CheckpointError(f"checkpoint has sparse or complex tensors, {_list(odd)}", path, "save dense real ones")
    bad = [name for name, value in sorted(weights.items()) if not torch.isfinite(value).all()]
    if bad:
        raise CheckpointError(f"checkpoint has NaN or infinite weights in {_list(bad)}", path, "train it again")
    model.load_state_dict({name: value.to(own[name].dtype) for name, value in weights.items()})


def _list(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _class_count(model: nn.Module, image_size: int) -> int:
    try:
        with torch.no_grad():
            return int(model.eval()(torch.zeros(1, 3, image_size, image_size)).shape[-1])
    except (RuntimeError, TypeError, AttributeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"model does not run on {image_size} px images", None, f"set image_size ({reason})") from error
