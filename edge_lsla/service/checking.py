"""What can be said of a configuration on this device before the service is started."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_lsla.bundle import PRECISIONS, Bundle, open_bundle
from edge_lsla.errors import EdgeLslaError, TrustError, UsageError
from edge_lsla.service.config import CameraConfig, Config, ModelConfig
from edge_lsla.service.credentials import Credentials
from edge_lsla.service.ownership import check_owner, warn_root
from edge_lsla.service.sampling import ReservoirKeeper

UNSEEN = "is handed over by systemd, and cannot be looked at here and now"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, in a line, or, where `looked` is false, one that cannot be looked at here."""

    good: bool
    text: str
    looked: bool = True


def check_config(config: Config, has_demo: bool, credentials: Credentials | None = None) -> list[Finding]:
    """Look at the data folder, the model, each camera's source, the receivers' secrets and the status page.

    Nothing is connected to, opened for writing or made.

    Args:
        config: see `Config`.
        has_demo: whether the demo bundle can stand in for a bundle that is not configured.
        credentials: those of the service's unit; None looks where systemd has them.
    """
    files = credentials or Credentials()
    found = [_look("data", lambda: _folder(config.data)), _look("model", lambda: _model(config, has_demo))]
    found += [_look(f"camera {one.name}", lambda one=one: _camera(one, files)) for one in config.cameras]  # type: ignore[misc]
    if config.reservoir.size:
        found.append(_look("reservoir", lambda: _reservoir(config)))
    if config.mqtt is not None:
        found.append(_look("mqtt", lambda: _mqtt(config, files)))
    if config.webhook is not None:
        found.append(_look("webhook", lambda: _webhook(config, files)))
    if config.mqtt is not None and config.webhook is not None:
        found.append(_look("receivers", lambda: _receivers(config)))
    if config.status.enabled:
        found.append(_look("status page", lambda: _status(config, files)))
    return found + [
        Finding(True, f"not checked: {path} {UNSEEN}", looked=False) for path in dict.fromkeys(files.unseen)
    ]


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
        if config.slots.require_signature:
            remedy = "name a signed bundle as model.bundle, or leave require_signature out"
            raise TrustError("the demo bundle is not signed", "slots.require_signature", remedy)
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


def _camera(camera: CameraConfig, files: Credentials) -> str:
    from edge_lsla.pipeline.address import parse_address
    from edge_lsla.pipeline.synthetic import SyntheticSource

    seen = files.see(camera.source_file)
    if camera.source_file is not None and seen is None:
        return f"its source is in {camera.source_file}"
    address = parse_address(camera.model_copy(update={"source_file": seen}).address())
    if address.kind == "synthetic":
        SyntheticSource(camera.opening).close()  # reads its pictures
    return address.name


def _reservoir(config: Config) -> str:
    keeper = ReservoirKeeper(config.data, config.reservoir, config.records.keep_free_mb)
    if keeper.folder.exists():
        keeper.open()
    return f"{config.reservoir.size} pictures in {keeper.folder}"


def _mqtt(config: Config, files: Credentials) -> str:
    from edge_lsla.delivery.mqtt import MqttSender
    from edge_lsla.delivery.network import tls_context
    from edge_lsla.delivery.secret import read_secret

    assert config.mqtt is not None
    read_secret(files.see(config.mqtt.password_file), config.mqtt.password_env, "password")
    if config.mqtt.tls:
        certificate, key = files.see(config.mqtt.certificate_file), files.see(config.mqtt.key_file)
        if key is None and config.mqtt.key_file is not None:
            certificate = None  # one is no use without the other
        key = key if certificate is not None else None
        tls_context(files.see(config.mqtt.ca_file), config.mqtt.insecure, certificate, key)
    sender = MqttSender(config.mqtt, config.device)
    host, port = config.mqtt.address
    return ", ".join([f"{host} port {port}", *sender.warnings])


def _webhook(config: Config, files: Credentials) -> str:
    from edge_lsla.delivery.network import tls_context
    from edge_lsla.delivery.secret import read_secret
    from edge_lsla.delivery.webhook import WebhookSender

    assert config.webhook is not None
    read_secret(files.see(config.webhook.token_file), config.webhook.token_env, "token")
    read_secret(files.see(config.webhook.secret_file), config.webhook.secret_env, "secret")
    if config.webhook.parts.scheme == "https":
        tls_context(files.see(config.webhook.ca_file), config.webhook.insecure)
    return ", ".join([config.webhook.parts.netloc, *WebhookSender(config.webhook, config.device).warnings])


def _receivers(config: Config) -> str:
    from edge_lsla.service.parts import make_senders

    return ", ".join(sender.name for sender in make_senders(config))


def _status(config: Config, files: Credentials) -> str:
    from edge_lsla.status.tokens import read_token

    seen = files.see(config.status.token_file)
    if seen is not None or config.status.token_file is None:
        read_token(dataclasses.replace(config.status, token_file=seen))
    return f"{config.status.host} port {config.status.port}" + (", with a token" if config.status.needs_token else "")
