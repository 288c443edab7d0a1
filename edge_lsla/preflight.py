"""Whether an artifact runs on this device, before it is read: every mismatch in a plain sentence, with what to do.

What is compared stands in the manifest; `engine_facts` has the table of an artifact's `versions`.

Which differences refuse: an engine of TensorRT belongs to one version, GPU model, processor, and major release of CUDA
and Jetson Linux; drivers and minor releases only warn, since TensorRT loads such an engine and its speed may differ. An
engine of TensorRT for RTX belongs to one version and its targets; it is compiled for GPU and driver when it is loaded.
Sources: TensorRT 11.4 support matrix, "Engine Portability"; TensorRT for RTX, "Engine Compatibility".
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edge_lsla import operator
from edge_lsla.bundle import Artifact, Manifest, Passport
from edge_lsla.device import Device
from edge_lsla.engine_facts import read_memory, read_profiles
from edge_lsla.errors import BundleError, CompatibilityError, EdgeLslaError, MissingComponentError, TrustError

_NAMES = {"onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}
_OLDEST = {"onnxruntime": "1.20", "tensorrt": "10.3", "tensorrt-rtx": "1.7"}
_INSTALL = {
    "onnxruntime": "pip install onnxruntime",
    "tensorrt": "on a Jetson: sudo apt install nvidia-jetpack; elsewhere: pip install tensorrt",
    "tensorrt-rtx": "pip install tensorrt-rtx-cu13",
}
_RTX_CAPABILITIES = (75, 80, 86, 89, 120, 121)
_TENSORRT_OLDEST_CAPABILITY = 75
_ATTENTIONS = ("plugin", "function", "split")
_TIGHT = 0.8  # of the memory that is free: beyond it, other programs make the difference


@dataclass(frozen=True)
class Mismatch:
    """One difference between what an artifact needs and what this device is.

    Attributes:
        code: stable name, such as "engine-version".
        what: the difference, with both values.
        where: the artifact.
        remedy: what to do.
        error: the class of error that it refuses with; None: it only warns.
    """

    code: str
    what: str
    where: str
    remedy: str
    error: type[EdgeLslaError] | None

    @property
    def sentence(self) -> str:
        """Return "what is wrong: where; what to do"."""
        return f"{self.what}: {self.where}; {self.remedy}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {"code": self.code, "sentence": self.sentence, "refuses": self.error is not None}


def check_artifact(
    artifact: Artifact,
    passport: Passport,
    device: Device,
    *,
    batch: int = 1,
    memory_needed: int | None = None,
    trust: TrustError | None = None,
    bundle: object = "BUNDLE",
) -> tuple[Mismatch, ...]:
    """Compare what an artifact needs with this device.

    Args:
        artifact: of a bundle; an engine, or a typed ONNX that would be built or run here.
        passport: the bundle's manifest.
        device: see `describe_device`.
        batch: the largest number of pictures in an inference.
        memory_needed: bytes on the GPU; None: of an engine its size and `memory_bytes`, of an ONNX not checked.
        trust: what `allows_native_code` raised for the bundle; it refuses its engines.
        bundle: its path, for the commands in the remedies.

    Returns:
        Every mismatch, those first that make others pointless; those with an `error` refuse.
    """
    case = _Case(artifact, passport, device, batch, memory_needed, trust, shlex.quote(str(bundle)))
    parts = (_facts, _form, _machine, _gpu, _runtime, _trusted, _engine, _plugin, _limits)
    return tuple(mismatch for part in parts for mismatch in part(case))


def check_graph(
    artifact: Artifact, passport: Passport, version: str | None, *, bundle: object = "BUNDLE"
) -> tuple[Mismatch, ...]:
    """Compare what a typed ONNX needs with the runtime that is to build an engine of it, for GPUs that are elsewhere.

    Args:
        artifact: of a bundle; a typed ONNX for TensorRT or TensorRT for RTX.
        passport: the bundle's manifest.
        version: of the runtime; None: not known, and not checked.
        bundle: its path, for the commands in the remedies.

    Returns:
        What `check_artifact` finds without a device: damaged facts, attention in a form that this edge-lsla or the
        backend does not know, operators of a later version, and a runtime that is too old for the graph.
    """
    device = Device("", tensorrt=version, tensorrt_rtx=version, onnxruntime=version)
    case = _Case(artifact, passport, device, 1, None, None, shlex.quote(str(bundle)))
    parts = (_facts, _form, *(() if version is None else (_version_needed,)))
    return tuple(mismatch for part in parts for mismatch in part(case))


def refuse(mismatches: tuple[Mismatch, ...]) -> None:
    """Raise for the first mismatch that refuses, with all of them as details.

    Raises:
        EdgeLslaError: the mismatch's class: MissingComponentError, CompatibilityError, TrustError or BundleError.
    """
    for one in mismatches:
        if one.error is not None:
            raise one.error(one.what, one.where, one.remedy, {"mismatches": [m.to_dict() for m in mismatches]})


@dataclass(frozen=True)
class _Case:
    artifact: Artifact
    passport: Passport
    device: Device
    batch: int
    memory_needed: int | None
    trust: TrustError | None
    bundle: str

    @property
    def backend(self) -> str:
        return self.artifact.backend

    @property
    def name(self) -> str:
        return _NAMES[self.backend]

    @property
    def is_engine(self) -> bool:
        return self.artifact.kind == "engine"

    @property
    def rebuild(self) -> str:
        return self.build()

    def build(self, options: str = "") -> str:
        """What makes an engine that fits: from the bundle's own graph, or of the model where it has none."""
        if self.holds(self.backend):
            return f"build the engine here: `{self.command(f'--backend {self.backend}{options}')}`"
        return f"rebuild the bundle from its checkpoint with --backend {self.backend}"

    def command(self, options: str) -> str:
        return f"build-engine {self.bundle} -o NEW.lsla {options}"

    def holds(self, backend: str) -> bool:
        """Whether the bundle has a graph for a backend; a passport without its artifacts does not tell."""
        held = self.passport.artifacts if isinstance(self.passport, Manifest) else (self.artifact,)
        return any((one.backend, one.kind) == (backend, "onnx") for one in held)

    def otherwise(self, what: str) -> str:
        """A remedy, with the CPU as the other one where the bundle runs on it."""
        return f"{what}, or run the bundle on the CPU: --backend onnxruntime" if self.holds("onnxruntime") else what

    @property
    def use_tensorrt(self) -> str:
        if self.holds("tensorrt"):
            return self.otherwise(f"use TensorRT: `{self.command('--backend tensorrt')}`")
        return self.otherwise("rebuild the bundle from its checkpoint with --backend tensorrt")

    @property
    def version(self) -> str | None:
        device = self.device
        return {"tensorrt": device.tensorrt, "tensorrt-rtx": device.tensorrt_rtx}.get(self.backend, device.onnxruntime)

    def fact(self, key: str) -> str | None:
        return self.artifact.versions.get(key)

    @property
    def memory_bytes(self) -> int:
        try:
            return read_memory(self.artifact) or 0
        except BundleError:  # `_facts` says so
            return 0

    @property
    def profiles(self) -> tuple[tuple[int, int, int], ...]:
        try:
            return read_profiles(self.artifact)
        except BundleError:
            return ()

    @property
    def attention(self) -> str:
        """How attention is written: as recorded, else as the passport lets one think."""
        guess = "plugin" if self.passport.plugin and self.backend == "tensorrt" else "function"
        return self.fact("attention") or guess

    @property
    def operator_version(self) -> str | None:
        wanted = self.fact("operator_version") or (self.passport.plugin or {}).get("operator_version")
        return None if wanted is None else str(wanted)

    def no(self, code: str, what: str, remedy: str, error: type[EdgeLslaError] = CompatibilityError) -> Mismatch:
        return Mismatch(code, what, self.artifact.name, remedy, error)

    def warn(self, code: str, what: str, remedy: str) -> Mismatch:
        return Mismatch(code, what, self.artifact.name, remedy, None)


