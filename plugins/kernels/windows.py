"""What the kernels share: where the tokens of a window lie, the dynamic scale, the relative tables.

Maps are [B, H, W, C], channels last, and stay that way: a window of side w is cut out by address arithmetic. Its tokens
are numbered row by row with PITCH numbers a row: the token of row r and column c is r * PITCH + c. With PITCH = w all
numbers are tokens. With a PITCH that is a larger power of two a block of keys covers whole rows of the window: then the
addresses of the next block differ from those of the last by a constant, which is worth the padding.
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
def token_offsets(tokens, row_stride, channels, PITCH: tl.constexpr):
    """Return the offset of each token from its window's first one; row_stride is that of the map, in elements."""
    return tokens // PITCH * row_stride + tokens % PITCH * channels


@triton.jit
def are_tokens(tokens, SIDE: tl.constexpr, PITCH: tl.constexpr):
    """Tell which numbers are tokens of the window."""
    return (tokens // PITCH < SIDE) & (tokens % PITCH < SIDE)


@triton.jit
def relative_offsets(rows, columns, heads, SIDE: tl.constexpr, PITCH: tl.constexpr):
    """Return where rel(i, j) lies in a table [(2w - 1)^2, heads] of head 0: int32 [rows, columns].

    rel(i, j) = (row_i - row_j + w - 1)(2w - 1) + (col_i - col_j + w - 1) is a difference of one number for each token.
    Rows and columns beyond the window are moved to its edge, so that a number that is no token points into the table as
    well, unless it lies in a row of `columns` below the window.
    """
    i_row, i_column = tl.minimum(rows // PITCH, SIDE - 1), tl.minimum(rows % PITCH, SIDE - 1)
    i = i_row * (2 * SIDE - 1) + i_column + 2 * SIDE * (SIDE - 1)
    j = columns // PITCH * (2 * SIDE - 1) + tl.minimum(columns % PITCH, SIDE - 1)
    return (i[:, None] - j[None, :]) * heads


@triton.jit
def look_up(table, offsets, real, MASKED: tl.constexpr):
    """Load the bias of each pair, in the table's type; MASKED where `real` has columns below the window."""
    return tl.load(table + offsets, mask=real[None, :], other=0.0) if MASKED else tl.load(table + offsets)


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
def next_weights(scores, largest, total):
    """Take the online softmax one block of scores further.

    Returns the block's weights relative to the new largest score, that score, the new total of weights, and the factor
    by which everything summed so far must shrink.
    """
    larger = tl.maximum(largest, tl.max(scores, axis=1))
    shrink = tl.exp2((largest - larger) * LOG2E)
    weights = tl.exp2(scores * LOG2E - (larger * LOG2E)[:, None])  # one fused multiply-add before the exponential
    return weights, larger, total * shrink + tl.sum(weights, axis=1), shrink
