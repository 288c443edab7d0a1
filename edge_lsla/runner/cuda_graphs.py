"""CUDA graphs through cuda-python, which pycuda lacks."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from edge_lsla.errors import EdgeLslaError, MissingComponentError


def import_driver() -> Any:
    """Return cuda-python's driver bindings, imported late.

    Raises:
        MissingComponentError: cuda-python 12 or later is not installed, or does not load.
    """
    install = "pip install cuda-python"
    for name in ("cuda.bindings.driver", "cuda.cuda"):  # the second until cuda-python 12.6
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise MissingComponentError("cuda-python does not load", reason, install) from error
        if hasattr(module, "cuGraphInstantiate"):
            return module
    raise MissingComponentError("cuda-python is not installed", "CUDA graphs", install)


class CudaGraph:
    """An instantiated graph; see `edge_lsla.runner.gpu.Graph`."""

    def __init__(self, driver: Any, graph: Any, stream: int) -> None:
        self._driver, self._stream = driver, stream
        self._executable = _checked(driver, "instantiating a CUDA graph", driver.cuGraphInstantiate(graph, 0))

    def launch(self) -> None:
        """Start it on the stream it was captured on."""
        _checked(self._driver, "launching a CUDA graph", self._driver.cuGraphLaunch(self._executable, self._stream))

    def close(self) -> None:
        """Free it."""
        _checked(self._driver, "freeing a CUDA graph", self._driver.cuGraphExecDestroy(self._executable))


def capture(driver: Any, stream: int, work: Callable[[], None]) -> CudaGraph:
    """Record what `work` starts on a stream, by its handle, without doing it.

    Raises:
        EdgeLslaError: `work` raised it, or did what cannot be captured; the stream captures no longer.
    """
    # Of this thread only: what other threads do with CUDA meanwhile is neither recorded nor forbidden.
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    _checked(driver, "starting a capture", driver.cuStreamBeginCapture(stream, mode))
    finished = False
    try:
        work()
        finished = True
    finally:
        # Also after a failure: until then, nothing else can be done with the stream.
        code, graph = driver.cuStreamEndCapture(stream)
        if not finished and int(code) == 0:
            driver.cuGraphDestroy(graph)
    try:
        _checked(driver, "capturing a CUDA graph", (code,))
        return CudaGraph(driver, graph, stream)
    finally:
        if int(code) == 0:
            driver.cuGraphDestroy(graph)


def _checked(driver: Any, doing: str, answer: tuple[Any, ...]) -> Any:
    """Return what a call gave besides its error code, which comes first."""
    code = answer[0]
    if int(code) != 0:
        name = getattr(code, "name", str(code))
        raise EdgeLslaError(f"CUDA failed while {doing}", name, "run `doctor`; restart the program")
    return answer[1] if len(answer) > 1 else None
