"""The right assembler for each architecture: which releases of ptxas suit it, and where one is found.

A cubin must be one that the device's driver accepts. JetPack 6 has a CUDA 12.6 driver: ptxas 13 writes an ELF ABI that
a CUDA 12 driver is expected to refuse. PTX is read by the driver itself and may not be of a newer release than it.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_lsla.errors import MissingComponentError, UsageError

VARIABLE = "EDGE_LSLA_PTXAS"
PTX_ARCHITECTURE = 80  # the oldest that runs fp16 and int8 kernels as they are written here
VERSION_SECONDS = 20.0

Release = tuple[int, int]


@dataclass(frozen=True)
class Need:
    """What an architecture asks of ptxas, by CUDA release.

    Attributes:
        best: taken where there is one.
        oldest: that knows the architecture.
        newest: whose files the drivers of such devices accept.
        package: the wheel that brings the best one.
    """

    best: Release
    oldest: Release
    newest: Release
    package: str


_CUDA12 = Need((12, 6), (12, 0), (12, 9), "nvidia-cuda-nvcc-cu12==12.6.*")
_THOR = Need((13, 0), (13, 0), (13, 99), "nvidia-cuda-nvcc==13.0.*")
_BLACKWELL = Need((12, 9), (12, 8), (13, 99), "nvidia-cuda-nvcc-cu12==12.9.*")

NEEDS = {80: _CUDA12, 86: _CUDA12, 87: _CUDA12, 89: _CUDA12, 90: _CUDA12, 110: _THOR, 120: _BLACKWELL, 121: _BLACKWELL}
SHIPPED = (86, 87, 89, 90, 110, 120)


@dataclass(frozen=True)
class Ptxas:
    """One assembler.

    Attributes:
        path: the program.
        version: for example "12.6.85".
        named: whether the user named it in EDGE_LSLA_PTXAS.
    """

    path: Path
    version: str
    named: bool = False

    @property
    def release(self) -> Release:
        """The CUDA release, for example (12, 6)."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)


def choose(arch: int, found: Iterable[Ptxas] | None = None) -> Ptxas:
    """Return the assembler for an architecture: a suitable one that the user named, else the nearest to the best.

    Args:
        arch: compute capability, 87 for 8.7.
        found: what to choose from; default: `installed()`.

    Raises:
        UsageError: no such architecture, or EDGE_LSLA_PTXAS names what is no ptxas.
        MissingComponentError: none suits, with what to install.
    """
    need = NEEDS.get(arch)
    if need is None:
        raise UsageError("no such architecture", f"sm_{arch}", f"take one of {', '.join(map(str, NEEDS))}")
    found = list(installed() if found is None else found)
    suitable = [one for one in found if need.oldest <= one.release <= need.newest]
    if not suitable:
        seen = ", ".join(sorted({one.version for one in found})) or "none"
        upto = f" to {need.newest[0]}.{need.newest[1]}" if need.newest < (13, 0) else " or newer"
        raise MissingComponentError(
            f"no ptxas of CUDA {need.oldest[0]}.{need.oldest[1]}{upto} (found: {seen})",
            f"sm_{arch}",
            f"pip install '{need.package}', or name one in {VARIABLE}",
        )

    def rank(one: Ptxas) -> tuple[bool, bool, int, int]:
        newer = one.release > need.best
        major, minor = one.release if newer else (-one.release[0], -one.release[1])
        return not one.named, newer, major, minor

    return min(suitable, key=rank)


def notices(chosen: dict[int, Ptxas]) -> list[str]:
    """Say for which architectures the assembler is not the preferred one, and what may follow."""
    lines = []
    for arch, ptxas in sorted(chosen.items()):
        need = NEEDS[arch]
        if ptxas.release == need.best:
            continue
        best = f"{need.best[0]}.{need.best[1]}"
        # Within a major release a driver is to accept newer cubins; no such promise goes across it.
        risk = ""
        if ptxas.release > need.best:
            driver = ptxas.release[0] if ptxas.release[0] > need.best[0] else f"{ptxas.release[0]}.{ptxas.release[1]}"
            risk = f"; a device with a driver older than CUDA {driver} may refuse its files"
        lines.append(f"sm_{arch}: ptxas {ptxas.version} where {best} is preferred{risk} (pip install '{need.package}')")
    return lines


def installed() -> tuple[Ptxas, ...]:
    """Return every assembler that runs on this machine: what the user named, wheels, Triton's, toolkits, PATH.

    Raises:
        UsageError: EDGE_LSLA_PTXAS names what is no ptxas.
    """
    found: dict[Path, Ptxas] = {}
    for name in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        path = Path(name).expanduser()
        version = _version(path)
        if version is None:
            raise UsageError("this is no ptxas that runs here", path, f"correct {VARIABLE}")
        found.setdefault(path.resolve(), Ptxas(path.resolve(), version, named=True))
    for path in _places():
        resolved = path.resolve()
        if resolved not in found and (version := _version(resolved)) is not None:
            found[resolved] = Ptxas(resolved, version)
    return tuple(found.values())


def _places() -> list[Path]:
    places: list[Path] = []
    for package, pattern in (("nvidia", "*/bin/ptxas"), ("triton", "backends/nvidia/bin/ptxas*")):
        spec = importlib.util.find_spec(package)
        for folder in spec.submodule_search_locations or () if spec else ():
            places += sorted(Path(folder).glob(pattern))
    places += sorted(Path("/usr/local").glob("cuda*/bin/ptxas"))
    on_path = shutil.which("ptxas")
    return [*places, Path(on_path)] if on_path else places


def _version(path: Path) -> str | None:
    """Return the version that the program states, or None where it is none or does not run (another machine's)."""
    try:
        state = path.stat()
    except OSError:
        return None
    return _ask_version(path, state.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _ask_version(path: Path, changed: int) -> str | None:  # `changed` makes a replaced program be asked again
    try:
        answer = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    match = re.search(r"release \d+\.\d+, V(\d+\.\d+\.\d+)", answer.stdout)
    return match.group(1) if match and answer.returncode == 0 else None
