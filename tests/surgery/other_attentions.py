"""Attentions written in other ways than the model's, for the tests of surgery: same mathematics, or nearly."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edge_lsla.operator import relative_index


class Einsum(nn.Module):
    """Whole-map attention on [B, L, C] with einsum, the scale on the scores, and softplus spelled out."""

    def __init__(self, heads: int, head_width: int, side: int, change: str = "") -> None:
        super().__init__()
        self.h, self.d, self.side, self.change = heads, head_width, side, change
        width, tokens = heads * head_width, side * side
        self.norm = nn.LayerNorm(width)
        self.q, self.other = nn.Linear(width, width), nn.Linear(width, width)
        self.w, self.b = nn.Parameter(0.2 * torch.randn(head_width, heads)), nn.Parameter(torch.randn(heads))
        table = torch.randn(2, heads, (2 * side - 1) ** 2)
        bias = table[:, :, torch.from_numpy(relative_index(side))]  # [2, heads, T, T]
        if change == "inner":
            bias[0, 0, 0, 0] += 1e-3
        if change == "outer":
            bias[1, 0, 1, 2] += 1e-3
        self.register_buffer("inside", bias[0].clone())
        self.register_buffer("outside", bias[1].clone())
        self.mix = nn.Linear(tokens, tokens)

    def forward(self, image: Tensor) -> Tensor:
        tokens = image.flatten(2).transpose(1, 2)  # [B, L, C]
        x = self.norm(tokens)
        u = x.unflatten(-1, (self.h, self.d))
        q = self.q(x).unflatten(-1, (self.h, self.d))
        keys = self.other(x).unflatten(-1, (self.h, self.d)) if self.change in ("keys", "keys and values") else u
        values = self.other(x).unflatten(-1, (self.h, self.d)) if self.change in ("values", "keys and values") else u
        z = torch.einsum("blhd,dh->bhl", u, self.w) + self.b[:, None]
        gain = torch.tanh(z) + 2 if self.change == "scale" else torch.log(1 + torch.exp(z))
        scores = torch.einsum("bihd,bjhd->bhij", q, keys) * (gain / math.sqrt(self.d))[..., None] + self.inside
        weights = torch.softmax(scores, dim=-1)
        weights = weights + (self.mix(weights) if self.change == "outer depends on the input" else self.outside)
        mixed = torch.einsum("bhij,bjhd->bihd", weights, values).flatten(2)
        return (tokens + mixed).mean(1)


class Windows(nn.Module):
    """Windowed attention on [B, H, W, C], written with view and swapaxes, queries scaled beforehand."""

    def __init__(self, heads: int, head_width: int, window: int, *, scale: bool, inner: bool, outer: bool) -> None:
        super().__init__()
        self.heads, self.window, width = heads, window, heads * head_width
        self.norm, self.q = nn.GroupNorm(1, width), nn.Linear(width, width)
        self.dot = nn.Parameter(0.3 * torch.randn(heads, 1, head_width))
        self.dot_bias = nn.Parameter(0.3 * torch.randn(heads, 1))
        rows = (2 * window - 1) ** 2
        self.inside, self.outside = nn.Parameter(torch.randn(rows, heads)), nn.Parameter(torch.randn(rows, heads))
        self.register_buffer("where", torch.from_numpy(relative_index(window)).flatten())
        self.scale, self.inner, self.outer = scale, inner, outer

    def windows(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        s = self.window
        x = x.view(b, h // s, s, w // s, s, c).swapaxes(2, 3).reshape(-1, s * s, c)
        return x.view(x.shape[0], s * s, self.heads, c // self.heads).swapaxes(1, 2)

    def bias(self, table: Tensor) -> Tensor:
        size = self.window**2
        return table.index_select(0, self.where).view(size, size, -1).permute(2, 0, 1)[None]

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(image).permute(0, 2, 3, 1).contiguous()
        b, h, w, c = x.shape
        q, k = self.windows(self.q(x)), self.windows(x)
        scores = q @ k.transpose(-1, -2)
        if self.scale:
            scores = scores * nn.functional.softplus((k * self.dot).sum(-1) + self.dot_bias).unsqueeze(-1)
        if self.inner:
            scores = scores + self.bias(self.inside)
        weights = scores.softmax(-1)
        y = weights @ k
        if self.outer:
            y = y + self.bias(self.outside) @ k
        s = self.window
        y = y.swapaxes(1, 2).reshape(b, h // s, w // s, s, s, c).swapaxes(2, 3).reshape(b, h, w, c)
        return (x + y).mean((1, 2))


class Branch(nn.Module):
    """The whole residual branch on [B, H, W, C], and ways in which it is not what the residual operator computes."""

    def __init__(self, change: str = "", heads: int = 2, head_width: int = 16, window: int = 2) -> None:
        super().__init__()
        width = heads * head_width
        self.change, self.width = change, width
        self.norm = nn.GroupNorm(2, width) if change == "norm" else nn.LayerNorm(width, eps=2e-4)
        with torch.no_grad():
            self.norm.weight.add_(0.2 * torch.randn(width))
            self.norm.bias.add_(0.2 * torch.randn(width))
        self.windows = Windows(heads, head_width, window, scale=True, inner=True, outer=True)
        self.windows.q = nn.Linear(width, width, bias=change != "no bias")
        self.other = nn.Linear(width, width)

    def attend(self, n: Tensor, query: Tensor) -> Tensor:
        w = self.windows
        b, h, wide, c = n.shape
        q, k = w.windows(query), w.windows(n)
        scores = q @ k.transpose(-1, -2)
        scores = scores * nn.functional.softplus((k * w.dot).sum(-1) + w.dot_bias).unsqueeze(-1) + w.bias(w.inside)
        y = (scores.softmax(-1) + w.bias(w.outside)) @ k
        s = w.window
        return y.swapaxes(1, 2).reshape(b, h // s, wide // s, s, s, c).swapaxes(2, 3).reshape(b, h, wide, c)

    def forward(self, image: Tensor) -> Tensor:
        x = image.permute(0, 2, 3, 1).tanh()  # [B, H, W, C]
        n = self.norm(image.tanh()).permute(0, 2, 3, 1) if self.change == "norm" else self.norm(x)
        if self.change == "rows":  # as a Gemm
            query = self.windows.q(n.reshape(-1, self.width)).reshape(n.shape)
        elif self.change == "changed query":
            query = (self.windows.q(n) * 0.5 - self.other.bias) / 3
        else:
            query = self.windows.q(n.tanh() if self.change == "query of another tensor" else n)
        if self.change == "query by two":
            query = query * self.other(n)
        y = self.attend(n, query)
        if self.change == "scaled result":
            y = y * 0.5
        added = self.other(x) if self.change == "another tensor" else n if self.change == "post-norm" else x
        result = added + y
        for change, tensor in (("n", n), ("query", query), ("y", y)):
            if self.change == f"{change} read elsewhere":
                result = result + tensor.tanh()
        return result.mean((1, 2))
