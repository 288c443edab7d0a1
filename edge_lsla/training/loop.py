"""The training loop: AdamW, cosine schedule, averaged weights, mixed precision, exact resume.

Every random draw comes from a generator seeded by (seed, step), and every schedule is a function of the step: so a run
that was stopped anywhere goes on exactly as if it had not been.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from edge_lsla.atomic import atomic_path, write_text
from edge_lsla.data.folders import PictureSet
from edge_lsla.errors import CheckpointError, DatasetError, EdgeLslaError
from edge_lsla.model.checkpoint import save_checkpoint
from edge_lsla.model.config import VitLslaConfig
from edge_lsla.model.vit_lsla import VitLsla
from edge_lsla.preprocessing import Preprocessing, normalise, to_pixels
from edge_lsla.training.augment import augment, mix
from edge_lsla.training.settings import TrainSettings
from edge_lsla.training.state import load_state, save_state

Progress = Callable[[int, int, str], None]
TRAIN_SIZE_FACTOR = 8 / 7  # pictures are kept a little larger than the input, for random crops


class PixelSet(Dataset[Tensor]):
    """Pictures after geometric preprocessing, uint8 [S, S, 3], kept in memory where they fit."""

    def __init__(self, pictures: PictureSet, preprocessing: Preprocessing, cache_mb: int) -> None:
        self.pictures, self.preprocessing = pictures, preprocessing
        size = preprocessing.image_size
        self.cache: Tensor | None = None
        if len(pictures) * size * size * 3 <= cache_mb * 2**20:
            self.cache = torch.empty(len(pictures), size, size, 3, dtype=torch.uint8)
            with ThreadPoolExecutor() as pool:
                for index, pixels in enumerate(pool.map(self._read, pictures.paths)):
                    self.cache[index] = torch.from_numpy(pixels)

    def _read(self, path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return np.array(to_pixels(path, self.preprocessing))

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        if self.cache is not None:
            return self.cache[index]
        return torch.from_numpy(self._read(self.pictures.paths[index]))

    def batches(self, order: Tensor, batch_size: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (uint8 [N, S, S, 3], labels int64 [N]) in the given order."""
        labels = torch.tensor(self.pictures.labels)
        chunks = list(torch.split(order, batch_size))
        if self.cache is not None:
            for chunk in chunks:
                yield self.cache[chunk], labels[chunk]
            return
        loader = DataLoader(self, batch_sampler=[c.tolist() for c in chunks], num_workers=workers)
        for chunk, pixels in zip(chunks, loader):
            yield pixels, labels[chunk]


