"""The verb `update`: a new model into the service's slots, and what became of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edge_lsla.console import progress, say, visible
from edge_lsla.errors import AccuracyError, EdgeLslaError, GateError, UsageError
from edge_lsla.verbs.opening import Backend, Precision, Rebuild, Threads

if TYPE_CHECKING:
    from edge_lsla.slots.settings import SlotSettings
    from edge_lsla.slots.slots import Slots
    from edge_lsla.slots.state import Entry, Held, State

FOLDER = "models"  # in the service's data folder
POLL_SECONDS = 0.5
SHOWN = 5  # entries of the history
SHOWN_DIGEST = 12  # characters


def update(
    bundle: Annotated[Optional[Path], typer.Argument(help="The new model, NAME.lsla.")] = None,
    config: Annotated[Optional[Path], typer.Option(help="The service's configuration, which names the data.")] = None,
    data: Annotated[Optional[Path], typer.Option(help="The service's data folder, instead of --config.")] = None,
    status: Annotated[bool, typer.Option("--status", help="Say what is in the slots.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the model before.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the service has tried it.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Wait at most so many seconds.")] = 3600.0,
    backend: Backend = "auto",
    precision: Precision = None,
    threads: Threads = None,
    rebuild: Rebuild = True,
) -> dict[str, Any]:
    """Give the unattended service a new model: verified and self-tested here, then tried there.

    The service finds it within a second, runs it in shadow, switches to it, and goes back by itself if it fails.
    """
    if (bundle is not None) + status + rollback != 1:
        raise UsageError("nothing to do, or too much", "update", "give a bundle, --status or --rollback")
    if wait and bundle is None:
        raise UsageError("there is nothing to wait for", "--wait", "give a bundle too")
    slots, choices = _slots(config, data)
    if status:
        return _show(slots.state())
    if rollback:
        return _show(slots.roll_back("the operator asked for it"))
    assert bundle is not None
    if choices:
        backend, precision, threads, rebuild = (
            choices["backend"] if backend == "auto" else backend,
            precision or choices["precision"],
            threads or choices["threads"],
            rebuild and choices["rebuild"],
        )

    def selftest(copy: Path) -> str:
        from edge_lsla.engine_building import rebuild_here
        from edge_lsla.runner.model import load

        building = rebuild_here if rebuild else None
        with load(copy, backend=backend, precision=precision, threads=threads, rebuild=building) as model:
            test = model.selftest()
        if not test.passed:
            raise AccuracyError(
                f"logits differ by {test.max_abs_difference:.3g}, more than {test.tolerance:.3g}", copy,
                "this device computes other numbers; rebuild the bundle for it, or choose another precision",
            )  # fmt: skip
        say().print(f"self-test: {test.images} images, logits differ by {test.max_abs_difference:.3g}", style="dim")
        return model.artifact.precision

    before = time.time()
    candidate = slots.install(bundle, selftest)
    held = candidate.held
    if candidate.waits:
        say().print(f"{bundle}: {visible(held.name)} waits in slot {held.slot} for the service to try it")
    else:
        say().print(f"{bundle}: {visible(held.name)} is the active model, in slot {held.slot}")
    result = {"waits": candidate.waits, "digest": held.digest, **_dict(slots.state())}
    if wait and candidate.waits:
        result |= _wait(slots, held.digest, before, timeout)
    return result


def _slots(config: Path | None, data: Path | None) -> tuple[Slots, dict[str, Any]]:
    """Return the slots, and how the service opens models, where a configuration says so."""
    from edge_lsla.slots.slots import Slots

    if (config is None) == (data is None):
        raise UsageError("where the service keeps its models is not known", "update", "give either --config or --data")
    settings: SlotSettings | None = None
    choices: dict[str, Any] = {}
    if config is not None:
        from edge_lsla.service.config import read_config

        read = read_config(config)
        data, settings = read.data, read.slots
        choices = {name: getattr(read.model, name) for name in ("backend", "precision", "threads", "rebuild")}
    assert data is not None
    if not data.is_dir():
        raise UsageError("no such data folder", data, "create it, or start the service once")
    return Slots(data / FOLDER, settings), choices


def _wait(slots: Slots, digest: str, since: float, timeout: float) -> dict[str, Any]:
    """Follow a candidate until the service has promoted it, or gave it up."""
    deadline, seen = time.monotonic() + timeout, 0
    with progress("trying") as step:
        while True:
            state = slots.state()
            told = [entry for entry in state.history if entry.digest == digest and entry.time >= since - 1]
            for entry in told[seen:]:
                say().print(f"{entry.what}: {visible(entry.reason)}")
            seen = len(told)
            last = told[-1] if told else None
            if last is not None and last.what == "promoted":
                return {"outcome": last.what, "reason": last.reason, **_dict(state)}
            if last is not None and last.what in ("refused", "rolled back"):
                raise GateError(f"the model was {last.what}", last.name, last.reason, _dict(state))
            left = deadline - time.monotonic()
            if left <= 0:
                remedy = "see whether the service runs, and sees anything: systemctl status edge-lsla"
                raise EdgeLslaError(f"the service did not decide within {timeout:g} s", slots.path, remedy)
            step(round(timeout - left), round(timeout), state.state)
            time.sleep(min(POLL_SECONDS, left))


def _show(state: State) -> dict[str, Any]:
    for role in ("active", "candidate", "previous"):
        held = getattr(state, role)
        trial = ", on probation" if role == "active" and state.state == "trial" else ""
        said = "none" if held is None else f"{_named(held)} in slot {held.slot}{trial}"
        say().print(f"{role + ':':<11}{said}")
    for entry in state.history[-SHOWN:]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time))
        say().print(f"{when}  {entry.what}: {_named(entry)}: {visible(entry.reason)}", style="dim")
    return _dict(state)


def _named(model: Held | Entry) -> str:
    """Return what tells a model from others of its name: its digest, and in which precision it ran."""
    about = ", ".join(filter(None, (model.digest[:SHOWN_DIGEST], visible(model.precision))))
    return f"{visible(model.name)} ({about})"


def _dict(state: State) -> dict[str, Any]:
    values = state.to_dict()
    del values["version"]
    return values
