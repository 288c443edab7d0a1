"""The service's configuration: a TOML file, checked whole before anything starts; unknown keys are refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from edge_lsla.delivery.settings import ForwardSettings, MqttSettings, WebhookSettings
from edge_lsla.errors import SourceError, UsageError
from edge_lsla.governor.settings import GovernorSettings
from edge_lsla.pipeline.address import names_device, parse_address
from edge_lsla.pipeline.finding import FindingSettings
from edge_lsla.pipeline.recovery import SupervisionSettings
from edge_lsla.pipeline.settings import SourceSettings
from edge_lsla.reading import read_regular
from edge_lsla.records.device_name import NAME
from edge_lsla.records.settings import RecordSettings
from edge_lsla.service.drift import DriftSettings
from edge_lsla.service.sampling import ReservoirSettings
from edge_lsla.service.sections import check_path, find_mistakes, section
from edge_lsla.service.stages import StageSettings
from edge_lsla.slots.settings import SlotSettings
from edge_lsla.status.settings import StatusSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LARGEST_FILE = 1 << 20
LARGEST_SOURCE = 4096
SHOWN = 20  # mistakes named at once
MOST_CAMERAS = 16
WRONG_SCHEME = re.compile(r"(?i)(rtsps?|https?)(//|:(?!//))")


if TYPE_CHECKING:
    Opening = SourceSettings
    Supervision = SupervisionSettings
    Finding = FindingSettings
    Stages = StageSettings
    Records = RecordSettings
    Mqtt = MqttSettings
    Webhook = WebhookSettings
    Forward = ForwardSettings
    Status = StatusSettings
    Slots = SlotSettings
    Governor = GovernorSettings
    KeptCrops = ReservoirSettings
    Drift = DriftSettings
else:
    Opening = section(SourceSettings)
    Supervision = section(SupervisionSettings)
    Finding = section(FindingSettings)
    Stages = section(StageSettings)
    Records = section(RecordSettings)
    Mqtt = section(MqttSettings)
    Webhook = section(WebhookSettings)
    Forward = section(ForwardSettings)
    Status = section(StatusSettings)
    Slots = section(SlotSettings)
    Governor = section(GovernorSettings)
    KeptCrops = section(ReservoirSettings)
    Drift = section(DriftSettings)


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError("a name has letters, digits, '.', '_' and '-', at most 64")
    return text


def _source(value: object) -> object:
    """Return a camera's number as text, and other values as they are."""
    if type(value) is int:
        value = str(value)
    if isinstance(value, str) and WRONG_SCHEME.match(value.strip()):  # which is not shown: it may hold a password
        raise ValueError("a URL has :// behind its scheme, like rtsp://camera.local:554/stream")
    return value