def train(
    config: VitLslaConfig,
    training: PictureSet,
    validation: PictureSet,
    preprocessing: Preprocessing,
    settings: TrainSettings,
    folder: Path,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train a model, going on from `folder/state.pt` where that exists.

    Writes into `folder`: `state.pt` (each epoch, and when stopped), `best.safetensors` (averaged weights with the best
    validation top-1), `last.safetensors`, `metrics.jsonl` (one line an epoch), `curve.png`.

    Returns:
        {"epochs", "steps", "finished", "best_top1", "best_epoch"}.

    Raises:
        EdgeLslaError: the loss became NaN or infinite.
        CheckpointError: the folder holds another run.
        DatasetError: fewer training pictures than classes, or the sets' classes differ.
    """
    if training.classes != validation.classes or len(training.classes) != config.classes:
        raise DatasetError("training and validation differ in their classes", folder, "give both the same classes.txt")
    run = _Run(config, training, preprocessing, settings, folder, device)
    validation_set = PixelSet(validation, preprocessing, settings.cache_mb)
    while run.epoch < settings.epochs:
        started, losses, epoch = time.monotonic(), [], run.epoch + 1
        if progress:
            progress(run.step, run.total_steps, f"epoch {epoch}")
        for loss in run.steps():
            losses.append(loss)
            if progress:
                progress(run.step, run.total_steps, f"epoch {epoch} loss {np.mean(losses[-50:]):.3f}")
            if stop() and run.epoch < epoch:  # an epoch whose steps are done is finished first
                run.save()
                return run.summary(finished=False)
        top1 = evaluate(run.averaged, validation_set, settings, device)
        report(run.finish_epoch(losses, top1, time.monotonic() - started))
        if stop() and run.epoch < settings.epochs:
            return run.summary(finished=False)
    return run.summary(finished=True)


def evaluate(model: nn.Module, pictures: PixelSet, settings: TrainSettings, device: str) -> float:
    """Return top-1 accuracy, in percent."""
    model.eval()
    right = 0
    with torch.no_grad():
        for pixels, labels in pictures.batches(torch.arange(len(pictures)), settings.batch_size, settings.workers):
            images = torch.from_numpy(normalise(pixels.numpy(), pictures.preprocessing)).to(device)
            right += int((model(images).argmax(1).cpu() == labels).sum())
    return 100 * right / len(pictures)


class _Run:
    """The state of one run, in memory."""

    def __init__(
        self,
        config: VitLslaConfig,
        pictures: PictureSet,
        preprocessing: Preprocessing,
        settings: TrainSettings,
        folder: Path,
        device: str,
    ) -> None:
        self.config, self.settings, self.folder, self.device = config, settings, folder, device
        self.preprocessing, self.labels = preprocessing, pictures.classes
        # Everything that the exactness of a resumed run depends on; reading processes do not decide results.
        self.description = {
            "model": json.dumps(config.to_dict()),
            "settings": json.dumps({k: v for k, v in settings.to_dict().items() if k not in ("workers", "cache_mb")}),
            "data": pictures.digest(),
        }
        larger = Preprocessing(
            **{**preprocessing.to_dict(), "image_size": round(config.image_size * TRAIN_SIZE_FACTOR)}
        )
        self.pictures = PixelSet(pictures, larger, settings.cache_mb)
        self.steps_per_epoch = max(1, len(pictures) // settings.batch_size)
        self.total_steps = self.steps_per_epoch * settings.epochs
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"best_top1": -1.0, "best_epoch": 0}
        torch.manual_seed(settings.seed)
        self.model = VitLsla(config).to(device)
        self.averaged = VitLsla(config).to(device)
        self.averaged.load_state_dict(self.model.state_dict())
        decayed = [module.weight for module in self.model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
        kept = {id(parameter) for parameter in decayed}  # position tables, scales, norms and biases do not decay
        others = [p for p in self.model.parameters() if id(p) not in kept]
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
        self.amp = _amp_type(settings.amp, device)
        self.scaler = torch.amp.GradScaler(device, enabled=self.amp is torch.float16)
        if (folder / "state.pt").exists():
            try:
                self._restore(load_state(folder / "state.pt", self.description))
            except (KeyError, RuntimeError, ValueError, TypeError) as error:
                raise CheckpointError(
                    "training state lacks a part", folder / "state.pt", "start anew in another folder"
                ) from error

    @property
    def epoch(self) -> int:
        return self.step // self.steps_per_epoch

    def steps(self) -> Iterator[float]:
        """Do the remaining steps of the present epoch, yielding each loss."""
        settings, epoch = self.settings, self.epoch
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.pictures), generator=generator)
        used = min(len(order), self.steps_per_epoch * settings.batch_size)
        order = order[:used][(self.step % self.steps_per_epoch) * settings.batch_size :]
        for pixels, labels in self.pictures.batches(order, settings.batch_size, settings.workers):
            yield self._step(pixels.to(self.device), labels)

    def _step(self, pixels: Tensor, labels: Tensor) -> float:
        settings = self.settings
        generator = torch.Generator().manual_seed(settings.seed * 7_368_787 + self.step + 1)
        images = augment(pixels, self.config.image_size, settings, generator)
        mean, std = (
            torch.tensor(v, device=self.device)[:, None, None]
            for v in (self.preprocessing.mean, self.preprocessing.std)
        )
        targets = F.one_hot(labels, self.config.classes).float().to(self.device)
        targets = targets * (1 - settings.label_smoothing) + settings.label_smoothing / self.config.classes
        images, targets = mix((images - mean) / std, targets, settings, generator)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.model.train()
        with torch.autocast(self.device.split(":")[0], self.amp, enabled=self.amp is not None):
            logits = self.model(images)
        loss = F.cross_entropy(logits.float(), targets)
        if not math.isfinite(loss.item()):
            raise EdgeLslaError("loss is not finite", f"step {self.step}", "lower learning_rate or set amp to off")
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self._average()
        return loss.item()

    def _learning_rate(self) -> float:
        settings = self.settings
        warmup = settings.warmup_epochs * self.steps_per_epoch
        if self.step < warmup:
            return settings.learning_rate * (self.step + 1) / warmup
        share = (self.step - warmup) / max(1.0, self.total_steps - warmup)
        span = settings.learning_rate - settings.final_learning_rate
        return settings.final_learning_rate + span * (1 + math.cos(math.pi * min(1.0, share))) / 2

    def _average(self) -> None:
        decay = min(self.settings.ema, self.step / (self.step + 10))  # early averages must forget the initial weights
        with torch.no_grad():
            for mean, value in zip(self.averaged.parameters(), self.model.parameters()):
                mean.lerp_(value, 1 - decay)

    def finish_epoch(self, losses: list[float], top1: float, seconds: float) -> dict[str, Any]:
        epoch = self.step // self.steps_per_epoch
        row = {
            "epoch": epoch,
            "loss": round(float(np.mean(losses)), 5),
            "top1": round(top1, 3),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": round(seconds, 1),
        }
        self.history.append(row)
        if top1 >= self.best["best_top1"]:  # of equals the later one, whose average is the calmer
            self.best = {"best_top1": top1, "best_epoch": epoch}
            self._save_weights("best.safetensors", row)
        self._save_weights("last.safetensors", row)
        self.save()
        draw_curve(self.history, self.folder / "curve.png")
        return row

    def save(self) -> None:
        """Write state.pt and metrics.jsonl."""
        save_state(
            self.folder / "state.pt",
            {
                **self.description,
                "step": self.step,
                "history": self.history,
                "best": self.best,
                "weights": self.model.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
            },
        )
        lines = "".join(json.dumps(row) + "\n" for row in self.history)
        write_text(self.folder / "metrics.jsonl", lines)

    def _restore(self, state: dict[str, Any]) -> None:
        self.step, self.history, self.best = state["step"], state["history"], state["best"]
        self.model.load_state_dict(state["weights"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    def _save_weights(self, name: str, metrics: dict[str, Any]) -> None:
        weights = self.averaged.state_dict()
        save_checkpoint(self.folder / name, weights, self.config, self.labels, self.preprocessing, metrics)

    def summary(self, finished: bool) -> dict[str, Any]:
        return {"epochs": self.epoch, "steps": self.step, "finished": finished, **self.best}


def _amp_type(amp: str, device: str) -> torch.dtype | None:
    if amp == "auto":
        if not device.startswith("cuda"):
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]


def draw_curve(history: list[dict[str, Any]], path: Path) -> None:
    """Draw loss and validation top-1 over the epochs as a PNG."""
    from matplotlib.figure import Figure  # costs half a second, and only this picture needs it

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    epochs = [row["epoch"] for row in history]
    left.plot(epochs, [row["loss"] for row in history], color="tab:blue")
    left.set(xlabel="epoch")
    left.set_ylabel("training loss", color="tab:blue")
    right.plot(epochs, [row["top1"] for row in history], color="tab:orange")
    right.set_ylabel("validation top-1, %", color="tab:orange")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
