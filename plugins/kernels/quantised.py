"""`QLslaAttention`: x, query and y are int8 with one scale each; both products are int8, everything between is float32.

The weights softmax(S) + outer are quantised row by row in the kernel, each row with a step of its own, because a row's
largest weight may be 1 or 1 / T.
"""

import triton
import triton.language as tl

from plugins.kernels.windows import (
    LOG2E,
    are_tokens,
    dynamic_scale,
    look_up,
    next_weights,
    relative_offsets,
    token_offsets,
    window_base,
)


@triton.jit
def round_half_even(value):
    """Round float32 of magnitude below 2^22: past 1.5 * 2^23 a float32 has no fraction left."""
    return (value + 12582912.0) - 12582912.0


@triton.jit
def quantise_rows(weights):
    """Return int8 rows and their steps, float32: weights ~ rows * step, largest magnitude 127."""
    step = tl.max(tl.abs(weights), axis=1) * (1.0 / 127.0)
    step = tl.where(step > 0.0, step, 1.0)
    return round_half_even(weights / step[:, None]).to(tl.int8), step


@triton.jit
def to_int8(real, scale):
    """Return clamp(round_half_even(real / scale), -128, 127)."""
    return round_half_even(tl.clamp(real / scale, -128.0, 127.0)).to(tl.int8)


@triton.jit
def qlsla_attention_tile(
    x, query, scale_weight, scale_bias, inner_bias, outer_bias, x_scale, query_scale, y_scale, y,
    num_windows, windows_down, windows_across, heads, per_program,
    SIDE: tl.constexpr, PITCH: tl.constexpr, WIDTH: tl.constexpr, LANES: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """All T tokens in one tile; LANES is the head width or, for 16, the 32 that an int8 product needs."""
    channels = heads * WIDTH
    row_stride = windows_across * SIDE * channels
    program = tl.program_id(0)
    head = program % heads
    first = program // heads * per_program

    tokens = tl.arange(0, ROWS)
    lanes = tl.arange(0, LANES)
    real = are_tokens(tokens, SIDE, PITCH)
    there = real[:, None] & (lanes < WIDTH)[None, :]
    offsets = token_offsets(tokens, row_stride, channels, PITCH)[:, None] + head * WIDTH + lanes[None, :]
    table = relative_offsets(tokens, tokens, heads, SIDE, PITCH) + head
    inner = look_up(inner_bias, table, real, True)
    inner = tl.where(real[None, :], inner, float("-inf"))
    outer = look_up(outer_bias, table, real, True)
    weight = tl.load(scale_weight + head * WIDTH + lanes, mask=lanes < WIDTH, other=0.0)
    bias = tl.load(scale_bias + head)
    x_step = tl.load(x_scale)
    score_step = x_step * tl.load(query_scale)
    y_step = tl.load(y_scale)

    for window in range(first, tl.minimum(first + per_program, num_windows)):
        base = window_base(window, windows_down, windows_across, channels, SIDE)
        keys = tl.load(x + base + offsets, mask=there, other=0)
        queries = tl.load(query + base + offsets, mask=there, other=0)
        scale = dynamic_scale(keys.to(tl.float32) * x_step, weight, bias, WIDTH)
        dots = tl.dot(queries, tl.trans(keys), out_dtype=tl.int32).to(tl.float32)
        scores = dots * (scale * score_step)[:, None] + inner
        weights = tl.exp2(scores * LOG2E - (tl.max(scores, axis=1) * LOG2E)[:, None])
        weights, step = quantise_rows(weights * (1.0 / tl.sum(weights, axis=1))[:, None] + outer)
        mixed = tl.dot(weights, keys, out_dtype=tl.int32).to(tl.float32) * (step * x_step)[:, None]
        tl.store(y + base + offsets, to_int8(mixed, y_step), mask=there)


@triton.jit
def qlsla_attention_stream(
    x, query, scale_weight, scale_bias, inner_bias, outer_bias, x_scale, query_scale, y_scale, y,
    num_windows, windows_down, windows_across, heads, per_program,
    SIDE: tl.constexpr, PITCH: tl.constexpr, WIDTH: tl.constexpr, LANES: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Keys come some rows at a time; each block's softmax weights and outer bias have their own steps by row."""
    BLOCKS: tl.constexpr = (SIDE * PITCH + ROWS - 1) // ROWS
    STEP: tl.constexpr = COLUMNS // PITCH
    MASKED: tl.constexpr = SIDE % STEP != 0
    channels = heads * WIDTH
    row_stride = windows_across * SIDE * channels
    program = tl.program_id(0)
    rows = program % BLOCKS * ROWS + tl.arange(0, ROWS)
    head = program // BLOCKS % heads
    first = program // (BLOCKS * heads) * per_program

    lanes = tl.arange(0, LANES)
    columns = tl.arange(0, COLUMNS)
    row_there = are_tokens(rows, SIDE, PITCH)[:, None] & (lanes < WIDTH)[None, :]
    row_offsets = token_offsets(rows, row_stride, channels, PITCH)[:, None] + head * WIDTH + lanes[None, :]
    key_offsets = token_offsets(columns, row_stride, channels, PITCH)[:, None] + head * WIDTH + lanes[None, :]
    table = relative_offsets(rows, columns, heads, SIDE, PITCH) + head
    weight = tl.load(scale_weight + head * WIDTH + lanes, mask=lanes < WIDTH, other=0.0)
    bias = tl.load(scale_bias + head)
    x_step = tl.load(x_scale)
    score_step = x_step * tl.load(query_scale)
    y_step = tl.load(y_scale)

    for window in range(first, tl.minimum(first + per_program, num_windows)):
        base = window_base(window, windows_down, windows_across, channels, SIDE)
        queries = tl.load(query + base + row_offsets, mask=row_there, other=0)
        own = tl.load(x + base + row_offsets, mask=row_there, other=0)
        scale = dynamic_scale(own.to(tl.float32) * x_step, weight, bias, WIDTH) * score_step
        largest = tl.full((ROWS,), float("-inf"), tl.float32)
        total = tl.zeros((ROWS,), tl.float32)
        softened = tl.zeros((ROWS, LANES), tl.float32)
        biased = tl.zeros((ROWS, LANES), tl.float32)
        for row in range(0, SIDE, STEP):
            real = are_tokens(columns + row * PITCH, SIDE, PITCH)
            there = real[:, None] & (lanes < WIDTH)[None, :]
            keys = tl.load(x + base + row * row_stride + key_offsets, mask=there, other=0)
            back = row * (2 * SIDE - 1) * heads
            inner = look_up(inner_bias - back, table, real, MASKED)
            # Keys of the padding are zero, so what the padding's bias is makes the step coarser at most.
            outer, outer_step = quantise_rows(look_up(outer_bias - back, table, real, MASKED))
            scores = tl.dot(queries, tl.trans(keys), out_dtype=tl.int32).to(tl.float32) * scale[:, None] + inner
            scores = tl.where(real[None, :], scores, float("-inf"))
            weights, largest, total, shrink = next_weights(scores, largest, total)
            weights, step = quantise_rows(weights)
            softened = softened * shrink[:, None]
            softened += tl.dot(weights, keys, out_dtype=tl.int32).to(tl.float32) * step[:, None]
            biased += tl.dot(outer, keys, out_dtype=tl.int32).to(tl.float32) * outer_step[:, None]
        mixed = (softened / total[:, None] + biased) * x_step
        tl.store(y + base + row_offsets, to_int8(mixed, y_step), mask=row_there)
