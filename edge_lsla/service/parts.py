"""The service's parts, made of its configuration, and ended in the right order within two seconds."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_lsla.delivery.forwarder import Forwarder
from edge_lsla.delivery.mqtt import MqttSender
from edge_lsla.delivery.sender import Sender
from edge_lsla.delivery.webhook import WebhookSender
from edge_lsla.errors import AccuracyError, EdgeLslaError, UsageError
from edge_lsla.events import UNWATCHED, Gap
from edge_lsla.pipeline.address import names_recording
from edge_lsla.pipeline.finding import Finding
from edge_lsla.pipeline.supervision import SupervisedCamera
from edge_lsla.records.device_name import keep_device
from edge_lsla.records.store import Store
from edge_lsla.service.clock import Clock
from edge_lsla.service.config import CameraConfig, Config
from edge_lsla.service.drift import DriftWatch
from edge_lsla.service.looking import Looking
from edge_lsla.service.ownership import check_owner, warn_root
from edge_lsla.service.recording import Recording
from edge_lsla.service.sampling import ReservoirKeeper, Sampling, Taker
from edge_lsla.service.served_model import ServedModel, opener
from edge_lsla.service.shared_engine import SharedEngine
from edge_lsla.slots.slots import Slots
from edge_lsla.slots.switching import Outcome, SwitchingModel

if TYPE_CHECKING:
    from edge_lsla.runner.model import Model

log = logging.getLogger(__name__)
MODELS = "models"  # in the data folder, beside the records


@dataclass(frozen=True, eq=False)
class Eye:
    """A camera's stage, and what it finds."""

    looking: Looking
    finding: Finding

    @property
    def camera(self) -> SupervisedCamera:
        """Where its frames come from just now."""
        return self.looking.camera

    @property
    def name(self) -> str:
        """The camera's configured name."""
        return self.finding.source


