"""`QLslaAttention`: x, query and y are int8 with one scale each; both products are int8, everything between is float32.

The weights softmax(S) + outer are quantised row by row in the kernel, each row with a step of its own, because a row's
largest weight may be 1 or 1 / T.
"""

import triton
import triton.language as tl

from plugins.kernels.windows import LOG2E, dynamic_scale, relative_offsets, token_offsets, window_base


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
    SIDE: tl.constexpr, WIDTH: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """All T tokens in one tile; LANES is the head width or, for 16, the 32 that an int8 product needs."""
    TOKENS: tl.constexpr = SIDE * SIDE
    channels = heads * WIDTH
    program = tl.program_id(0)
    head = program % heads
    first = program // heads * per_program

    tokens = tl.arange(0, ROWS)
    lanes = tl.arange(0, LANES)
    real = tokens < TOKENS
    there = real[:, None] & (lanes < WIDTH)[None, :]
    offsets = token_offsets(tokens, windows_across, channels, SIDE)[:, None] + head * WIDTH + lanes[None, :]
    pairs = real[:, None] & real[None, :]
    table = relative_offsets(tokens, tokens, heads, SIDE) + head
    inner = tl.load(inner_bias + table, mask=pairs, other=0.0)
    inner = tl.where(real[None, :], inner, float("-inf"))
    outer = tl.load(outer_bias + table, mask=pairs, other=0.0)
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
        scores = tl.exp2((scores - tl.max(scores, axis=1)[:, None]) * LOG2E)
        weights, step = quantise_rows(scores / tl.sum(scores, axis=1)[:, None] + outer)
        mixed = tl.dot(weights, keys, out_dtype=tl.int32).to(tl.float32) * (step * x_step)[:, None]
        tl.store(y + base + offsets, to_int8(mixed, y_step), mask=there)


@triton.jit
def qlsla_attention_stream(
    x, query, scale_weight, scale_bias, inner_bias, outer_bias, x_scale, query_scale, y_scale, y,
    num_windows, windows_down, windows_across, heads, per_program,
    SIDE: tl.constexpr, WIDTH: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Keys come COLUMNS at a time; each block's softmax weights and outer bias have their own steps by row."""
    TOKENS: tl.constexpr = SIDE * SIDE
    BLOCKS: tl.constexpr = (TOKENS + ROWS - 1) // ROWS
    channels = heads * WIDTH
    program = tl.program_id(0)
    rows = program % BLOCKS * ROWS + tl.arange(0, ROWS)
    head = program // BLOCKS % heads
    first = program // (BLOCKS * heads) * per_program

    lanes = tl.arange(0, LANES)
    real_rows = (rows < TOKENS)[:, None]
    row_there = real_rows & (lanes < WIDTH)[None, :]
    row_offsets = token_offsets(rows, windows_across, channels, SIDE)[:, None] + head * WIDTH + lanes[None, :]
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
        for start in range(0, TOKENS, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            real = columns < TOKENS
            there = real[:, None] & (lanes < WIDTH)[None, :]
            offsets = token_offsets(columns, windows_across, channels, SIDE)[:, None] + head * WIDTH + lanes[None, :]
            keys = tl.load(x + base + offsets, mask=there, other=0)
            table = relative_offsets(rows, columns, heads, SIDE) + head
            pairs = real_rows & real[None, :]
            inner = tl.load(inner_bias + table, mask=pairs, other=0.0)
            outer, outer_step = quantise_rows(tl.load(outer_bias + table, mask=pairs, other=0.0))
            scores = tl.dot(queries, tl.trans(keys), out_dtype=tl.int32).to(tl.float32) * scale[:, None] + inner
            scores = tl.where(real[None, :], scores, float("-inf"))
            larger = tl.maximum(largest, tl.max(scores, axis=1))
            shrink = tl.exp2((largest - larger) * LOG2E)
            scores = tl.exp2((scores - larger[:, None]) * LOG2E)
            total = total * shrink + tl.sum(scores, axis=1)
            weights, step = quantise_rows(scores)
            softened = softened * shrink[:, None]
            softened += tl.dot(weights, keys, out_dtype=tl.int32).to(tl.float32) * step[:, None]
            biased += tl.dot(outer, keys, out_dtype=tl.int32).to(tl.float32) * outer_step[:, None]
            largest = larger
        mixed = (softened / total[:, None] + biased) * x_step
        tl.store(y + base + row_offsets, to_int8(mixed, y_step), mask=row_there)
