"""ViT-LSLA in PyTorch: one readable file, shapes at the end of the lines.

A reconstruction of ViT-LSLA (arXiv 2210.17115); docs/model-card.md says line by line what the paper fixes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge_lsla.model.config import VitLslaConfig
from edge_lsla.operator import relative_index

UNIT_SOFTPLUS = math.log(math.e - 1.0)  # softplus(UNIT_SOFTPLUS) = 1


def partition(x: Tensor, heads: int, window: int) -> Tensor:
    """Cut [B, H, W, C] into windows [B * windows, heads, T, d]."""
    _, height, width, channels = x.shape
    x = x.reshape(-1, height // window, window, width // window, window, heads, channels // heads)
    return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, heads, window * window, channels // heads)


def merge(x: Tensor, height: int, width: int, window: int) -> Tensor:
    """Put windows [B * windows, heads, T, d] back into [B, H, W, C]."""
    heads, head_width = x.shape[1], x.shape[3]
    x = x.reshape(-1, height // window, width // window, heads, window, window, head_width)
    return x.permute(0, 1, 4, 2, 5, 3, 6).reshape(-1, height, width, heads * head_width)


class LslaAttention(nn.Module):
    """Light self-limited attention: keys and values are the input itself.

    Input and output are [B, H, W, C], H and W multiples of `window`, any float type; scores are computed in the
    input's type (autocast keeps the softmax in float32). Formula: `edge_lsla.operator`.

    Args:
        width: C. head_width: d, divides C. window: w.
        dynamic_scale, inner_bias, outer_bias: switch a term off; its tensor is then a constant, so that every
            variant exports to the same operator.
    """

    scale_weight: Tensor  # [heads, d]
    scale_bias: Tensor  # [heads]
    inner_bias: Tensor  # [(2w - 1)^2, heads]
    outer_bias: Tensor  # [(2w - 1)^2, heads]
    relative: Tensor  # int64 [T, T]

    def __init__(
        self,
        width: int,
        window: int,
        head_width: int = 32,
        *,
        dynamic_scale: bool = True,
        inner_bias: bool = True,
        outer_bias: bool = True,
    ) -> None:
        super().__init__()
        self.heads, self.window, self.head_width = width // head_width, window, head_width
        self.query = nn.Linear(width, width)
        table = (2 * window - 1) ** 2
        self._add("scale_weight", torch.zeros(self.heads, head_width), dynamic_scale)
        self._add("scale_bias", torch.full((self.heads,), UNIT_SOFTPLUS), dynamic_scale)
        self._add("inner_bias", torch.zeros(table, self.heads), inner_bias)
        self._add("outer_bias", torch.zeros(table, self.heads), outer_bias)
        self.register_buffer("relative", torch.from_numpy(relative_index(window)), persistent=False)

    def _add(self, name: str, value: Tensor, learned: bool) -> None:
        if learned:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1], x.shape[2]
        q = partition(self.query(x), self.heads, self.window)  # [N, heads, T, d]
        x = partition(x, self.heads, self.window)  # [N, heads, T, d]
        dot = (x * self.scale_weight[:, None, :]).sum(-1) + self.scale_bias[:, None]  # [N, heads, T]
        scale = F.softplus(dot) / math.sqrt(self.head_width)  # [N, heads, T]
        inner = self.inner_bias[self.relative].permute(2, 0, 1)  # [heads, T, T]
        outer = self.outer_bias[self.relative].permute(2, 0, 1)  # [heads, T, T]
        scores = (q * scale[..., None]) @ x.transpose(-1, -2) + inner  # [N, heads, T, T]
        weights = scores.softmax(-1) + outer  # [N, heads, T, T]
        return merge(weights.to(x.dtype) @ x, height, width, self.window)  # [B, H, W, C]


class Block(nn.Module):
    """Pre-norm residual block on [B, H, W, C]: attention, then a GELU MLP."""

    def __init__(self, config: VitLslaConfig, stage: int) -> None:
        super().__init__()
        width = config.widths[stage]
        hidden = round(width * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(width)
        self.attention = LslaAttention(
            width,
            config.windows[stage],
            config.head_width,
            dynamic_scale=config.dynamic_scale,
            inner_bias=config.inner_bias,
            outer_bias=config.outer_bias,
        )
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        x = x + self.contract(F.gelu(self.expand(self.norm2(x))))
        return x  # noqa: RET504  # the annotation of x carries the type that nn.Module.__call__ loses


class Stem(nn.Module):
    """Two stride-2 convolutions: [B, 3, S, S] to [B, S/4, S/4, C], normalised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(width // 2, width, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv2(F.gelu(self.conv1(images)))  # [B, C, S/4, S/4]
        return self.norm(x.permute(0, 2, 3, 1))  # type: ignore[no-any-return]  # nn.Module.__call__ returns Any


class Downsample(nn.Module):
    """LayerNorm and a stride-2 convolution between stages: [B, H, W, C] to [B, H/2, W/2, C']."""

    def __init__(self, width: int, new_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv2d(width, new_width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x).permute(0, 3, 1, 2)  # [B, C, H, W]
        return self.conv(x).permute(0, 2, 3, 1)  # type: ignore[no-any-return]  # [B, H/2, W/2, C']


class VitLsla(nn.Module):
    """ViT-LSLA classifier: images [N, 3, S, S] float32, normalised outside, to logits [N, classes]."""

    def __init__(self, config: VitLslaConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = Stem(config.widths[0])
        stages: list[nn.Module] = []
        for stage, depth in enumerate(config.depths):
            down = [Downsample(config.widths[stage - 1], config.widths[stage])] if stage else []
            stages.append(nn.Sequential(*down, *(Block(config, stage) for _ in range(depth))))
        self.stages = nn.ModuleList(stages)
        self.norm = nn.LayerNorm(config.widths[-1])
        self.head = nn.Linear(config.widths[-1], config.classes)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)  # [N, S/4, S/4, C]
        for stage in self.stages:
            x = stage(x)
        x = self.norm(x).mean((1, 2))  # [N, C]
        return self.head(x)  # type: ignore[no-any-return]  # [N, classes]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, LslaAttention):
        for name in ("scale_weight", "inner_bias", "outer_bias"):
            value = getattr(module, name)
            if isinstance(value, nn.Parameter):
                nn.init.trunc_normal_(value, std=0.02)
