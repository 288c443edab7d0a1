"""TensorRT and TensorRT for RTX: the same API under two names, and every difference between them and between versions.

TensorRT 10.3 to 11.x and TensorRT for RTX from 1.7. What these modules call exists under the same name in all of them
(tests/build/test_surfaces.py), except what `GUARDED` lists. Values of enumerations moved between versions: flags are
always made from names. Importing this loads nothing of TensorRT; it is loaded in the worker only.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from edge_lsla.errors import CompatibilityError, EdgeLslaError, MissingComponentError, UsageError

TENSORRT, RTX = "tensorrt", "tensorrt-rtx"

# Names that only TensorRT for RTX has, and the question asked before each is used.
GUARDED = {
    "ComputeCapability": "Flavour.names_targets",
    "IBuilderConfig.num_compute_capabilities": "Flavour.names_targets",
    "IBuilderConfig.set_compute_capability": "Flavour.names_targets",
}
_MODULES = {TENSORRT: "tensorrt", RTX: "tensorrt_rtx"}
_OLDEST = {TENSORRT: (10, 3), RTX: (1, 7)}
_NEXT_MAJOR = {TENSORRT: 12, RTX: 2}
_TITLES = {TENSORRT: "TensorRT", RTX: "TensorRT for RTX"}
_INSTALL = {
    TENSORRT: "JetPack brings it (python3-libnvinfer, and a virtual environment with --system-site-packages); "
    "on a desktop use NVIDIA's packages",
    RTX: "pip install tensorrt-rtx-cu13",
}
# Without these it is a package of the same name, or the runtime without its builder.
_NEEDED = {TENSORRT: ("Builder",), RTX: ("Builder", "ComputeCapability")}


@dataclass(frozen=True)
class Flavour:
    """A loaded TensorRT.

    Attributes:
        backend: "tensorrt" or "tensorrt-rtx".
        module: what was imported.
        version: of it, as it says.
    """

    backend: str
    module: Any
    version: str

    @property
    def title(self) -> str:
        """Its name and version for people."""
        return f"{_TITLES[self.backend]} {self.version}"

    @property
    def names_targets(self) -> bool:
        """Whether it builds for named compute capabilities, instead of for the GPU of this machine."""
        return self.backend == RTX

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets that it can be asked for, in order of capability; none where it builds for this machine."""
        if not self.names_targets:
            return ()
        trt = self.module
        names = (re.fullmatch(r"SM(\d+)", name) for name in trt.ComputeCapability.__members__)
        return tuple(f"sm{number}" for number in sorted(int(match[1]) for match in names if match))

    @property
    def takes_timing_cache(self) -> bool:
        """Whether it measures, and so remembers; with TensorRT for RTX a cache makes it look for a GPU."""
        return self.backend == TENSORRT

    @property
    def takes_plugins(self) -> bool:
        """Whether its networks hold plugins; TensorRT for RTX aborts the process on one."""
        return self.backend == TENSORRT


def load(backend: str) -> Flavour:
    """Import TensorRT.

    Raises:
        MissingComponentError: it is not installed, or its libraries do not load.
        CompatibilityError: a version that this project does not know.
    """
    name, title = _MODULES[backend], _TITLES[backend]
    try:
        module: ModuleType = importlib.import_module(name)
        version = str(getattr(module, "__version__", ""))
    except ModuleNotFoundError as error:
        if error.name == name:
            where = f"Python has no module {error.name}"
            raise MissingComponentError(f"{title} is not installed", where, _INSTALL[backend]) from error
        raise _does_not_load(backend, error) from error
    except (Exception, SystemExit) as error:  # a library of another CUDA, or none; a package cut short or overwritten
        raise _does_not_load(backend, error) from error
    numbers = re.match(r"(\d+)\.(\d+)", version)
    lacking = [attribute for attribute in _NEEDED[backend] if not hasattr(module, attribute)]
    if numbers is None or lacking:
        lacks = f", lacks {lacking[0]}" if lacking else ""
        file = getattr(module, "__file__", None)
        where = f"{name} {version or 'without a version'}{lacks}" + (f", {file}" if file else "")
        raise MissingComponentError(f"{title} cannot build", where, _INSTALL[backend])
    found = (int(numbers[1]), int(numbers[2]))
    oldest = ".".join(str(number) for number in _OLDEST[backend])
    if found < _OLDEST[backend] or found[0] >= _NEXT_MAJOR[backend]:
        known = f"{oldest} to {_NEXT_MAJOR[backend] - 1}.x"
        raise CompatibilityError(
            f"{title} {version} is not supported", known, f"install one of these: {_INSTALL[backend]}"
        )
    return Flavour(backend, module, version)


