from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from edge_lsla.data.folders import load_split
from edge_lsla.errors import CheckpointError, DatasetError, UsageError
from edge_lsla.model.checkpoint import load_checkpoint, read_weights
from edge_lsla.model.config import VitLslaConfig
from edge_lsla.preprocessing import Preprocessing
from edge_lsla.training.augment import augment, mix
from edge_lsla.training.loop import train
from edge_lsla.training.settings import DEMO, RECIPES, TrainSettings, changed

TINY = VitLslaConfig("tiny", 3, 32, widths=(32,), depths=(1,), windows=(4,))
QUICK = TrainSettings(epochs=4, batch_size=16, warmup_epochs=1, learning_rate=5e-3, ema=0.8, amp="off", workers=0)


def run(data: Path, folder: Path, settings: TrainSettings = QUICK, stop_after: int | None = None) -> dict[str, object]:
    folder.mkdir(exist_ok=True)
    seen = []
    return train(
        TINY, load_split(data, "train"), load_split(data, "val"), Preprocessing(32), settings, folder,
        progress=lambda done, total, text: seen.append(done),
        stop=lambda: stop_after is not None and len(seen) >= stop_after,
    )  # fmt: skip


def test_a_resumed_run_is_exactly_the_uninterrupted_one(pictures: Path, tmp_path: Path) -> None:
    whole = run(pictures, tmp_path / "whole")
    first = run(pictures, tmp_path / "parts", stop_after=5)  # in the middle of the second epoch
    assert (first["finished"], first["steps"]) == (False, 4)
    second = run(pictures, tmp_path / "parts")
    assert second == whole
    for name in ("best.safetensors", "last.safetensors"):
        ours, theirs = (read_weights(tmp_path / part / name)[0] for part in ("parts", "whole"))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert whole["best_top1"] == 100.0  # three colours are easy
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert (tmp_path / "whole" / "curve.png").stat().st_size > 1000
    assert load_checkpoint(tmp_path / "whole" / "best.safetensors").description.labels == ("ant", "bee", "lady beetle")


def test_pictures_that_do_not_fit_in_memory_give_the_same_run(pictures: Path, tmp_path: Path) -> None:
    short = dataclasses.replace(QUICK, epochs=1)
    assert run(pictures, tmp_path / "a", short) == run(pictures, tmp_path / "b", dataclasses.replace(short, cache_mb=0))


def test_another_runs_folder_is_refused(pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path, dataclasses.replace(QUICK, epochs=1))
    with pytest.raises(CheckpointError, match=r"other settings \(epochs 1 -> 2\)"):
        run(pictures, tmp_path, dataclasses.replace(QUICK, epochs=2))
    fewer = load_split(pictures, "train")
    fewer = dataclasses.replace(fewer, paths=fewer.paths[1:], labels=fewer.labels[1:])
    with pytest.raises(CheckpointError, match="other data"):
        train(
            TINY, fewer, load_split(pictures, "val"), Preprocessing(32), dataclasses.replace(QUICK, epochs=1), tmp_path
        )
    (tmp_path / "state.pt").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="damaged"):
        run(pictures, tmp_path, QUICK)


def test_differing_classes_are_refused(pictures: Path, tmp_path: Path) -> None:
    training = load_split(pictures, "train")
    other = dataclasses.replace(training, classes=("a", "b", "c"))
    with pytest.raises(DatasetError, match="differ in their classes"):
        train(TINY, training, other, Preprocessing(32), QUICK, tmp_path)


def test_mixed_precision_on_the_cpu_learns_too(pictures: Path, tmp_path: Path) -> None:
    assert run(pictures, tmp_path, dataclasses.replace(QUICK, amp="bf16"))["best_top1"] == 100.0


def test_augmentation_repeats_and_stays_in_range() -> None:
    pixels = torch.randint(0, 256, (8, 40, 40, 3), dtype=torch.uint8)
    first, second = (augment(pixels, 32, DEMO, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (8, 3, 32, 32)
    assert first.min() >= 0
    assert first.max() <= 1
    assert not torch.equal(first, augment(pixels, 32, DEMO, torch.Generator().manual_seed(4)))


def test_without_augmentation_the_picture_is_only_scaled() -> None:
    still = dataclasses.replace(DEMO, crop_scale=1.0, rotation=0.0, flip=False, colour_jitter=0.0, erase=0.0)
    pixels = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    pixels[:, 4:9, 20:30, 0] = 255
    # The aspect is still drawn, so the sides are at most 4/3 apart: compare what is left of the red patch.
    image = augment(pixels, 32, still, torch.Generator().manual_seed(0))[0, 0]
    assert 40 <= float(image.sum()) <= 75
    assert image[:3].max() == 0


@pytest.mark.parametrize("method", ["mixup", "cutmix"])
def test_mixing_keeps_targets_summing_to_one(method: str) -> None:
    settings = dataclasses.replace(DEMO, mix_probability=1.0, **{"mixup": 0.0, "cutmix": 0.0, method: 1.0})
    images, targets = torch.rand(6, 3, 16, 16), torch.eye(6)
    mixed, new = mix(images, targets, settings, torch.Generator().manual_seed(1))
    assert torch.allclose(new.sum(1), torch.ones(6))
    assert not torch.equal(mixed, images)
    assert torch.equal(mix(images, targets, dataclasses.replace(settings, mix_probability=0.0), torch.Generator())[0],
                       images)  # fmt: skip


def test_recipes_can_be_changed_by_name() -> None:
    new = changed(RECIPES["ip102"], ["epochs=3", "learning_rate=0.01", "flip=false", "amp=off"])
    assert (new.epochs, new.learning_rate, new.flip, new.amp) == (3, 0.01, False, "off")
    for bad in ("epochs=x", "epochs=0", "no=1", "flip=maybe", "epochs"):
        with pytest.raises(UsageError):
            changed(DEMO, [bad])
