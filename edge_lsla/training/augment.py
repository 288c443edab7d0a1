"""Augmentation of whole batches on the training device, every draw from one generator so that runs repeat."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from edge_lsla.training.settings import TrainSettings


def augment(pixels: Tensor, size: int, settings: TrainSettings, generator: torch.Generator) -> Tensor:
    """Crop, rotate, mirror, jitter and erase.

    Args:
        pixels: uint8 [N, H, W, 3]. size: side of the result.

    Returns:
        float32 [N, 3, size, size] in 0..1.
    """
    images = pixels.permute(0, 3, 1, 2).float() / 255
    count, device = len(images), images.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(shape or (count,), generator=generator)  # drawn on the CPU: the same on every device
        return (drawn * (high - low) + low).to(device)

    side = uniform(settings.crop_scale, 1.0).sqrt()
    aspect = torch.exp(uniform(-math.log(4 / 3) / 2, math.log(4 / 3) / 2))
    across, down = (side * aspect).clamp(max=1.0), (side / aspect).clamp(max=1.0)
    angle = uniform(-settings.rotation, settings.rotation) * math.pi / 180
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0) if settings.flip else torch.ones(count, device=device)
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 0, 1] = across * angle.cos() * mirror, -down * angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = across * angle.sin() * mirror, down * angle.cos()
    theta[:, 0, 2], theta[:, 1, 2] = uniform(-1, 1) * (1 - across), uniform(-1, 1) * (1 - down)
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    jitter = settings.colour_jitter
    if jitter:
        brightness, contrast, saturation = (uniform(1 - jitter, 1 + jitter, count, 1, 1, 1) for _ in range(3))
        images = images * brightness
        images = (images - images.mean((1, 2, 3), keepdim=True)) * contrast + images.mean((1, 2, 3), keepdim=True)
        grey = images.mean(1, keepdim=True)
        images = ((images - grey) * saturation + grey).clamp(0, 1)
    if settings.erase:
        images = _erase(images, uniform, settings.erase)
    return images


def _erase(images: Tensor, uniform: object, probability: float) -> Tensor:
    assert callable(uniform)
    count, _, height, width = images.shape
    chosen = uniform(0, 1) < probability
    tall, wide = uniform(0.1, 0.35) * height, uniform(0.1, 0.35) * width
    top, left = uniform(0, 1) * (height - tall), uniform(0, 1) * (width - wide)
    rows = torch.arange(height, device=images.device)[None, :, None]
    columns = torch.arange(width, device=images.device)[None, None, :]
    across = (columns >= left[:, None, None]) & (columns < (left + wide)[:, None, None])
    down = (rows >= top[:, None, None]) & (rows < (top + tall)[:, None, None])
    inside = across & down & chosen[:, None, None]
    colour = uniform(0, 1, count, 3, 1, 1)
    return torch.where(inside[:, None], colour, images)


def mix(images: Tensor, targets: Tensor, settings: TrainSettings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Apply mixup or cutmix to a batch, or neither.

    Sources: mixup, arXiv 1710.09412; cutmix, arXiv 1905.04899.

    Args:
        images: float32 [N, 3, S, S]. targets: float32 [N, classes], rows sum to 1.
    """
    methods = [name for name in ("mixup", "cutmix") if getattr(settings, name)]
    draw = torch.rand(2, generator=generator).tolist()
    if not methods or draw[0] >= settings.mix_probability:
        return images, targets
    method = methods[int(draw[1] * len(methods))]
    alpha = float(getattr(settings, method))
    share = _beta(alpha, generator)
    order = torch.randperm(len(images), generator=generator).to(images.device)
    if method == "mixup":
        images = share * images + (1 - share) * images[order]
    else:
        size = images.shape[-1]
        side = size * math.sqrt(1 - share)
        middle = torch.rand(2, generator=generator).tolist()
        top, bottom = (max(0, min(size, round(middle[0] * size + d * side / 2))) for d in (-1, 1))
        left, right = (max(0, min(size, round(middle[1] * size + d * side / 2))) for d in (-1, 1))
        images = images.clone()
        images[:, :, top:bottom, left:right] = images[order][:, :, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / size**2
    return images, share * targets + (1 - share) * targets[order]


def _beta(alpha: float, generator: torch.Generator) -> float:
    # torch.distributions takes no generator; two Gamma(alpha) draws give Beta(alpha, alpha).
    gammas = torch._standard_gamma(torch.full((2,), alpha), generator=generator)
    return float(gammas[0] / gammas.sum()) if float(gammas.sum()) > 0 else 0.5
