"""What the kernels share: where the tokens of a window lie, the dynamic scale, the relative tables.

Maps are [B, H, W, C], channels last, and stay that way: a window is cut out by address arithmetic. Tokens are numbered
row by row inside their window of side w; T = w * w.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def window_base(window, windows_down, windows_across, channels, SIDE: tl.constexpr):
    """Return the offset, in elements, of a window's first token; int64, because a batch may pass 2^31 elements."""
    column = window % windows_across
    row = (window // windows_across) % windows_down
    image = window // (windows_across * windows_down)
    map_row = (image * windows_down + row).to(tl.int64) * SIDE
    return (map_row * (windows_across * SIDE) + column * SIDE) * channels


@triton.jit
def token_offsets(tokens, windows_across, channels, SIDE: tl.constexpr):
    """Return the offset of each token from its window's first one."""
    return ((tokens // SIDE) * (windows_across * SIDE) + tokens % SIDE) * channels


@triton.jit
def softplus(z):
    """Return log(1 + exp(z)) without overflow, and to full relative accuracy where it is tiny."""
    small = tl.exp(-tl.abs(z))
    sum_ = 1.0 + small
    # log1p by Kahan's correction: the rounding of 1 + small is divided out again.
    rounded = tl.where(sum_ == 1.0, 1.0, sum_ - 1.0)
    log1p = tl.where(sum_ == 1.0, small, tl.log(sum_) * (small / rounded))
    return tl.maximum(z, 0.0) + log1p


@triton.jit
def dynamic_scale(rows, weight, bias, WIDTH: tl.constexpr):
    """Return s_i = softplus(<x_i, weight> + bias) / sqrt(d), float32 [rows], from float32 rows [rows, width]."""
    return softplus(tl.sum(rows * weight[None, :], axis=1) + bias) * (1.0 / tl.sqrt(WIDTH * 1.0))


@triton.jit
def relative_offsets(rows, columns, heads, SIDE: tl.constexpr):
    """Return where rel(i, j) lies in a table [(2w - 1)^2, heads] of head 0: int32 [rows, columns].

    rel(i, j) = (row_i - row_j + w - 1)(2w - 1) + (col_i - col_j + w - 1) is a difference of one number for each token.
    """
    i = (rows // SIDE * (2 * SIDE - 1) + rows % SIDE + 2 * SIDE * (SIDE - 1)) * heads
    j = (columns // SIDE * (2 * SIDE - 1) + columns % SIDE) * heads
    return i[:, None] - j[None, :]