Name = Annotated[str, AfterValidator(_name)]
AnyPath = Annotated[Path, BeforeValidator(check_path)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ModelConfig(_Section):
    """Which model watches.

    Attributes:
        bundle: the first model; later ones come by `update`. None takes the demo bundle, in a checkout.
        backend, precision: as in `infer`.
        threads: of the CPU, of one inference; None takes all cores but one.
        rebuild: whether an engine for this device may be built where the bundle has only a graph.
        batch: the most crops of one inference.
    """

    bundle: Optional[AnyPath] = None
    backend: str = "auto"
    precision: Optional[str] = None
    threads: Annotated[Optional[int], Field(ge=1)] = None
    rebuild: bool = True
    batch: Annotated[int, Field(ge=1, le=256)] = 8


class CameraConfig(_Section):
    """One camera.

    Attributes:
        name: under which everything of it is recorded.
        source: as in `infer camera`: a number, a device, a URL, a file, a folder, "csi" or "synthetic".
        source_file: a file that holds it, for URLs with a password; read again at each try to open the camera.
        opening, supervision, finding: see `SourceSettings`, `SupervisionSettings`, `FindingSettings`.
    """

    name: Name
    source: Annotated[Optional[str], BeforeValidator(_source)] = None
    source_file: Optional[AnyPath] = None
    opening: Opening = Opening()
    supervision: Supervision = Supervision()
    finding: Finding = Finding()

    @field_validator("source_file", mode="after")
    @classmethod
    def _one_source(cls, source_file: Path | None, info: ValidationInfo) -> Path | None:
        # A field's check, for the whole's is left out where another field is wrong.
        if "source" in info.data and (info.data["source"] is None) == (source_file is None):
            raise ValueError("give one of source and source_file")
        return source_file

    def address(self) -> str:
        """Return the source, from its file where one is named.

        Raises:
            UsageError: the file cannot be read or holds no source; the message never has what the file holds.
        """
        if self.source_file is None:
            return str(self.source)
        try:
            content = read_regular(self.source_file, LARGEST_SOURCE + 1)
        except OSError as error:
            remedy = error.strerror or "check the path"
            raise UsageError("cannot read the camera's source", self.source_file, remedy) from None
        try:
            source = content.decode("utf-8").strip()
            if len(content) <= LARGEST_SOURCE and source.isprintable():
                if not names_device(source):  # one that is not plugged in yet is a gap
                    parse_address(source)
                return source
        except (UnicodeDecodeError, SourceError):
            pass  # what they say would show what the file holds
        remedy = "write one line there: a camera's number, a device, a URL, or a video file or folder that exists"
        raise UsageError("the file does not name a source that can be opened", self.source_file, remedy)


class Config(_Section):
    """The whole file; deploy/field.toml is an example, and docs/in-the-field.md names each section's class.

    Attributes:
        data: the folder of everything that the service writes.
        device: this device's name: in topics, in what is delivered and exported, and on the status page.
        model, cameras, stages, records, mqtt, webhook, forward, status, slots, governor, reservoir, drift: see their
            classes.
    """

    data: AnyPath
    device: Name = "edge-lsla"
    model: ModelConfig = ModelConfig()
    cameras: tuple[CameraConfig, ...] = ()
    stages: Stages = Stages()
    records: Records = Records()
    mqtt: Optional[Mqtt] = None
    webhook: Optional[Webhook] = None
    forward: Forward = Forward()
    status: Status = Status()
    slots: Slots = Slots()
    governor: Governor = Governor()
    reservoir: KeptCrops = KeptCrops()
    drift: Drift = Drift()

    @field_validator("cameras", mode="before")
    @classmethod
    def _a_list(cls, cameras: object) -> object:
        if isinstance(cameras, dict):
            raise ValueError("write [[cameras]], with two brackets, above the keys of each camera")
        return cameras

    @field_validator("cameras", mode="after")
    @classmethod
    def _names_differ(cls, cameras: tuple[CameraConfig, ...]) -> tuple[CameraConfig, ...]:
        if not 1 <= len(cameras) <= MOST_CAMERAS:
            raise ValueError(f"1 to {MOST_CAMERAS} cameras are needed: [[cameras]]")
        names = [camera.name for camera in cameras]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two cameras have the same name, {name!r}")
        return cameras


def read_config(path: Path) -> Config:
    """Read and check the file; relative paths in it are left as they are.

    Raises:
        UsageError: it cannot be read, is no TOML, or has mistakes; the first few are named with their
            place, in `details` as a list.
    """
    try:
        content = read_regular(path, LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"cannot read the configuration ({error.strerror})", path, "check the path") from error
    if len(content) > LARGEST_FILE:
        raise UsageError("a configuration has at most 1 MB", path, "check that it is the right file")
    try:
        values = tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, or a number of thousands of digits
        raise UsageError(f"not a TOML file ({error})", path, "correct it") from None
    mistakes = list(find_mistakes(Config, values))
    if mistakes:
        more = [f"and {len(mistakes) - SHOWN} more"] if len(mistakes) > SHOWN else []
        shown = {"mistakes": [*mistakes[:SHOWN], *more]}
        raise UsageError("the configuration has mistakes", path, "; ".join(shown["mistakes"]), shown)
    return Config.model_validate(values)