def _facts(case: _Case) -> Iterator[Mismatch]:
    for read in (read_profiles, read_memory):
        try:
            read(case.artifact)
        except BundleError as error:
            yield case.no("facts-damaged", error.what, error.remedy or "", BundleError)
    if case.is_engine and case.fact(case.backend) is None:
        what = f"the manifest does not say which version of {case.name} built the engine"
        yield case.no("facts-missing", what, case.rebuild)


def _form(case: _Case) -> Iterator[Mismatch]:
    if case.backend == "onnxruntime":
        return
    form, wanted = case.attention, case.operator_version
    if form not in _ATTENTIONS:
        what = f"attention is written in a form that this edge-lsla does not know, {form!r}"
        yield case.no("attention-unknown", what, "update edge-lsla, or rebuild the bundle")
    elif form == "plugin" and case.backend != "tensorrt":
        what = f"attention is left to the plugin, and {case.name} takes none"
        yield case.no("attention-plugin", what, f"rebuild the bundle from its checkpoint with --backend {case.backend}")
    if wanted is not None and form == "plugin" and _version(wanted) > (operator.VERSION,):
        what = f"artifact needs version {wanted} of the operators and this edge-lsla has {operator.VERSION}"
        yield case.no("operator-newer", what, "update edge-lsla and its plugin library on this device")