def _does_not_load(backend: str, error: BaseException) -> MissingComponentError:
    reason = (str(error).strip().splitlines() or [""])[0][:200]
    kind = "" if isinstance(error, (ImportError, OSError)) and reason else type(error).__name__
    said = f"{kind}: {reason}" if kind and reason else kind or reason
    try:
        spec = importlib.util.find_spec(_MODULES[backend])
    except (ImportError, ValueError):  # ValueError: it was put among the modules without a spec
        spec = None
    where = f"{said}, in {spec.origin}" if spec is not None and spec.origin else said
    return MissingComponentError(f"{_TITLES[backend]} does not load", where, f"install it anew: {_INSTALL[backend]}")


def create_network(flavour: Flavour, builder: Any) -> Any:
    """Return an empty strongly typed network: types are those of the ONNX graph, and no precision is chosen."""
    trt = flavour.module
    return builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))


def check_targets(flavour: Flavour, targets: Sequence[str]) -> None:
    """Refuse targets that this runtime does not know.

    Raises:
        UsageError: it names those that it does.
    """
    unknown = [target for target in targets if target not in flavour.targets]
    if unknown:
        known = ", ".join(flavour.targets) or "this machine"
        raise UsageError(f"{flavour.title} does not build for {', '.join(unknown)}", "--target", f"it knows {known}")


def set_targets(flavour: Flavour, config: Any, targets: Sequence[str]) -> None:
    """Tell the builder the compute capabilities that one plan is to serve; see `check_targets`."""
    if not flavour.names_targets:
        return
    trt = flavour.module
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        capability = trt.ComputeCapability.__members__[target.upper()]
        if not config.set_compute_capability(capability, index):
            raise EdgeLslaError(f"{flavour.title} refused a target", target, "build for the others without it")


def load_plugin_library(flavour: Flavour, library: str) -> None:
    """Load a plugin library into the registry; for the whole process.

    Raises:
        MissingComponentError: TensorRT did not load it.
    """
    trt = flavour.module
    registry = trt.get_plugin_registry()
    if registry.load_library(library) is None:
        raise MissingComponentError(
            f"{flavour.title} does not load the plugin library",
            library,
            "build it on this machine with `plugin build`",
        )


def missing_plugins(flavour: Flavour, names: Sequence[str], version: str) -> list[str]:
    """Return those of the plugins that no creator in the registry makes, in the empty namespace."""
    trt = flavour.module
    registry = trt.get_plugin_registry()
    return [name for name in names if registry.get_creator(name, version, "") is None]


def read_timing_cache(config: Any, data: bytes) -> bool:
    """Give the builder its measurements of earlier builds, or an empty cache; False if it cannot use `data`.

    A cache of another GPU or version counts as unusable: its timings would be wrong here.
    """
    usable = bool(data)
    cache = config.create_timing_cache(data) if data else None
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        usable = False
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return usable


def timing_cache_bytes(config: Any) -> bytes:
    """Return the builder's measurements, to be kept for the next build."""
    cache = config.get_timing_cache()
    return b"" if cache is None else bytes(cache.serialize())
