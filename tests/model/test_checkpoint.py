from __future__ import annotations

import json
import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_lsla.errors import CheckpointError, UsageError
from edge_lsla.model.checkpoint import load_checkpoint, read_weights
from edge_lsla.model.config import VitLslaConfig, find_config

TINY = VitLslaConfig("tiny", 3, 32, widths=(32, 64), depths=(1, 1), windows=(4, 2))


@pytest.fixture
def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return read_weights(checkpoint)[0]


def same(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_our_own_file_needs_nothing_else(checkpoint: Path, weights: dict[str, torch.Tensor]) -> None:
    loaded = load_checkpoint(checkpoint)
    assert same(loaded.model, weights)
    assert loaded.description.labels == ("ant", "bee", "lady beetle")
    assert loaded.description.model == TINY.to_dict()
    assert not loaded.model.training


@pytest.mark.parametrize(
    "wrap",
    [dict, OrderedDict, lambda w: {"state_dict": w, "epoch": 3}, lambda w: {"model": w},
     lambda w: {f"module.{k}": v for k, v in w.items()}],
    ids=["plain", "ordered", "lightning", "model", "parallel"],
)  # fmt: skip
def test_plain_state_dicts_load(tmp_path: Path, weights: dict[str, torch.Tensor], wrap: Any) -> None:
    torch.save(wrap(weights), tmp_path / "x.pt")
    loaded = load_checkpoint(tmp_path / "x.pt", config=TINY.with_(classes=7))  # the file's own class count wins
    assert same(loaded.model, weights)
    assert loaded.description.labels == ("class 0", "class 1", "class 2")


class Evil:
    """Would create a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickled_object_is_refused_and_not_run(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    torch.save({**weights, "x": Evil(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="pickled Python objects"):
        load_checkpoint(tmp_path / "evil.pt", config=TINY)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(CheckpointError, match="pickled Python objects"):
        load_checkpoint(tmp_path / "module.pt", config=TINY)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("damage", ["empty", "text", "cut", "zeros"])
def test_damaged_files_are_refused(tmp_path: Path, checkpoint: Path, suffix: str, damage: str,
                                   weights: dict[str, torch.Tensor]) -> None:  # fmt: skip
    path = tmp_path / f"x{suffix}"
    if suffix == ".pt":
        torch.save(weights, path)
    else:
        path.write_bytes(checkpoint.read_bytes())
    data = path.read_bytes()
    broken = {"empty": b"", "text": b"hello", "cut": data[: len(data) // 2], "zeros": bytes(1000)}[damage]
    path.write_bytes(broken)
    with pytest.raises(CheckpointError, match=r"damaged|no tensors|no state dict|pickled"):
        load_checkpoint(path, config=TINY)


def test_misfits_are_told_in_words(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    def attempt(changed: dict[str, torch.Tensor], message: str, **options: Any) -> None:
        torch.save(changed, tmp_path / "x.pt")
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(tmp_path / "x.pt", **{"config": TINY, **options})

    missing = {k: v for k, v in weights.items() if k != "stem.conv1.bias"}
    attempt(missing, r"1 missing key \(stem.conv1.bias\)")
    attempt({**missing, "stem.first.bias": weights["stem.conv1.bias"]}, "1 missing key .* and 1 unexpected key")
    attempt({**weights, "stem.conv1.bias": torch.zeros(5)}, re.escape("stem.conv1.bias is [5], the model's [16]"))
    attempt({**weights, "norm.bias": weights["norm.bias"] * float("nan")}, "NaN or infinite weights in norm.bias")
    attempt(weights, "checkpoint has 3 classes, the label list 2", labels=("a", "b"))
    attempt(weights, "does not say which model", config=None)
    attempt({}, "no tensors")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "no.pt")


def test_a_key_map_renames(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    theirs = {re.sub(r"stages\.(\d)\.", r"layer\1.", name): value for name, value in weights.items()}
    torch.save(theirs, tmp_path / "x.pt")
    key_map = tmp_path / "map.json"
    key_map.write_text(json.dumps({r"layer(\d)\.(.*)": r"stages.\1.\2"}))
    assert same(load_checkpoint(tmp_path / "x.pt", config=TINY, key_map=key_map).model, weights)
    for text in ("[]", "{", '{"(": ""}', '{".*": "same"}', r'{"stem.*": "\\9"}'):
        key_map.write_text(text)
        with pytest.raises(UsageError, match="key map"):
            load_checkpoint(tmp_path / "x.pt", config=TINY, key_map=key_map)


def test_a_variant_without_outer_bias_and_with_a_fixed_scale(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    kept = {k: v for k, v in weights.items() if "outer_bias" not in k and "scale_" not in k}
    torch.save(kept, tmp_path / "x.pt")
    (tmp_path / "c.json").write_text(json.dumps({**TINY.to_dict(), "outer_bias": False, "dynamic_scale": False}))
    loaded = load_checkpoint(tmp_path / "x.pt", config=find_config(str(tmp_path / "c.json")))
    assert same(loaded.model, weights)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not JSON"), ("[]", "not an object"), ('{"name": "x"}', "missing field classes"),
     ('{"colour": 1}', "unknown field colour")],
)  # fmt: skip
def test_bad_configuration_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        find_config(str(tmp_path / "c.json"))
    for name in ("vit_lsla_x", str(tmp_path / "no.json")):
        with pytest.raises(UsageError):
            find_config(name)


def test_a_factory_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                    weights: dict[str, torch.Tensor]) -> None:  # fmt: skip
    (tmp_path / "their_model.py").write_text(
        "from edge_lsla.model.vit_lsla import VitLsla\nfrom edge_lsla.model.config import VitLslaConfig\n"
        f"def make():\n    model = VitLsla(VitLslaConfig(**{TINY.to_dict()!r}))\n"
        "    model.image_size = 32\n    return model\ndef number():\n    return 3\n"
    )
    torch.save(weights, tmp_path / "x.pt")
    monkeypatch.chdir(tmp_path)
    loaded = load_checkpoint(tmp_path / "x.pt", factory="their_model:make")
    assert same(loaded.model, weights)
    assert (loaded.image_size, len(loaded.description.labels)) == (32, 3)
    for bad in ("their_model:number", "their_model:no", "no_module:make", "their_model"):
        with pytest.raises(UsageError, match="factory"):
            load_checkpoint(tmp_path / "x.pt", factory=bad)
