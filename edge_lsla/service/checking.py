"""What can be said of a configuration on this device before the service is started."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_lsla.errors import EdgeLslaError
from edge_lsla.service.config import Config


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
    if config.mqtt is not None:
        found.append(_look("mqtt", lambda: _mqtt(config)))
    if config.webhook is not None:
        found.append(_look("webhook", lambda: _webhook(config)))
    if config.status.enabled:
        found.append(_look("status page", lambda: _status(config)))
    return found


def _look(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(True, f"{name}: {look()}")
    except EdgeLslaError as error:
        return Finding(False, f"{name}: {error}")


def _folder(folder: Path) -> str:
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not there.is_dir():
        raise EdgeLslaError("no such folder", there, "create it")
    if not os.access(there, os.W_OK | os.X_OK):
        raise EdgeLslaError("no permission to write into the folder", there, "change its owner or permissions")
    return str(folder)


def _model(config: Config, has_demo: bool) -> str:
    from edge_lsla.bundle import open_bundle
    from edge_lsla.slots.slots import Slots

    slots = Slots(config.data / "models", config.slots)
    state = slots.state()
    if state.active is not None:
        return f"{state.active.name}, installed in slot {state.active.slot}"
    if config.model.bundle is None:
        if not has_demo:
            raise EdgeLslaError("no model is installed, and none is configured", "model.bundle", "name a bundle")
        return "the demo bundle"
    with open_bundle(config.model.bundle) as bundle:
        return f"{bundle.manifest.name}, {len(bundle.manifest.labels)} classes"


def _source(spec: str) -> str:
    from edge_lsla.pipeline.address import parse_address

    return parse_address(spec).name


def _mqtt(config: Config) -> str:
    from edge_lsla.delivery.mqtt import MqttSender
    from edge_lsla.delivery.secret import read_secret

    assert config.mqtt is not None
    read_secret(config.mqtt.password_file, config.mqtt.password_env, "password")
    sender = MqttSender(config.mqtt, config.device)
    host, port = config.mqtt.address
    return ", ".join([f"{host} port {port}", *sender.warnings])


def _webhook(config: Config) -> str:
    from edge_lsla.delivery.secret import read_secret
    from edge_lsla.delivery.webhook import WebhookSender

    assert config.webhook is not None
    read_secret(config.webhook.token_file, config.webhook.token_env, "token")
    read_secret(config.webhook.secret_file, config.webhook.secret_env, "secret")
    return ", ".join([config.webhook.parts.netloc, *WebhookSender(config.webhook).warnings])


def _status(config: Config) -> str:
    from edge_lsla.status.tokens import read_token

    read_token(config.status)
    return f"{config.status.host} port {config.status.port}" + (", with a token" if config.status.needs_token else "")
