"""The verb `run`: the unattended service."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edge_lsla.console import say, visible
from edge_lsla.errors import MissingComponentError, UsageError
from edge_lsla.verbs import opening

if TYPE_CHECKING:
    from edge_lsla.service.config import Config

LATER = "correct this first: the files and models that it names are looked at afterwards"


def run(
    config: Annotated[Path, typer.Argument(help="The service's configuration, a TOML file; see docs/in-the-field.md.")],
    check: Annotated[
        bool, typer.Option("--check", help="Check the configuration and what it names; start nothing.")
    ] = False,
    max_seconds: Annotated[Optional[float], typer.Option(min=0.1, help="End after so long.")] = None,
) -> dict[str, Any]:
    """Watch cameras unattended: find, name, count, record, deliver, and show it on a status page."""
    try:
        from edge_lsla.service.config import read_config
        from edge_lsla.service.service import Service
    except ModuleNotFoundError as error:
        raise MissingComponentError(
            "the service needs more libraries", f"Python has no module {error.name}", "pip install 'edge-lsla[service]'"
        ) from error
    try:
        settings = read_config(config)
    except UsageError as error:
        if not check:
            raise
        raise UsageError(error.what, error.where, f"{error.remedy}; {LATER}", error.details) from error
    if check:
        return _check(config, settings)
    from edge_lsla.pipeline.signals import stop_on_signals

    _log_to_stderr()
    with stop_on_signals() as stop:
        summary = Service(settings, _first_bundle(settings), say().print).run(stop, max_seconds)
    say().print(
        f"{summary.ended} after {summary.seconds:.0f} s: {summary.frames} frames, {summary.events} events, "
        f"{summary.gaps} gaps, {summary.restarts} restarts of stages"
    )
    return {"summary": vars(summary)}


def _check(path: Path, config: Config) -> dict[str, Any]:
    """Look at everything that can be looked at without starting: bundle, sources, secrets, folder.

    A secret that only the service's unit sees is no mistake; it is among "not_checked".
    """
    from edge_lsla.service.checking import check_config

    found = check_config(config, opening.demo_engine is not None)
    for line in found:
        say().print(line.text, style="red" if not line.good else "" if line.looked else "yellow")
    wrong = [line.text for line in found if not line.good]
    if wrong:
        remedy = wrong[0] + (f"; and {len(wrong) - 1} more" if len(wrong) > 1 else "")
        raise UsageError("the configuration cannot be run here", path, remedy)
    return {
        "checks": [line.text for line in found if line.looked],
        "not_checked": [line.text for line in found if not line.looked],
    }


def _first_bundle(config: Config) -> Path | None:
    if config.model.bundle is not None:
        return config.model.bundle
    return opening.demo_engine() if opening.demo_engine is not None else None


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info:
            return super().format(record)
        return visible(super().format(record))


def _log_to_stderr() -> None:
    """Log as journald wants it: no time, which it adds itself, and one line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(levelname)s: %(message)s"))
    for name, level in (("edge_lsla", logging.INFO), ("asyncio", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
