"""`LslaAttention`: one program makes the rows of one head in one window (or in several windows, one after the other).

    y_i = sum_j (softmax_j(s_i <q_i, x_j> + inner[rel(i, j)]) + outer[rel(i, j)]) x_j        (edge_lsla/operator.py)

Scores, softmax and sums are float32. The product of weights and values takes the weights in the type of x, which is
what tensor cores multiply. Each kernel's arguments are listed in `plugins/variants.py`.
"""

import triton
import triton.language as tl

from plugins.kernels.windows import LOG2E, dynamic_scale, relative_offsets, token_offsets, window_base


@triton.jit
def lsla_attention_tile(
    x, query, scale_weight, scale_bias, inner_bias, outer_bias, y,
    num_windows, windows_down, windows_across, heads, per_program,
    SIDE: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """All T tokens in one tile (ROWS == COLUMNS >= T): the bias tiles stay in registers from window to window."""
    TOKENS: tl.constexpr = SIDE * SIDE
    channels = heads * WIDTH
    program = tl.program_id(0)
    head = program % heads
    first = program // heads * per_program

    tokens = tl.arange(0, ROWS)
    lanes = tl.arange(0, WIDTH)
    real = tokens < TOKENS
    offsets = token_offsets(tokens, windows_across, channels, SIDE)[:, None] + head * WIDTH + lanes[None, :]
    pairs = real[:, None] & real[None, :]
    table = relative_offsets(tokens, tokens, heads, SIDE) + head
    inner = tl.load(inner_bias + table, mask=pairs, other=0.0).to(tl.float32)
    inner = tl.where(real[None, :], inner, float("-inf"))  # no weight falls on the padding
    outer = tl.load(outer_bias + table, mask=pairs, other=0.0).to(tl.float32)
    weight = tl.load(scale_weight + head * WIDTH + lanes).to(tl.float32)
    bias = tl.load(scale_bias + head).to(tl.float32)

    for window in range(first, tl.minimum(first + per_program, num_windows)):
        base = window_base(window, windows_down, windows_across, channels, SIDE)
        keys = tl.load(x + base + offsets, mask=real[:, None], other=0.0)
        queries = tl.load(query + base + offsets, mask=real[:, None], other=0.0)
        scale = dynamic_scale(keys.to(tl.float32), weight, bias, WIDTH)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale[:, None] + inner
        scores = tl.exp2((scores - tl.max(scores, axis=1)[:, None]) * LOG2E)
        weights = scores / tl.sum(scores, axis=1)[:, None] + outer
        mixed = tl.dot(weights.to(keys.dtype), keys, input_precision="ieee")
        tl.store(y + base + offsets, mixed.to(keys.dtype), mask=real[:, None])


@triton.jit
def lsla_attention_stream(
    x, query, scale_weight, scale_bias, inner_bias, outer_bias, y,
    num_windows, windows_down, windows_across, heads, per_program,
    SIDE: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Keys come COLUMNS at a time: an online softmax, and a second accumulator for the outer bias."""
    TOKENS: tl.constexpr = SIDE * SIDE
    BLOCKS: tl.constexpr = (TOKENS + ROWS - 1) // ROWS
    channels = heads * WIDTH
    program = tl.program_id(0)
    rows = program % BLOCKS * ROWS + tl.arange(0, ROWS)
    head = program // BLOCKS % heads
    first = program // (BLOCKS * heads) * per_program

    lanes = tl.arange(0, WIDTH)
    real_rows = (rows < TOKENS)[:, None]
    row_offsets = token_offsets(rows, windows_across, channels, SIDE)[:, None] + head * WIDTH + lanes[None, :]
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
        for start in range(0, TOKENS, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            real = columns < TOKENS
            offsets = token_offsets(columns, windows_across, channels, SIDE)[:, None] + head * WIDTH + lanes[None, :]
            keys = tl.load(x + base + offsets, mask=real[:, None], other=0.0)
            table = relative_offsets(rows, columns, heads, SIDE) + head
            pairs = real_rows & real[None, :]
            inner = tl.load(inner_bias + table, mask=pairs, other=0.0).to(tl.float32)
            outer = tl.load(outer_bias + table, mask=pairs, other=0.0).to(keys.dtype)
            scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale[:, None] + inner
            scores = tl.where(real[None, :], scores, float("-inf"))
            larger = tl.maximum(largest, tl.max(scores, axis=1))
            shrink = tl.exp2((largest - larger) * LOG2E)
            scores = tl.exp2((scores - larger[:, None]) * LOG2E)
            total = total * shrink + tl.sum(scores, axis=1)
            softened = softened * shrink[:, None]
            softened = tl.dot(scores.to(keys.dtype), keys, softened, input_precision="ieee")
            biased = tl.dot(outer, keys, biased, input_precision="ieee")
            largest = larger
        mixed = softened / total[:, None] + biased
        tl.store(y + base + row_offsets, mixed.to(own.dtype), mask=real_rows)