def _machine(case: _Case) -> Iterator[Mismatch]:
    machine, bits, built = case.device.machine, case.device.bits, case.fact("machine")
    if bits != 64:
        what = f"{case.name} needs 64 bits and this Python has {bits}"
        yield case.no("bits", what, "install a 64-bit system and Python")
    if case.backend == "tensorrt-rtx" and machine != "x86_64":
        what = f"TensorRT for RTX runs on x86_64 and this processor is {machine}"
        yield case.no("rtx-machine", what, case.use_tensorrt)
    elif case.is_engine and built is not None and built != machine:
        what = f"engine was built on {built} and this processor is {machine}"
        yield case.no("engine-machine", what, case.rebuild)


def _runtime(case: _Case) -> Iterator[Mismatch]:
    have, install = case.version, _INSTALL[case.backend]
    if have is None:
        missing = f"{case.name} is not installed on this device"
        yield case.no("backend-missing", missing, install, MissingComponentError)
        return
    yield from _version_needed(case)
    # TensorRT 11.4 support matrix: no JetPack between 11.2.1 and 11.4.0.
    if case.backend == "tensorrt" and case.device.l4t and (11, 2, 1) <= _version(have)[:3] <= (11, 4, 0):
        what = f"TensorRT {have} does not support Jetsons and this is one, with Jetson Linux {case.device.l4t}"
        yield case.no("tensorrt-jetson", what, f"install JetPack's own TensorRT: {install}")


def _version_needed(case: _Case) -> Iterator[Mismatch]:
    have, install = case.version or "", _INSTALL[case.backend]
    needs = None if case.is_engine else case.fact("needs")
    if _version(have) < _version(_OLDEST[case.backend]):
        what = f"edge-lsla needs {case.name} {_OLDEST[case.backend]} or newer and this device has {have}"
        yield case.no("backend-old", what, f"update it: {install}")
    elif needs is not None and _version(have) < _version(needs):
        what = f"ONNX needs {case.name} {needs} or newer and this device has {have}"
        yield case.no("parser-old", what, f"update it: {install}")
    elif not case.is_engine and (seen := case.fact(case.backend)) and _version(have) < _version(seen):
        what = f"ONNX was tried with {case.name} {seen} and this device has the older {have}"
        yield case.warn("parser-untried", what, f"try it: `selftest {case.bundle}`")


