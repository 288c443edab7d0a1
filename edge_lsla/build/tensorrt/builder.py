"""`build_engine`, the caller's side: checks, forecasts, starts the worker, hears its progress, keeps what it made."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edge_lsla
from edge_lsla import errors
from edge_lsla.build.tensorrt.facts import EngineFacts
from edge_lsla.build.tensorrt.memory import MIB, check_memory, cpu_seconds, free_bytes, peak_bytes, shares_memory
from edge_lsla.build.tensorrt.outline import Outline, check_border, read_outline
from edge_lsla.build.tensorrt.settings import BuildSettings
from edge_lsla.build.tensorrt.work import UnwritableError, work_folder, writing
from edge_lsla.build.tensorrt.worker import MODEL, PLAN, REQUEST
from edge_lsla.errors import EdgeLslaError, GraphError, UsageError
from edge_lsla.operator import DOMAIN
from edge_lsla.tensorrt.messages import explain, find, missing_plugin, short

Step = Callable[[int, int, str], None]
Report = Callable[[str], None]
WATCH_SECONDS = 0.2
_PACKAGE = Path(edge_lsla.__file__).absolute().parents[1]
# Seen where memory was short: TensorRT for RTX 1.7 waits for itself for ever. Working, it uses far more of a processor.
STALL_SECONDS = 180.0  # without progress of its processor time
IDLE_SHARE = 0.005


@dataclass(frozen=True)
class BuiltEngine:
    """An engine.

    Attributes:
        data: the serialised plan.
        facts: what is known of it.
    """

    data: bytes
    facts: EngineFacts


@dataclass(frozen=True)
class RuntimeFacts:
    """An installed TensorRT: its version, and the targets that it builds for (none: for this machine)."""

    backend: str
    version: str
    targets: tuple[str, ...]


def describe_runtime(backend: str) -> RuntimeFacts:
    """Ask, in a process of its own, which TensorRT is installed.

    Raises:
        MissingComponentError: none, or its libraries do not load.
        CompatibilityError: a version that this project does not know.
    """
    return _describe(backend, os.environ.get("PYTHONPATH", ""))


@functools.cache
def _describe(backend: str, path: str) -> RuntimeFacts:
    facts = _run(["--describe", backend], _PACKAGE, _nothing, f"loading {backend}")
    return RuntimeFacts(facts["backend"], facts["version"], tuple(facts["targets"]))


def build_engine(
    onnx_bytes: bytes,
    settings: BuildSettings,
    step: Step | None = None,
    report: Report | None = None,
    *,
    work: Path | None = None,
) -> BuiltEngine:
    """Build an engine from a typed ONNX graph, in a process of its own.

    One plan serves all of `settings.targets`. Ctrl-C (and SIGTERM, where it raises KeyboardInterrupt) ends the worker.

    Args:
        onnx_bytes: `images` [N, 3, H, W] float32 to `logits` [N, classes] float32, types written in. For plugins the
            local functions of domain `edge_lsla` have been dropped (`surgery.function.drop_function`).
        settings: what to build.
        step: called with (done, total, phase) now and then, from this thread; `done` only grows.
        report: called with a sentence that the user should see.
        work: a folder for the build's files, which are removed; None: the system's for temporary files.

    Raises:
        UsageError: a target or a profile that cannot be built.
        GraphError: not an ONNX graph, other inputs or outputs, or what TensorRT does not support.
        MissingComponentError: TensorRT, the plugin, or a GPU is absent.
        UnwritableError: `work` is full or cannot be used; another folder may do.
        EdgeLslaError: too little memory, a crash, or TensorRT failed.
    """
    step, report = step or _nothing, report or _nothing
    outline = read_outline(onnx_bytes)
    smallest = min(profile[0] for profile in settings.profiles)
    check_border(outline, settings.largest_batch, smallest)
    plugins = _check_operators(outline, settings)
    onnx_sha256 = hashlib.sha256(onnx_bytes).hexdigest()
    warning = check_memory(settings, len(onnx_bytes), free_bytes(), shares_memory())
    if warning:
        report(warning)
    with work_folder(work, len(onnx_bytes)) as made:
        folder = made.path
        with writing(work):
            (folder / MODEL).write_bytes(onnx_bytes)
            request = {
                "settings": _plain(settings),
                "plugins": plugins,
                "first_node": _first_node(outline, plugins),
                "temporary": work is None,
            }
            (folder / REQUEST).write_text(json.dumps(request), encoding="utf-8")
        facts = _run([str(folder)], folder, step, f"building a {settings.backend} engine", made.lock)
        with writing(work):
            data = (folder / PLAN).read_bytes()
        plan_sha256 = hashlib.sha256(data).hexdigest()
        facts |= {"onnx_sha256": onnx_sha256, "plan_sha256": plan_sha256, "plan_bytes": len(data)}
        engine = BuiltEngine(data, EngineFacts.from_json(facts))
    for notice in engine.facts.notices:
        report(notice)
    return engine


def _check_operators(outline: Outline, settings: BuildSettings) -> list[str]:
    """Return the plugins that the graph needs; refuse what nothing will resolve."""
    ours = sorted({node.operator for node in outline.nodes if node.domain == DOMAIN})
    local = sorted(name for domain, name in outline.functions if domain == DOMAIN)
    library = settings.plugin_library
    if library is None:
        bare = [name for name in ours if name not in local]
        if bare and settings.backend == "tensorrt":
            raise missing_plugin(bare[0], _first_node(outline, bare))
        if bare:
            raise GraphError(
                f"tensorrt-rtx takes no plugins, and {bare[0]} has no function body",
                _first_node(outline, bare),
                "give the fused graph with its local functions",
            )
        return []
    if not library.is_file():
        raise missing_plugin(ours[0] if ours else "LslaAttention", f"no file {library}")
    if local:
        # TensorRT 10.3 prefers a local function to the plugin of the same name, without a word.
        raise GraphError(f"the graph still holds the function of {local[0]}", "its functions", "drop it for the plugin")
    if not ours:
        raise UsageError("the graph has no operator for the plugin", library, "leave the plugin out, or fuse the graph")
    return ours


def _first_node(outline: Outline, operators: list[str]) -> str:
    found = (node for node in outline.nodes if node.domain == DOMAIN and node.operator in operators)
    node = next(found, None)
    return "" if node is None else f"node {node.name or 'without a name'} ({node.operator})"


def _run(arguments: list[str], stand: Path, step: Step, doing: str, lock: int | None = None) -> dict[str, Any]:
    """Run the worker to its end; return its facts, or raise its error.

    Args:
        stand: the worker's current folder. -m looks for modules there first: never where the user happens to stand.
        lock: a file that the worker inherits.
    """
    with os.fdopen(os.memfd_create("worker"), "w+b") as said:  # a full disk must not take its last words
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_lsla.build.tensorrt.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            cwd=stand,
            env=_environment(),
            start_new_session=True,  # a terminal's Ctrl-C reaches the caller alone
            pass_fds=() if lock is None else (lock,),
        )
        try:
            last, phase, peak = _listen(process, step)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
        if "facts" in last:
            return dict(last["facts"])
        if "error" in last:
            raise _error(last["error"])
        said.seek(0, os.SEEK_END)
        said.seek(max(0, said.tell() - 4000))
        raise _crash(process.returncode, doing, phase, peak, said.read().decode(errors="replace"))


def _listen(process: subprocess.Popen[bytes], step: Step) -> tuple[dict[str, Any], str, int]:
    """Read the worker's lines until its last; return that, the phase it was in, and its peak memory."""
    assert process.stdout is not None
    pipe, rest, phase, peak, shown = process.stdout.fileno(), b"", "starting", 0, -1
    since, used = time.monotonic(), cpu_seconds(process.pid)
    while True:
        peak = max(peak, peak_bytes(process.pid))
        if select.select([pipe], [], [], WATCH_SECONDS)[0]:
            chunk = os.read(pipe, 2**16)
            if not chunk:
                process.wait()
                return {}, phase, peak
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if "progress" not in message:
                    return message, phase, peak
                done, total, phase = message["progress"]
                shown = max(shown, done)
                step(shown, total, phase)
        # Counted anew whenever it has worked for as long as it must in STALL_SECONDS: then what it did before it
        # stopped, such as loading TensorRT, delays nothing.
        now, spent = time.monotonic(), cpu_seconds(process.pid)
        if spent - used >= IDLE_SHARE * STALL_SECONDS:
            since, used = now, spent
        elif now - since > STALL_SECONDS:
            where = f"in the phase {phase!r}, at {peak // MIB} MB"
            raise EdgeLslaError("TensorRT has stopped working", where, "free some memory and try again")


