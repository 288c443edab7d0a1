"""The process that loads TensorRT: `python -m edge_lsla.build.tensorrt.worker FOLDER`.

A crash, an abort or the out-of-memory killer ends this process and not the caller's. FOLDER holds `request.json` and
`model.onnx`; the plan goes to `plan` beside them. On standard output: one JSON object a line, {"progress": …}, and last
{"facts": …} or {"error": …}. Standard input is held open by the caller: when it ends, the caller has died, and so does
this process, removing FOLDER; its lock was inherited. With `--describe BACKEND` it only says what that TensorRT is.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from edge_lsla.build.tensorrt import network
from edge_lsla.build.tensorrt.memory import peak_bytes
from edge_lsla.build.tensorrt.progress import SECONDS_A_LAYER, TOTAL, PhaseProgress, make_monitor
from edge_lsla.build.tensorrt.settings import BuildSettings
from edge_lsla.build.tensorrt.work import unwritable
from edge_lsla.errors import EdgeLslaError
from edge_lsla.tensorrt import flavours

REQUEST, MODEL, PLAN = "request.json", "model.onnx", "plan"
PAUSE = 0.05  # seconds between two reports of progress
Send = Callable[[dict[str, Any]], None]


def describe(backend: str) -> dict[str, Any]:
    """Return the version of a TensorRT and the targets that it builds for."""
    flavour = flavours.load(backend)
    return {"backend": backend, "version": flavour.version, "targets": list(flavour.targets)}


def build(folder: Path, send: Send) -> dict[str, Any]:
    """Do what `request.json` asks; return the facts.

    Raises:
        EdgeLslaError: see `network` and `flavours`.
    """
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    settings = BuildSettings(**request["settings"])
    send({"progress": [0, TOTAL, "loading TensorRT"]})
    flavour = flavours.load(settings.backend)
    flavours.check_targets(flavour, settings.targets)
    if settings.plugin_library is not None:
        network.load_plugins(flavour, settings.plugin_library, request["plugins"], request["first_node"])
    send({"progress": [0, TOTAL, "parsing"]})
    compilation = network.start(flavour)
    started = time.perf_counter()
    network.parse(compilation, (folder / MODEL).read_bytes())
    parsed = time.perf_counter() - started
    types = network.read_types(compilation.network)
    layers = compilation.network.num_layers
    # TensorRT for RTX tells nothing of its one long step.
    expected = SECONDS_A_LAYER * layers * len(settings.profiles) if flavour.names_targets else None
    progress = PhaseProgress(_paced(send), expected)
    with progress.ticking():
        plan, facts = network.build(compilation, settings, make_monitor(flavour.module, progress))
    send({"progress": [TOTAL, TOTAL, "writing"]})
    try:
        (folder / PLAN).write_bytes(plan)
    except OSError as error:
        raise unwritable("cannot write the engine", error, folder.parent, request["temporary"]) from error
    return {
        "backend": settings.backend,
        "version": flavour.version,
        "targets": settings.targets,
        "profiles": settings.profiles,
        **types,
        **facts,
        "parse_seconds": round(parsed, 3),
        "peak_bytes": peak_bytes("self"),
    }


def _paced(send: Send) -> Callable[[int, int, str], None]:
    last = 0.0

    def step(done: int, total: int, phase: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PAUSE:
            last = now
            send({"progress": [done, total, phase]})

    return step


def _die_with_the_caller(folder: Path | None) -> None:
    def wait() -> None:
        while os.read(0, 1):
            pass
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _sender(out: TextIO) -> Send:
    lock = threading.Lock()

    def send(message: dict[str, Any]) -> None:
        with lock, contextlib.suppress(OSError):  # without a reader there is nobody to tell
            out.write(json.dumps(message) + "\n")
            out.flush()

    return send


def main(arguments: list[str]) -> int:
    """Run; return the exit code: 0 with facts, 1 with an error."""
    # TensorRT prints to standard output: that goes where errors go, and only our lines to the caller.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is reported; a core file would only fill the disk
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle, who ends this process
    send = _sender(out)
    try:
        if arguments[0] == "--describe":
            _die_with_the_caller(None)
            send({"facts": describe(arguments[1])})
        else:
            folder = Path(arguments[0])
            _die_with_the_caller(folder)
            send({"facts": build(folder, send)})
        return 0
    except EdgeLslaError as error:
        where = None if error.where is None else str(error.where)
        told = {"class": type(error).__name__, "what": error.what, "where": where, "remedy": error.remedy}
    except MemoryError:
        remedy = "close other programs, lower --workspace or the largest batch"
        told = {"class": "EdgeLslaError", "what": "memory ran out", "where": "building the engine", "remedy": remedy}
    send({"error": told})
    return 1


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # Not through the interpreter's end: some TensorRT libraries crash in their destructors on a machine without a GPU.
    os._exit(code)
