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
    from edge_lsla.slots.state import State

FOLDER = "models"  # in the service's data folder
POLL_SECONDS = 0.5
SHOWN = 5  # entries of the history
PHASES = {
    "steady": "nothing is tried",
    "waits": "waits for the service to try it",
    "shadow": "in shadow",
    "probation": "on probation",
}


def update(
    bundle: Annotated[Optional[Path], typer.Argument(help="The new model, NAME.lsla.")] = None,
    config: Annotated[Optional[Path], typer.Option(help="The service's configuration, which names the data.")] = None,
    data: Annotated[Optional[Path], typer.Option(help="The service's data folder, instead of --config.")] = None,
    status: Annotated[
        bool, typer.Option("--status", help="Say what is in the slots, and what happened; --json has it all.")
    ] = False,
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
    if bundle is not None:
        _check_choices(choices, backend, precision)
    if status:
        return _show(slots.state())
    if rollback:
        return _show(slots.roll_back("the operator asked for it"))
    assert bundle is not None
    if choices:
        backend, precision, threads, rebuild = (
            choices["backend"],
            choices["precision"],
            threads or choices["threads"],
            rebuild and choices["rebuild"],
        )

    def selftest(copy: Path) -> tuple[str, str]:
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
        ran, differ = model.artifact.precision, f"logits differ by {test.max_abs_difference:.3g}"
        say().print(f"self-test in {ran}: {test.images} images, {differ}", style="dim")
        return ran, model.artifact.sha256

    before = time.time()
    candidate = slots.install(bundle, selftest)
    held = candidate.held
    if candidate.waits:
        say().print(f"{bundle}: {visible(held.title)} waits in slot {held.slot} for the service to try it")
    else:
        say().print(f"{bundle}: {visible(held.title)} is the active model, in slot {held.slot}")
    result = {"waits": candidate.waits, "digest": held.digest, **_dict(slots.state())}
    if wait and candidate.waits:
        result |= _wait(slots, held.digest, before, timeout, known=config is not None)
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


def _check_choices(choices: dict[str, Any], backend: str, precision: str | None) -> None:
    """Refuse what the service would not heed; warn where its configuration is not known.

    Raises:
        UsageError: the configuration says otherwise.
    """
    given = {"backend": None if backend == "auto" else backend, "precision": precision}
    for name, value in given.items():
        if value is None or (choices and value == choices[name]):
            continue
        what, remedy = f"the service runs the {name} of its configuration", f"set model.{name} there"
        if choices:
            raise UsageError(what, f"--{name}", remedy)
        say().print(f"{what}: {remedy}; --{name} is for the self-test here only", style="yellow")


def _wait(slots: Slots, digest: str, since: float, timeout: float, known: bool) -> dict[str, Any]:
    """Follow a candidate until the service has promoted it, or gave it up; `known`: the slots' settings are its own."""
    deadline, seen, phase = time.monotonic() + timeout, 0, ""
    say().print(f"waiting at most {timeout:g} s", style="dim")
    with progress("trying") as step:
        while True:
            state = slots.state()
            told = [entry for entry in state.history if entry.digest == digest and entry.time >= since - 1]
            for entry in told[seen:]:
                say().print(f"{entry.what}: {visible(entry.reason)}")
            seen = len(told)
            last = told[-1] if told else None
            if state.phase not in (phase, "steady") and digest in (
                held.digest for held in (state.active, state.candidate) if held
            ):
                phase = state.phase
                say().print(_doing(phase, slots.settings if known else None))
            if last is not None and last.what == "promoted":
                return {"outcome": last.what, "reason": last.reason, **_dict(state)}
            if last is not None and last.what in ("refused", "rolled back"):
                raise GateError(f"the model was {last.what}", last.name, last.reason, _dict(state))
            left = deadline - time.monotonic()
            if left <= 0:
                remedy = "see whether the service runs, and sees anything: systemctl status edge-lsla"
                raise EdgeLslaError(f"the service did not decide within {timeout:g} s", slots.path, remedy)
            step(round(timeout - left), round(timeout), PHASES[state.phase])
            time.sleep(min(POLL_SECONDS, left))


def _show(state: State) -> dict[str, Any]:
    for role in ("active", "candidate", "previous"):
        held = getattr(state, role)
        tried = role == ("active" if state.state == "trial" else "candidate")
        said = "none" if held is None else f"{visible(held.title)} in slot {held.slot}"
        say().print(f"{role + ':':<11}{said}" + (f", {PHASES[state.phase]}" if tried and held is not None else ""))
    older = len(state.history) - SHOWN
    if older > 0:
        say().print(f"{older} older entries: --json shows them", style="dim")
    for entry in state.history[-SHOWN:]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time))
        say().print(f"{when}  {entry.what}: {visible(entry.title)}: {visible(entry.reason)}", style="dim")
    return _dict(state)


def _doing(phase: str, settings: SlotSettings | None) -> str:
    """Say what is going on, and how long it takes at least, where that is known."""
    least = {} if settings is None else {
        "shadow": (settings.shadow_seconds, settings.shadow_batches),
        "probation": (settings.probation_seconds, settings.probation_batches),
    }  # fmt: skip
    if phase not in least:
        return PHASES[phase]
    seconds, batches = least[phase]
    return f"{PHASES[phase]}, for at least {seconds:g} s and {batches} batches"


def _dict(state: State) -> dict[str, Any]:
    values = state.to_dict()
    del values["version"]
    return {**values, "phase": state.phase}