def _gpu(case: _Case) -> Iterator[Mismatch]:
    device, capability = case.device, case.device.capability
    if case.backend == "onnxruntime":
        return
    if device.driver is None and device.cuda is None:
        what = f"{case.name} needs NVIDIA's driver and this device has none"
        yield case.no("no-driver", what, case.otherwise("install the driver"), MissingComponentError)
    elif device.gpu is None:
        what = f"{case.name} needs an NVIDIA GPU and the driver ({device.driver or device.cuda}) finds none"
        yield case.no("no-gpu", what, case.otherwise("check `nvidia-smi`"), MissingComponentError)
    if capability is not None and case.backend == "tensorrt-rtx" and capability not in _RTX_CAPABILITIES:
        known = ", ".join(f"sm{one}" for one in _RTX_CAPABILITIES)
        what = f"TensorRT for RTX supports {known} and this GPU, {device.gpu}, is sm{capability}"
        yield case.no("gpu-unsupported", what, case.use_tensorrt)
    elif capability is not None and capability < _TENSORRT_OLDEST_CAPABILITY:
        oldest = f"sm{_TENSORRT_OLDEST_CAPABILITY}"
        what = f"{case.name} supports {oldest} and later and this GPU, {device.gpu}, is {device.target}"
        yield case.no("gpu-unsupported", what, case.otherwise("use a newer GPU"))
    elif capability is not None and not case.artifact.fits(device.target):
        made = ", ".join(case.artifact.targets)
        what = f"engine was built for {made} and this GPU, {device.gpu}, is {device.target}"
        target = f" --target {device.target}" if case.backend == "tensorrt-rtx" else ""
        yield case.no("target", what, case.build(target))
    needed = case.fact("cuda")
    if needed is not None and device.cuda is not None and _version(device.cuda) < _version(needed):
        what = f"engine needs CUDA {needed} and the driver {device.driver or ''} knows CUDA {device.cuda} at most"
        if _version(device.cuda)[0] < _version(needed)[0]:
            yield case.no("driver-old", what.replace("  ", " "), f"update the driver, or {case.rebuild}")
        else:  # CUDA's minor versions are compatible
            yield case.warn("cuda-minor", what.replace("  ", " "), "update the driver if the engine does not load")


def _trusted(case: _Case) -> Iterator[Mismatch]:
    if case.is_engine and case.trust is not None:
        yield case.no("untrusted", case.trust.what, case.trust.remedy or case.rebuild, TrustError)


def _engine(case: _Case) -> Iterator[Mismatch]:
    if not case.is_engine:
        return
    have, built = case.version, case.fact(case.backend)
    if have is not None and built is not None and not _same_release(have, built):
        what = f"engine was built with {case.name} {built} and this device has {have}"
        flexible = case.backend == "tensorrt" and case.fact("version_compatible") == "1"
        if not flexible:
            yield case.no("engine-version", what, case.rebuild)
        elif _version(have) < _version(built):
            yield case.no("engine-newer", f"{what}, which is older", f"update TensorRT, or {case.rebuild}")
        elif (_version(built)[0], _version(have)[0]) not in {(10, 11), (_version(have)[0], _version(have)[0])}:
            yield case.no("engine-major", f"{what}, too many releases later", case.rebuild)
    if case.backend != "tensorrt":
        return
    device = case.device
    gpu, driver, cuda, l4t = (case.fact(key) for key in ("gpu", "driver", "cuda", "l4t"))
    if gpu and device.gpu and gpu != device.gpu:
        yield case.no("gpu-name", f"engine was built for the GPU {gpu} and this one is {device.gpu}", case.rebuild)
    again = f"measure it: `benchmark {case.bundle}`; if it is slower, {case.rebuild}"
    if driver and device.driver and driver != device.driver:
        yield case.warn("driver", f"engine was built with driver {driver} and this device has {device.driver}", again)
    if cuda and device.cuda and _version(device.cuda)[0] > _version(cuda)[0]:
        what = f"engine was built with CUDA {cuda} and this device has CUDA {device.cuda}"
        yield case.no("cuda-major", what, case.rebuild)
    if l4t and device.l4t is None:
        what = f"engine was built on a Jetson with Jetson Linux {l4t} and this device is no Jetson"
        yield case.no("l4t-only-there", what, case.rebuild)
    elif l4t and device.l4t and l4t != device.l4t:
        what = f"engine was built with Jetson Linux {l4t} and this device has {device.l4t}"
        if _version(l4t)[0] != _version(device.l4t)[0]:
            yield case.no("l4t-major", what, case.rebuild)
        else:
            yield case.warn("l4t-minor", what, again)
    elif device.l4t and l4t is None and (gpu or driver):
        what = f"engine was not built on a Jetson and this device is one, with Jetson Linux {device.l4t}"
        yield case.no("l4t-only-here", what, case.rebuild)


