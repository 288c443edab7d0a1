"""What can be said of a configuration on this device before the service is started."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_lsla.bundle import PRECISIONS, Bundle, open_bundle
from edge_lsla.errors import EdgeLslaError, UsageError
from edge_lsla.service.config import Config, ModelConfig
from edge_lsla.service.ownership import check_owner, warn_root
from edge_lsla.service.sampling import ReservoirKeeper


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, in a line."""

    good: bool
    text: str


def check_config(config: Config, has_demo: bool) -> list[Finding]:
    """Look at the data folder, the model, each camera's source, the receivers' secrets and the status page.

    Nothing is connected to, opened for writing or made.

    Args:
        config: see `Config`.
        has_demo: whether the demo bundle can stand in for a bundle that is not configured.
    """
    found = [_look("data", lambda: _folder(config.data)), _look("model", lambda: _model(config, has_demo))]
    found += [_look(f"camera {one.name}", lambda one=one: _source(one.address())) for one in config.cameras]  # type: ignore[misc]
    if config.reservoir.size:
        found.append(_look("reservoir", lambda: _reservoir(config)))
    if config.mqtt is not None:
        found.append(_look("mqtt", lambda: _mqtt(config)))
    if config.webhook is not None:
        found.append(_look("webhook", lambda: _webhook(config)))
    if config.mqtt is not None and config.webhook is not None:
        found.append(_look("receivers", lambda: _receivers(config)))
    if config.status.enabled:
        found.append(_look("status page", lambda: _status(config)))
    return found


def _look(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(True, f"{name}: {look()}")
    except EdgeLslaError as error:
        return Finding(False, f"{name}: {error}")


def _folder(folder: Path) -> str:
    check_owner(folder)
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not there.is_dir():
        raise EdgeLslaError("no such folder", there, "create it")
    if not os.access(there, os.W_OK | os.X_OK):
        raise EdgeLslaError("no permission to write into the folder", there, "change its owner or permissions")
    return warn_root(folder) or str(folder)


def _model(config: Config, has_demo: bool) -> str:
    from edge_lsla.slots.slots import Slots
    from edge_lsla.slots.taking import examine

    _check_choice(config.model)
    slots = Slots(config.data / "models", config.slots)
    state = slots.state()
    if state.active is not None:
        with open_bundle(slots.verified(state.active)) as bundle:
            _check_held(bundle, config.model)
        return f"{state.active.name}, installed in slot {state.active.slot}"
    if config.model.bundle is None:
        if not has_demo:
            raise EdgeLslaError("no model is installed, and none is configured", "model.bundle", "name a bundle")
        return "the demo bundle"
    examine(config.model.bundle, config.slots)  # as the slots will, who may ask for a signature
    with open_bundle(config.model.bundle) as bundle:
        _check_held(bundle, config.model)
        return f"{bundle.manifest.name}, {len(bundle.manifest.labels)} classes"


def _check_choice(chosen: ModelConfig) -> None:
    """Refuse what no bundle can be run with."""
    from edge_lsla.runner.choosing import BACKENDS
    from edge_lsla.runner.onnxruntime import MOST_THREADS

    if chosen.backend not in ("auto", *BACKENDS):
        raise UsageError(f"no such backend {chosen.backend!r}", "model.backend", f"use auto or {', '.join(BACKENDS)}")
    if chosen.precision is not None and chosen.precision not in PRECISIONS:
        raise UsageError(f"unknown precision {chosen.precision!r}", "model.precision", f"use {', '.join(PRECISIONS)}")
    if chosen.threads is not None and chosen.threads > MOST_THREADS:
        raise UsageError(
            f"threads are a number from 1 to {MOST_THREADS}", "model.threads", "leave it out for all cores but one"
        )


def _check_held(bundle: Bundle, chosen: ModelConfig) -> None:
    """Refuse a backend or a precision that this bundle holds nothing for."""
    held = bundle.manifest.artifacts
    if not any(chosen.backend in ("auto", one.backend) and chosen.precision in (None, one.precision) for one in held):
        sought = " ".join(filter(None, (chosen.backend, chosen.precision)))
        names = ", ".join(one.name for one in held)
        raise UsageError(f"bundle holds nothing for {sought}", bundle.path, f"choose one of {names}")


def _source(spec: str) -> str:
    from edge_lsla.pipeline.address import parse_address

    return parse_address(spec).name


def _reservoir(config: Config) -> str:
    keeper = ReservoirKeeper(config.data, config.reservoir, config.records.keep_free_mb)
    if keeper.folder.exists():
        keeper.open()
    return f"{config.reservoir.size} pictures in {keeper.folder}"


def _mqtt(config: Config) -> str:
    from edge_lsla.delivery.mqtt import MqttSender
    from edge_lsla.delivery.network import tls_context
    from edge_lsla.delivery.secret import read_secret

    assert config.mqtt is not None
    read_secret(config.mqtt.password_file, config.mqtt.password_env, "password")
    if config.mqtt.tls:
        tls_context(config.mqtt.ca_file, config.mqtt.insecure, config.mqtt.certificate_file, config.mqtt.key_file)
    sender = MqttSender(config.mqtt, config.device)
    host, port = config.mqtt.address
    return ", ".join([f"{host} port {port}", *sender.warnings])


def _webhook(config: Config) -> str:
    from edge_lsla.delivery.network import tls_context
    from edge_lsla.delivery.secret import read_secret
    from edge_lsla.delivery.webhook import WebhookSender

    assert config.webhook is not None
    read_secret(config.webhook.token_file, config.webhook.token_env, "token")
    read_secret(config.webhook.secret_file, config.webhook.secret_env, "secret")
    if config.webhook.parts.scheme == "https":
        tls_context(config.webhook.ca_file, config.webhook.insecure)
    return ", ".join([config.webhook.parts.netloc, *WebhookSender(config.webhook, config.device).warnings])


def _receivers(config: Config) -> str:
    from edge_lsla.service.parts import make_senders

    return ", ".join(sender.name for sender in make_senders(config))


def _status(config: Config) -> str:
    from edge_lsla.status.tokens import read_token

    read_token(config.status)
    return f"{config.status.host} port {config.status.port}" + (", with a token" if config.status.needs_token else "")
