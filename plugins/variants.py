"""What is compiled: a variant is one kernel for one window, head width and type; its tile, arguments and grid."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_lsla import operator
from edge_lsla.errors import UsageError

WINDOWS = range(2, 17)
HEAD_WIDTHS = (16, 32, 64)
DTYPES = {"attention": ("fp16", "fp32"), "residual": ("fp16", "fp32"), "quantised": ("int8",)}
INPUTS = {
    "attention": operator.INPUTS,
    "residual": operator.RESIDUAL_INPUTS,
    "quantised": operator.QUANTISED_INPUTS,
}
NUMBERS = ("num_windows", "windows_down", "windows_across", "heads", "per_program")
LOOPED_WINDOWS = 16  # at most; a program that keeps its bias tiles in registers goes from window to window
TILE = 64  # the most tokens whose scores fit into one tile of registers
PROGRAMS_PER_PROCESSOR = 8  # what a launch aims at before a program takes a second window or head


@dataclass(frozen=True)
class Variant:
    """One kernel, compiled once for each architecture.

    Attributes:
        kernel: "attention", "residual" or "quantised".
        dtype: of x, query and y: "fp16", "fp32" or "int8".
        window: side w; T = w * w tokens.
        head_width: d.
        channels: C, only of "residual", which reads all channels of a token; else 0.
    """

    kernel: str
    dtype: str
    window: int
    head_width: int
    channels: int = 0

    def __post_init__(self) -> None:
        if self.kernel not in DTYPES:
            raise UsageError("no such kernel", self.kernel, f"take one of {', '.join(DTYPES)}")
        if self.dtype not in DTYPES[self.kernel]:
            raise UsageError(f"no such type for {self.kernel}", self.dtype, f"take {' or '.join(DTYPES[self.kernel])}")
        if self.window not in WINDOWS:
            raise UsageError("the window is out of range", self.window, f"take {WINDOWS[0]} to {WINDOWS[-1]}")
        if self.head_width not in HEAD_WIDTHS:
            widths = ", ".join(map(str, HEAD_WIDTHS))
            raise UsageError("no such head width", self.head_width, f"take one of {widths}")
        if self.kernel != "residual" and self.channels:
            raise UsageError(f"{self.kernel} works for any number of channels", self.channels, "leave -cN out")
        if self.kernel == "residual" and (self.channels < 1 or self.channels % self.head_width):
            raise UsageError(
                f"residual needs its channels, a multiple of the head width {self.head_width}",
                self.channels or None,
                f"write residual-w{self.window}-d{self.head_width}-c{3 * self.head_width}-{self.dtype}",
            )

    @property
    def name(self) -> str:
        """For example attention-w14-d32-fp16 or residual-w14-d32-c96-fp16."""
        channels = f"-c{self.channels}" if self.channels else ""
        return f"{self.kernel}-w{self.window}-d{self.head_width}{channels}-{self.dtype}"

    @property
    def tokens(self) -> int:
        """T, the tokens of a window."""
        return self.window * self.window

    @property
    def tile(self) -> Tile:
        """How the kernel cuts a window."""
        return _tile(self)

    @property
    def module(self) -> str:
        """The module with the kernel."""
        return f"plugins.kernels.{self.kernel}"

    @property
    def function(self) -> str:
        """The kernel's name in that module."""
        if self.kernel == "residual":
            return "lsla_residual_attention"
        stem = "qlsla_attention" if self.kernel == "quantised" else "lsla_attention"
        return f"{stem}_tile" if self.row_blocks == 1 else f"{stem}_stream"

    @property
    def constants(self) -> dict[str, int]:
        """What is compiled into the kernel, by the names of its arguments."""
        tile = self.tile
        constants = {
            "SIDE": self.window,
            "PITCH": tile.pitch,
            "WIDTH": self.head_width,
            "ROWS": tile.rows,
            "COLUMNS": tile.columns,
        }
        if self.kernel == "quantised":
            constants["LANES"] = max(32, self.head_width)  # an int8 product takes 32 at least
        if self.kernel == "residual":
            blocks = -(-self.window * tile.pitch // tile.columns)
            constants["CHANNELS"] = self.channels
            constants["CHUNK"] = min(32, self.channels & -self.channels)
            constants["KEY_BLOCKS"] = 1 << (blocks - 1).bit_length()
        return constants

    @property
    def row_blocks(self) -> int:
        """Programs that share the rows of one window and head."""
        return -(-self.window * self.tile.pitch // self.tile.rows)

    @property
    def max_per_program(self) -> int:
        """The most windows (of "residual": heads) that one program works through."""
        if self.kernel == "residual":
            return self.channels // self.head_width
        return LOOPED_WINDOWS if self.row_blocks == 1 else 1

    def per_program(self, num_windows: int, heads: int, processors: int) -> int:
        """Return how many windows (of "residual": heads) each program takes, on a GPU with so many multiprocessors."""
        units = self.row_blocks * heads * num_windows
        return max(1, min(units // (PROGRAMS_PER_PROCESSOR * processors), self.max_per_program))

    def grid(self, num_windows: int, heads: int, per_program: int) -> int:
        """Return the number of programs of one launch."""
        if self.kernel == "residual":
            return self.row_blocks * num_windows * -(-heads // per_program)
        return self.row_blocks * heads * -(-num_windows // per_program)


@dataclass(frozen=True)
class Tile:
    """Rows and columns of the tile of scores, warps of a program, stages of its pipeline, token numbers of a row."""

    rows: int
    columns: int
    warps: int
    stages: int
    pitch: int


def _tile(variant: Variant) -> Tile:
    """Choose the tile: all tokens where they fit, else blocks of whole rows; of those shipped, none spills anywhere."""
    smallest = 32 if variant.kernel == "quantised" else 16  # what a tensor core multiplies at once
    full = variant.dtype == "fp32"  # products run outside the tensor cores, their operands in more registers
    whole = max(smallest, 1 << (variant.tokens - 1).bit_length())
    if whole <= TILE and variant.kernel != "residual":
        warps = max(1, whole // 16) * (2 if full or variant.head_width == 64 else 1)
        return Tile(whole, whole, warps, stages=1 if full and variant.head_width == 64 else 2, pitch=variant.window)
    pitch = max(4, 1 << (variant.window - 1).bit_length())
    size = min(32, max(16, pitch * pitch))
    if full or variant.kernel == "quantised":
        return Tile(size, size, size // 8 * (2 if full else 1), stages=1, pitch=pitch)
    # Every program of the residual kernel reads the whole window once for its statistics: fewer, taller ones.
    rows = min(64, max(16, pitch * pitch)) if variant.kernel == "residual" else size
    return Tile(rows, size, rows // 16, stages=2, pitch=pitch)


def parse(name: str) -> Variant:
    """Read a variant's name.

    Raises:
        UsageError: it is not one, with what to write.
    """
    match = re.fullmatch(r"([a-z]+)-w(\d{1,3})-d(\d{1,3})(?:-c(\d{1,5}))?-([a-z0-9]+)", name)
    if match is None:
        raise UsageError(
            "this is no variant", name, "write KERNEL-wWINDOW-dHEADWIDTH-DTYPE, e.g. attention-w12-d16-fp16"
        )
    kernel, window, width, channels, dtype = match.groups()
    return Variant(kernel, dtype, int(window), int(width), int(channels or 0))


def shipped() -> tuple[Variant, ...]:
    """Return what `plugin build` compiles where nothing else is asked for."""
    return (
        *(Variant("attention", "fp16", window, 32) for window in (6, 7, 8, 12, 14, 16)),
        *(Variant("attention", "fp32", window, 32) for window in (7, 14)),
        *(Variant("residual", "fp16", 14, 32, channels) for channels in (96, 192)),
        *(Variant("quantised", "int8", window, 32) for window in (7, 14)),
    )