@dataclass(eq=False)
class Parts:
    """Everything that runs; see the classes."""

    store: Store
    slots: Slots
    model: SwitchingModel
    sampling: Sampling
    engine: SharedEngine
    recording: Recording
    clock: Clock
    clock_state: str = "unknown"
    eyes: list[Eye] = field(default_factory=list)
    forwarders: list[Forwarder] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def make_folder(folder: Path) -> Path:
    """Make the data folder where it is absent.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder ({error.strerror})", folder, "check `data`") from error
    return folder


@contextlib.contextmanager
def opened_parts(config: Config, first_bundle: Path | None, outcome: Callable[[Outcome], None]) -> Any:
    """Open the store and the model, and make the rest; nothing is started. All is closed at the end.

    Args:
        config: see `Config`.
        first_bundle: becomes the active model where the slots hold none that can be opened.
        outcome: told what happens to models.

    Raises:
        EdgeLslaError: something cannot be opened; one sentence.
    """
    with contextlib.ExitStack() as stack:
        check_owner(make_folder(config.data))
        store = stack.enter_context(Store(config.data, config.records))
        keep_device(config.data, config.device)
        chosen = config.model
        open_slot = opener(chosen.backend, chosen.precision, chosen.threads, chosen.batch, chosen.rebuild)
        slots = Slots(config.data / MODELS, config.slots)
        if slots.state().active is None:
            if first_bundle is None:
                raise UsageError("no model is installed, and none is configured", "model.bundle", "name a bundle")
            slots.install(first_bundle, lambda copy: _self_test(open_slot, copy))
        model = _switching_model(slots, open_slot, first_bundle, outcome)
        stack.callback(model.stop)
        sampling = Sampling(model.answer, _takers(config, model))
        parts = Parts(
            store=store,
            slots=slots,
            model=model,
            sampling=sampling,
            engine=SharedEngine(sampling.answer, chosen.batch),
            recording=Recording(store, config.records.crop_quality, lambda: _notify(parts.forwarders)),
            clock=Clock(),
        )
        parts.clock_state = parts.clock.look()
        parts.warnings += filter(None, [warn_root(config.data)])
        parts.eyes += [_eye(camera, parts) for camera in config.cameras]
        for sender in make_senders(config, store.crop):
            parts.warnings += [f"{sender.name}: {warning}" for warning in getattr(sender, "warnings", ())]
            parts.forwarders.append(Forwarder(store, sender, config.forward))
        yield parts


def forget_sinks(store: Store, names: Sequence[str]) -> list[str]:
    """Let nothing wait for receivers that are not configured any more; return their names."""
    gone = [name for name in store.sinks() if name not in names]
    for name in gone:
        store.forget(name)
    return gone


def stop_all(stops: Sequence[tuple[str, Callable[[], object]]], seconds: float) -> list[str]:
    """Call all of these at the same time; return the names of those that did not end within the time."""

    def call(name: str, stop: Callable[[], object]) -> None:
        try:
            stop()
        except Exception as error:  # the others must be stopped as well
            log.error("%s: stopping failed: %s", name, error)

    threads = [
        (name, threading.Thread(target=call, args=(name, stop), name=f"stop {name}", daemon=True))
        for name, stop in stops
    ]
    for _, thread in threads:
        thread.start()
    for _, thread in threads:
        thread.join(seconds)
    return [name for name, thread in threads if thread.is_alive()]


def make_senders(config: Config, crop: Callable[[str], bytes | None] | None = None) -> list[Sender]:
    """Make what delivers to each configured receiver; nothing is connected to.

    Args:
        config: see `Config`.
        crop: gives an event's JPEG or None.

    Raises:
        EdgeLslaError: two have the same name.
    """
    senders: list[Sender] = []
    if config.mqtt is not None:
        senders.append(MqttSender(config.mqtt, config.device, crop))
    if config.webhook is not None:
        senders.append(WebhookSender(config.webhook, config.device))
    names = [sender.name for sender in senders]
    if len(set(names)) < len(names):
        raise EdgeLslaError("two receivers have the same name", names[0], "give one of them another `name`")
    return senders


def _notify(forwarders: Sequence[Forwarder]) -> None:
    for forwarder in forwarders:
        forwarder.notify()


def _eye(config: CameraConfig, parts: Parts) -> Eye:
    # A file is read again at each try: what is wrong with it must not keep the other cameras from watching.
    source = config.address if config.source is None else config.source

    def make() -> SupervisedCamera:
        return SupervisedCamera(config.name, source, config.opening, config.supervision, on_gap)

    def on_gap(gap: Gap) -> None:
        parts.recording.put(gap)
        if gap.ended is None and not gap.seconds:
            log.warning("camera %s does not watch: %s", gap.source, gap.reason)
        elif gap.ended is not None:
            log.info("camera %s: %s", gap.source, end_of_gap(gap))

    finding = Finding(config.name, config.finding, threshold(parts.model))
    recording = config.source is not None and names_recording(config.source)
    looking = Looking(make, finding, parts.engine, parts.recording.put, lambda: parts.clock_state, recording)
    return Eye(looking, finding)


def end_of_gap(gap: Gap) -> str:
    """Say how a gap ended: the camera is back, or nobody watches it any more."""
    back = gap.steps[-1:] not in [(each,) for each in UNWATCHED]
    tried = ", ".join(gap.steps if back else gap.steps[:-1])
    said = "watches again" if back else f"watching is {gap.steps[-1]}, the camera is not back"
    return f"{said} after {gap.seconds:.1f} s" + (f" (tried: {tried})" if tried else "")


def _takers(config: Config, model: SwitchingModel) -> dict[str, Taker]:
    """Return who wants a crop now and then."""
    takers: dict[str, Taker] = {}
    if config.reservoir.size:
        takers["reservoir"] = ReservoirKeeper(config.data, config.reservoir, config.records.keep_free_mb)
    if config.drift.enabled:

        def answering() -> Model | None:
            served = model.model
            return served.model if isinstance(served, ServedModel) else None

        takers["drift"] = DriftWatch(config.drift, answering)
    return takers


def _switching_model(
    slots: Slots,
    open_slot: Callable[[Path], ServedModel],
    first_bundle: Path | None,
    outcome: Callable[[Outcome], None],
) -> SwitchingModel:
    """Open the slots' model; where none can be opened, install the configured one again, which repairs its file."""
    try:
        return SwitchingModel(slots, open_slot, outcome)
    except EdgeLslaError as error:
        if first_bundle is None:
            raise
        log.warning("no installed model can be opened, so %s is installed again: %s", first_bundle, error)
        try:
            slots.install(first_bundle, lambda copy: _self_test(open_slot, copy))
        except EdgeLslaError as refusal:
            log.warning("it cannot be installed: %s", refusal)
            raise error from refusal
    return SwitchingModel(slots, open_slot, outcome)


def _self_test(open_slot: Callable[[Path], ServedModel], copy: Path) -> tuple[str, str]:
    """Refuse a first model that does not give its recorded numbers here; return what ran."""
    model = open_slot(copy)
    try:
        test = model.selftest()
    finally:
        model.close()
    if not test.passed:
        raise AccuracyError(
            f"logits differ by {test.max_abs_difference:.3g}, more than {test.tolerance:.3g}",
            copy,
            "rebuild the bundle on this device, or choose another precision",
        )
    return model.precision, model.digest


def threshold(model: SwitchingModel) -> float:
    """Return the least confidence that the model that answers was calibrated for; 0 where it was for none."""
    served = model.model
    return served.threshold if isinstance(served, ServedModel) else 0.0