def _crash(code: int, doing: str, phase: str, peak: int, said: str) -> EdgeLslaError:
    """Say why a worker ended without a word of its own."""
    where = f"{doing}, in the phase {phase!r}, at {peak // MIB} MB"
    if code == -signal.SIGKILL:
        what, remedy = "the build was killed, most likely because memory ran out", (
            "close other programs, lower --workspace or the largest batch, or add swap")  # fmt: skip
        return EdgeLslaError(what, where, remedy)
    lines = [line for line in said.splitlines() if line.strip()]
    if any(map(find, lines)):
        return explain(lines, where)
    last = f": {short(lines[-1])}" if lines else ""
    names = {
        signal.SIGSEGV: "crashed (segmentation fault)",
        signal.SIGABRT: "aborted",
        signal.SIGBUS: "crashed (bus error)",
    }
    name = (
        names.get(signal.Signals(-code), f"was ended by {signal.Signals(-code).name}")
        if code < 0
        else f"ended with {code}"
    )
    return EdgeLslaError(f"TensorRT {name}{last}", where, "try again, or another TensorRT version, and report it")


def _error(told: dict[str, Any]) -> EdgeLslaError:
    name = str(told["class"])
    kind: type[EdgeLslaError] = UnwritableError
    if name != kind.__name__:
        kind = getattr(errors, name, EdgeLslaError)
    return kind(told["what"], told["where"], told["remedy"])


def _environment() -> dict[str, str]:
    """Return an environment in which the worker finds this package and what the caller would import."""
    given = [os.path.abspath(part) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]  # noqa: PTH100
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(_PACKAGE), *given])}


def _plain(settings: BuildSettings) -> dict[str, Any]:
    values = dataclasses.asdict(settings)
    for name in ("timing_cache", "plugin_library"):
        values[name] = None if values[name] is None else str(Path(values[name]).resolve())
    return values


def _nothing(*arguments: object) -> None:
    pass
