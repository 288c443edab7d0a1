"""`LslaAttention`: one program makes the rows of one head in one window (or in several windows, one after the other).

    y_i = sum_j (softmax_j(s_i <q_i, x_j> + inner[rel(i, j)]) + outer[rel(i, j)]) x_j        (edge_lsla/operator.py)

Scores, softmax and sums are float32. The product of weights and values takes the weights in the type of x, which is
what tensor cores multiply. The numbers after y are int32, the same for every kernel (`plugins/variants.py`).
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
def lsla_attention_tile(
    x, query, scale_weight, scale_bias, inner_bias, outer_bias, y,
    num_windows, windows_down, windows_across, heads, per_program,
    SIDE: tl.constexpr, PITCH: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """All T tokens in one tile (ROWS == COLUMNS >= T): the bias tiles stay in registers from window to window."""
    channels = heads * WIDTH
    row_stride = windows_across * SIDE * channels
    program = tl.program_id(0)
    head = program % heads
    first = program // heads * per_program

    tokens = tl.arange(0, ROWS)
    lanes = tl.arange(0, WIDTH)
    real = are_tokens(tokens, SIDE, PITCH)
    offsets = token_offsets(tokens, row_stride, channels, PITCH)[:, None] + head * WIDTH + lanes[None, :]
    table = relative_offsets(tokens, tokens, heads, SIDE, PITCH) + head
    inner = look_up(inner_bias, table, real, True).to(tl.float32)
    inner = tl.where(real[None, :], inner, float("-inf"))  # no weight falls on the padding
    outer = look_up(outer_bias, table, real, True).to(tl.float32)
    weight = tl.load(scale_weight + head * WIDTH + lanes).to(tl.float32)
    bias = tl.load(scale_bias + head).to(tl.float32)

    for window in range(first, tl.minimum(first + per_program, num_windows)):
        base = window_base(window, windows_down, windows_across, channels, SIDE)
        keys = tl.load(x + base + offsets, mask=real[:, None], other=0.0)
        queries = tl.load(query + base + offsets, mask=real[:, None], other=0.0)
        scale = dynamic_scale(keys.to(tl.float32), weight, bias, WIDTH)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale[:, None] + inner
        weights = tl.exp2(scores * LOG2E - (tl.max(scores, axis=1) * LOG2E)[:, None])
        weights = weights * (1.0 / tl.sum(weights, axis=1))[:, None] + outer
        mixed = tl.dot(weights.to(keys.dtype), keys, input_precision="ieee")
        tl.store(y + base + offsets, mixed.to(keys.dtype), mask=real[:, None])


@triton.jit
def lsla_attention_stream(
    x, query, scale_weight, scale_bias, inner_bias, outer_bias, y,
    num_windows, windows_down, windows_across, heads, per_program,
    SIDE: tl.constexpr, PITCH: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Keys come some rows of the window at a time: an online softmax, and a second accumulator for the outer bias."""
    BLOCKS: tl.constexpr = (SIDE * PITCH + ROWS - 1) // ROWS
    STEP: tl.constexpr = COLUMNS // PITCH
    MASKED: tl.constexpr = SIDE % STEP != 0
    channels = heads * WIDTH
    row_stride = windows_across * SIDE * channels
    program = tl.program_id(0)
    rows = program % BLOCKS * ROWS + tl.arange(0, ROWS)
    head = program // BLOCKS % heads
    first = program // (BLOCKS * heads) * per_program

    lanes = tl.arange(0, WIDTH)
    columns = tl.arange(0, COLUMNS)
    real_rows = are_tokens(rows, SIDE, PITCH)[:, None]
    row_offsets = token_offsets(rows, row_stride, channels, PITCH)[:, None] + head * WIDTH + lanes[None, :]
    key_offsets = token_offsets(columns, row_stride, channels, PITCH)[:, None] + head * WIDTH + lanes[None, :]
    table = relative_offsets(rows, columns, heads, SIDE, PITCH) + head
    weight = tl.load(scale_weight + head * WIDTH + lanes).to(tl.float32)
    bias = tl.load(scale_bias + head).to(tl.float32)

    for window in range(first, tl.minimum(first + per_program, num_windows)):
        base = window_base(window, windows_down, windows_across, channels, SIDE)
        queries = tl.load(query + base + row_offsets, mask=real_rows, other=0.0)
        own = tl.load(x + base + row_offsets, mask=real_rows, other=0.0)
        scale = dynamic_scale(own.to(tl.float32), weight, bias, WIDTH)
        largest = tl.full((ROWS,), float("-inf"), tl.float32)
        total = tl.zeros((ROWS,), tl.float32)
        softened = tl.zeros((ROWS, WIDTH), tl.float32)
        biased = tl.zeros((ROWS, WIDTH), tl.float32)
        for row in range(0, SIDE, STEP):
            real = are_tokens(columns + row * PITCH, SIDE, PITCH)
            keys = tl.load(x + base + row * row_stride + key_offsets, mask=real[:, None], other=0.0)
            back = row * (2 * SIDE - 1) * heads
            inner = look_up(inner_bias - back, table, real, MASKED).to(tl.float32)
            outer = look_up(outer_bias - back, table, real, MASKED)
            scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale[:, None] + inner
            scores = tl.where(real[None, :], scores, float("-inf"))
            weights, largest, total, shrink = next_weights(scores, largest, total)
            softened = tl.dot(weights.to(keys.dtype), keys, softened * shrink[:, None], input_precision="ieee")
            biased = tl.dot(outer, keys, biased, input_precision="ieee")
        mixed = softened / total[:, None] + biased
        tl.store(y + base + row_offsets, mixed.to(own.dtype), mask=real_rows)