def _plugin(case: _Case) -> Iterator[Mismatch]:
    described = case.passport.plugin or {}
    if case.backend != "tensorrt" or case.attention != "plugin":
        return
    library = case.device.plugin
    if library is None:
        broken = [notice.partition(":")[0] for notice in case.device.notices if notice.startswith("plugin library")]
        what = f"artifact needs the plugin library and {'the ' + broken[0] if broken else 'this device has none'}"
        yield case.no("plugin-missing", what, "make it: `plugin build`", MissingComponentError)
        return
    if library.machine != case.device.machine:
        what = f"plugin library {library.path} is for {library.machine} and this processor is {case.device.machine}"
        yield case.no("plugin-machine", what, "make it on this device: `plugin build`")
    index = case.fact("cubin_index") or described.get("cubin_index")
    if index is not None and index != library.index_digest:
        what = f"plugin library's kernels are {library.index_digest[:12]} and the artifact was made with {index[:12]}"
        if case.is_engine:
            yield case.no("plugin-index", what, f"install the plugin of that release, or {case.rebuild}")
        else:  # other kernels of the same operators: the golden numbers decide
            yield case.warn("plugin-other", what, f"check the numbers: `selftest {case.bundle}`")
    elif case.is_engine and (built := case.fact("plugin_sha256")) and built != library.sha256:
        what = (
            f"plugin library is {library.sha256[:12]} and the engine was built with {built[:12]}, of the same kernels"
        )
        yield case.warn("plugin-rebuilt", what, f"nothing to do unless `selftest {case.bundle}` fails")
    capability = case.device.capability
    if capability is not None and capability not in library.architectures:
        held = ", ".join(f"sm{one}" for one in library.architectures) or "no GPU"
        what = f"plugin library has kernels for {held} and this GPU is sm{capability}"
        if library.ptx is None or capability < library.ptx:
            yield case.no("plugin-architecture", what, f"make it with them: `plugin build --arch {capability}`")
        else:
            yield case.warn("plugin-ptx", f"{what}, for which the driver compiles them, slower", "run `plugin build`")


def _limits(case: _Case) -> Iterator[Mismatch]:
    device, profiles = case.device, case.profiles
    if case.is_engine and profiles and not any(low <= case.batch <= high for low, _, high in profiles):
        spans = " and ".join(f"{low} to {high}" for low, _, high in profiles)
        what = f"engine's profiles cover batches of {spans} and {case.batch} is asked for"
        yield case.no("batch", what, f"choose another --batch, or {case.build(f' --batch {case.batch}')}")
    needed = case.memory_needed
    if needed is None and case.is_engine:
        needed = case.artifact.size + case.memory_bytes
    kind = "memory" if device.memory_shared else "GPU memory"
    free, total = device.gpu_memory_available, device.gpu_memory_total
    if needed is None or case.backend == "onnxruntime":
        return
    if total is not None and needed > total:
        what = f"artifact needs {_mb(needed)} of {kind} and this device has {_mb(total)}"
        yield case.no("memory-total", what, case.otherwise("use a smaller batch, model or precision"))
    elif free is not None and needed > free:
        what = f"artifact needs {_mb(needed)} of {kind} and {_mb(free)} of {_mb(total)} are free"
        yield case.no("memory-free", what, "close other programs, or use a smaller batch")
    elif free is not None and needed > _TIGHT * free:
        what = f"artifact needs {_mb(needed)} of {kind} and only {_mb(free)} are free"
        yield case.warn("memory-tight", what, "close other programs if it fails")


def _version(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version; () for none, which is older than all."""
    found = re.match(r"[0-9]{1,9}(\.[0-9]{1,9}){0,7}", text, re.ASCII)
    return tuple(int(part) for part in found[0].split(".")) if found else (0,)


def _same_release(one: str, other: str) -> bool:
    """Say whether two versions are the same; JetPack's packages say "10.3.0" where others say "10.3.0.30"."""
    if one == other or not all(re.fullmatch(r"[0-9]+(\.[0-9]+){2,}", text) for text in (one, other)):
        return one == other
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _mb(size: int | None) -> str:
    return "an unknown size" if size is None else f"{size / 2**20:,.0f} MB"
