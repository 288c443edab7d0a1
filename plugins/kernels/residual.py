"""`LslaResidualAttention`: y = x + LslaAttention(n, n Wq + bq) with n = LayerNorm(x), in one pass over x.

One program makes ROWS rows of one window for some heads. It reads all channels of the window once for the statistics of
LayerNorm, and keeps those of every token in registers; normalised rows are made again where they are needed.
"""

import triton
import triton.language as tl

from plugins.kernels.windows import (
    are_tokens,
    dynamic_scale,
    look_up,
    next_weights,
    relative_offsets,
    token_offsets,
    window_base,
)


@triton.jit
def normalised(tokens, real, columns, mean, inverse, norm_weight, norm_bias):
    """Return rows of LayerNorm(x), in the type of x: `columns` are channel numbers, mean and inverse are per row."""
    part = tl.load(tokens[:, None] + columns[None, :], mask=real[:, None], other=0.0)
    weight = tl.load(norm_weight + columns).to(tl.float32)
    bias = tl.load(norm_bias + columns).to(tl.float32)
    rows = (part.to(tl.float32) - mean[:, None]) * inverse[:, None] * weight[None, :] + bias[None, :]
    # A padded token's row would be bias - mean * ...: it must not reach a product.
    return tl.where(real[:, None], rows, 0.0).to(part.dtype)


@triton.jit
def statistics(tokens, real, epsilon, CHANNELS: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr):
    """Return the mean and 1 / sqrt(variance + epsilon) over the channels of each token, float32.

    Chunks of channels are joined by Chan's formula, so that a large mean costs no digits of the variance.
    """
    mean = tl.zeros((ROWS,), tl.float32)
    squares = tl.zeros((ROWS,), tl.float32)
    for start in range(0, CHANNELS, CHUNK):
        columns = start + tl.arange(0, CHUNK)
        part = tl.load(tokens[:, None] + columns[None, :], mask=real[:, None], other=0.0).to(tl.float32)
        middle = tl.sum(part, axis=1) * (1.0 / CHUNK)
        offset = part - middle[:, None]
        step = middle - mean
        share = CHUNK / (start + CHUNK * 1.0)
        mean += step * share
        squares += tl.sum(offset * offset, axis=1) + step * step * (start * share)
    return mean, 1.0 / tl.sqrt_rn(squares * (1.0 / CHANNELS) + epsilon)


@triton.jit
def lsla_residual_attention(
    x, norm_weight, norm_bias, query_weight, query_bias, scale_weight, scale_bias, inner_bias, outer_bias, y,
    epsilon, num_windows, windows_down, windows_across, heads, per_program,
    SIDE: tl.constexpr, PITCH: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr, CHUNK: tl.constexpr, KEY_BLOCKS: tl.constexpr,
):  # fmt: skip
    """KEY_BLOCKS is ceil(SIDE * PITCH / COLUMNS) rounded up to a power of two; CHUNK divides CHANNELS."""
    BLOCKS: tl.constexpr = (SIDE * PITCH + ROWS - 1) // ROWS
    STEP: tl.constexpr = COLUMNS // PITCH
    MASKED: tl.constexpr = SIDE % STEP != 0
    HEADS: tl.constexpr = CHANNELS // WIDTH
    row_stride = windows_across * (SIDE * CHANNELS)
    program = tl.program_id(0)
    groups = (heads + per_program - 1) // per_program
    rows = program % BLOCKS * ROWS + tl.arange(0, ROWS)
    first = program // BLOCKS % groups * per_program
    window = program // (BLOCKS * groups)
    base = window_base(window, windows_down, windows_across, CHANNELS, SIDE)
    here = x + base
    columns = tl.arange(0, COLUMNS)
    key_offsets = token_offsets(columns, row_stride, CHANNELS, PITCH)

    # Statistics of every token of the window, [KEY_BLOCKS, COLUMNS].
    which = tl.arange(0, KEY_BLOCKS)[:, None]
    means = tl.zeros((KEY_BLOCKS, COLUMNS), tl.float32)
    inverses = tl.zeros((KEY_BLOCKS, COLUMNS), tl.float32)
    for row in range(0, SIDE, STEP):
        real = are_tokens(columns + row * PITCH, SIDE, PITCH)
        mean, inverse = statistics(here + row * row_stride + key_offsets, real, epsilon, CHANNELS, CHUNK, COLUMNS)
        means = tl.where(which == row // STEP, mean[None, :], means)
        inverses = tl.where(which == row // STEP, inverse[None, :], inverses)

    real_rows = are_tokens(rows, SIDE, PITCH)
    row_offsets = token_offsets(rows, row_stride, CHANNELS, PITCH)
    own_mean, own_inverse = statistics(here + row_offsets, real_rows, epsilon, CHANNELS, CHUNK, ROWS)
    table = relative_offsets(rows, columns, HEADS, SIDE, PITCH)
    lanes = tl.arange(0, WIDTH)

    for head in range(first, tl.minimum(first + per_program, HEADS)):
        channels = head * WIDTH + lanes
        projected = tl.zeros((ROWS, WIDTH), tl.float32)
        for start in range(0, CHANNELS, CHUNK):
            chunk = start + tl.arange(0, CHUNK)
            part = normalised(here + row_offsets, real_rows, chunk, own_mean, own_inverse, norm_weight, norm_bias)
            matrix = tl.load(query_weight + chunk[:, None] * CHANNELS + channels[None, :])
            projected = tl.dot(part, matrix, projected, input_precision="ieee")
        projected += tl.load(query_bias + channels).to(tl.float32)[None, :]

        own = normalised(here + row_offsets, real_rows, channels, own_mean, own_inverse, norm_weight, norm_bias)
        queries = projected.to(own.dtype)
        weight = tl.load(scale_weight + channels).to(tl.float32)
        scale = dynamic_scale(own.to(tl.float32), weight, tl.load(scale_bias + head).to(tl.float32), WIDTH)
        largest = tl.full((ROWS,), float("-inf"), tl.float32)
        total = tl.zeros((ROWS,), tl.float32)
        softened = tl.zeros((ROWS, WIDTH), tl.float32)
        biased = tl.zeros((ROWS, WIDTH), tl.float32)
        for row in range(0, SIDE, STEP):
            real = are_tokens(columns + row * PITCH, SIDE, PITCH)
            mean = tl.sum(tl.where(which == row // STEP, means, 0.0), axis=0)
            inverse = tl.sum(tl.where(which == row // STEP, inverses, 0.0), axis=0)
            addresses = here + row * row_stride + key_offsets
            keys = normalised(addresses, real, channels, mean, inverse, norm_weight, norm_bias)
            ahead = head - row * (2 * SIDE - 1) * HEADS
            inner = look_up(inner_bias + ahead, table, real, MASKED).to(tl.float32)
            outer = look_up(outer_bias + ahead, table, real, MASKED)
            scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale[:, None] + inner
            scores = tl.where(real[None, :], scores, float("-inf"))
            weights, largest, total, shrink = next_weights(scores, largest, total)
            softened = tl.dot(weights.to(keys.dtype), keys, softened * shrink[:, None], input_precision="ieee")
            biased = tl.dot(outer, keys, biased, input_precision="ieee")
        mixed = softened / total[:, None] + biased
        places = row_offsets[:, None] + channels[None, :]
        before = tl.load(here + places, mask=real_rows[:, None], other=0.0)
        result = (before.to(tl.float32) + mixed).to(before.dtype)
        tl.store(y + base + places, result, mask=real_rows[:, None])
