"""The manifest of a bundle: what it holds, how it was made, and the numbers that it must reproduce."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any

from edge_lsla.bundle import fields, layout, strict_json
from edge_lsla.errors import BundleError, CompatibilityError, UsageError
from edge_lsla.preprocessing import Preprocessing

FORMAT_VERSION = 1
BACKENDS = ("onnxruntime", "tensorrt", "tensorrt-rtx")
PRECISIONS = ("fp32", "fp16", "int8")
KINDS = ("onnx", "engine")
SIGNATURE = "signature.json"
GOLDEN_INPUTS = "golden/inputs.npy"
MAX_LABELS = 100_000
MAX_GOLDEN_IMAGES = 256


def golden_logits_name(backend: str, precision: str) -> str:
    """Return the name of the entry with the logits expected of a backend at a precision."""
    return f"golden/{backend}-{precision}.npy"


@dataclass(frozen=True)
class Artifact:
    """One file that a backend runs or builds from.

    Attributes:
        name: its entry in the bundle, such as `onnxruntime-int8.onnx`.
        backend: one of `BACKENDS`.
        precision: one of `PRECISIONS`.
        kind: "onnx", ready for the backend's parser, or "engine", built already.
        versions: what it was made with and for; for engines the GPU, driver, CUDA, L4T.
        targets: devices that an engine was built for, such as "sm87"; empty means any.
        sha256: of its bytes, hexadecimal.
        size: bytes.

    Raises:
        BundleError: a field has a value that cannot be used; the message names it.
    """

    name: str
    backend: str
    precision: str
    kind: str
    versions: dict[str, str]
    targets: tuple[str, ...]
    sha256: str
    size: int

    def __post_init__(self) -> None:
        try:
            layout.check_entry_name(fields.text(self.name, "name"))
        except BundleError as error:
            raise fields.refuse(f"is not allowed, {error.what}", "name", error.remedy or "correct it") from error
        if self.name in (layout.MANIFEST, SIGNATURE) or self.name.partition("/")[0] == "golden":
            raise fields.refuse("is a name that the bundle needs itself", "name", "choose another")
        fields.choice(self.backend, "backend", BACKENDS)
        fields.choice(self.precision, "precision", PRECISIONS)
        fields.choice(self.kind, "kind", KINDS)
        for key, version in fields.mapping(self.versions, "versions").items():
            fields.text(version, f"versions.{key}")
        object.__setattr__(self, "targets", fields.texts(self.targets, "targets", most=64))
        fields.sha256(self.sha256, "sha256")
        fields.integer(self.size, "size", 1, layout.MAX_BUNDLE_BYTES)

    def fits(self, target: str | None) -> bool:
        """Say whether it was made for `target`, or for any."""
        return target is None or not self.targets or target in self.targets


@dataclass(frozen=True)
class Tolerance:
    """How far logits may lie from the golden ones.

    Attributes:
        max_abs: largest absolute difference of any logit.
    """

    max_abs: float

    def __post_init__(self) -> None:
        fields.number(self.max_abs, "max_abs", low=0.0)


@dataclass(frozen=True)
class Golden:
    """A few inputs and the logits that each backend and precision must give for them.

    Attributes:
        images: number of inputs.
        entries: entry name to the SHA-256 of its bytes: `GOLDEN_INPUTS`, and `golden_logits_name` for each artifact.
        tolerance: for each precision.
    """

    images: int
    entries: dict[str, str]
    tolerance: dict[str, Tolerance]

    def __post_init__(self) -> None:
        fields.integer(self.images, "images", 1, MAX_GOLDEN_IMAGES)
        for name, digest in fields.mapping(self.entries, "entries").items():
            fields.sha256(digest, f"entries.{name}")
        for precision in fields.mapping(self.tolerance, "tolerance"):
            fields.choice(precision, f"tolerance.{precision}", PRECISIONS)

    @classmethod
    def from_dict(cls, values: Any) -> Golden:
        """Build from `Manifest.to_dict`'s form; see `Manifest.from_dict`."""
        given = dict(fields.members(values, cls))
        tolerance = {}
        for precision, value in fields.mapping(given["tolerance"], "tolerance").items():
            with fields.inside(f"tolerance.{precision}"):
                tolerance[precision] = Tolerance(**fields.members(value, Tolerance))
        given["tolerance"] = tolerance
        return cls(**given)


@dataclass(frozen=True, kw_only=True)
class Passport:
    """Where a bundle comes from and what it is; everything in a manifest that does not describe its entries.

    Attributes:
        name: the model's name.
        created: UTC, such as 2025-01-31T12:00:00Z.
        edge_lsla: version of edge-lsla that made it.
        model: the model's configuration, or where its code is found (`{"factory": "module:function", …}`); JSON.
        labels: names of the classes, in the order of the logits.
        preprocessing: how pictures become inputs.
        digests: SHA-256 of what it was made from: `checkpoint`, `onnx`, `calibration`, …
        precisions: for an artifact's precision (or an artifact's name, where it differs), each layer's precision.
        fidelity: figures of agreement with the checkpoint; JSON.
        calibration: `method`, `images` and whatever else describes it; None without calibration.
        plugin: `operator_version`, `cubin_index` (SHA-256) and whatever else describes it; None where none is needed.
        abstention: when an answer had better be refused: `threshold`, the least probability, and on held-out pictures
            the share that is `right` of the accepted answers, their `coverage`, and the number of `images`; None where
            there were none. In the manifest's text only where it is known, so that older texts stay as they are.

    Raises:
        BundleError: a field has a value that cannot be used; the message names it.
    """

    name: str
    created: str
    edge_lsla: str
    model: dict[str, Any]
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    digests: dict[str, str]
    precisions: dict[str, dict[str, str]]
    fidelity: dict[str, Any]
    calibration: dict[str, Any] | None = None
    plugin: dict[str, Any] | None = None
    abstention: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        fields.text(self.name, "name")
        fields.created(self.created, "created")
        fields.text(self.edge_lsla, "edge_lsla", longest=64)
        fields.free_object(self.model, "model")
        object.__setattr__(self, "labels", fields.texts(self.labels, "labels", most=MAX_LABELS, fewest=1))
        if not isinstance(self.preprocessing, Preprocessing):
            raise fields.refuse("is not a Preprocessing", "preprocessing")
        for key, digest in fields.mapping(self.digests, "digests").items():
            fields.sha256(digest, f"digests.{key}")
        for key, layers in fields.mapping(self.precisions, "precisions").items():
            for layer, precision in fields.mapping(layers, f"precisions.{key}").items():
                fields.choice(precision, f"precisions.{key}.{layer}", PRECISIONS)
        fields.free_object(self.fidelity, "fidelity")
        if self.calibration is not None:
            described = fields.free_object(self.calibration, "calibration")
            fields.text(described.get("method"), "calibration.method")
            fields.integer(described.get("images"), "calibration.images", 0)
        if self.plugin is not None:
            described = fields.free_object(self.plugin, "plugin")
            fields.text(described.get("operator_version"), "plugin.operator_version")
            fields.sha256(described.get("cubin_index"), "plugin.cubin_index")
        if self.abstention is not None:
            described = fields.free_object(self.abstention, "abstention")
            for key in ("threshold", "right", "coverage"):
                if fields.number(described.get(key), f"abstention.{key}", low=0.0) > 1:
                    raise fields.refuse("is not in 0..1", f"abstention.{key}")
            fields.integer(described.get("images"), "abstention.images", 1)


@dataclass(frozen=True, kw_only=True)
class Manifest(Passport):
    """A passport and the entries that it speaks for.

    Attributes:
        artifacts: the preferred one of a backend first.
        golden: the numbers to reproduce.
    """

    artifacts: tuple[Artifact, ...]
    golden: Golden

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.artifacts, (list, tuple)) or not self.artifacts:
            raise fields.refuse("has no artifact", "artifacts", "give at least one")
        object.__setattr__(self, "artifacts", tuple(self.artifacts))
        names = [artifact.name for artifact in self.artifacts]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise fields.refuse("repeats an earlier name", f"artifacts[{index}].name")
        held = {artifact.precision for artifact in self.artifacts}
        for key in self.precisions:
            if key not in held and key not in names:
                raise fields.refuse("names no artifact", f"precisions.{key}")
        _same(set(self.golden.tolerance), held, "golden.tolerance")
        expected = {GOLDEN_INPUTS, *(golden_logits_name(one.backend, one.precision) for one in self.artifacts)}
        _same(set(self.golden.entries), expected, "golden.entries")

    @property
    def threshold(self) -> float:
        """The least probability of an answer that is not refused; 0 where none is recorded."""
        return float(self.abstention["threshold"]) if self.abstention else 0.0

    def digests_of_entries(self) -> dict[str, str]:
        """Return the SHA-256 of every entry that the manifest names, by entry name."""
        return {**{artifact.name: artifact.sha256 for artifact in self.artifacts}, **self.golden.entries}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values, `format_version` first."""
        values: dict[str, Any] = {"format_version": FORMAT_VERSION}
        for field in dataclasses.fields(self):
            values[field.name] = getattr(self, field.name)
        if self.abstention is None:
            del values["abstention"]
        return values | {
            "labels": list(self.labels),
            "preprocessing": self.preprocessing.to_dict(),
            "artifacts": [{**vars(artifact), "targets": list(artifact.targets)} for artifact in self.artifacts],
            "golden": dataclasses.asdict(self.golden),
        }

    def text(self) -> bytes:
        """Return the bytes of `manifest.json`: there is exactly one text for a manifest."""
        return strict_json.dump(self.to_dict())

    def sha256(self) -> str:
        """Return the SHA-256 of `text`, which identifies all that a bundle holds, signed or not."""
        return hashlib.sha256(self.text()).hexdigest()

    @classmethod
    def from_dict(cls, values: Any) -> Manifest:
        """Build from `to_dict`'s form.

        Raises:
            BundleError: a field is unknown, missing, of another type or out of range; the message names it.
            CompatibilityError: the format is newer than this edge-lsla knows.
        """
        if not isinstance(values, dict):
            raise BundleError("manifest is not an object of fields", "manifest", "rebuild the bundle")
        given = dict(values)
        check_format_version(given.pop("format_version", None))  # first: a later format may differ in all the rest
        if "abstention" in given and given["abstention"] is None:
            raise fields.refuse("is empty", "abstention", "leave it out")  # a manifest has exactly one text
        given = dict(fields.members({"abstention": None, **given}, cls))
        if not isinstance(given["artifacts"], list):
            raise fields.refuse("is not a list", "artifacts")
        if len(given["artifacts"]) > layout.MAX_ENTRIES:
            raise fields.refuse(f"has more than {layout.MAX_ENTRIES} values", "artifacts")
        artifacts = []
        for index, value in enumerate(given["artifacts"]):
            with fields.inside(f"artifacts[{index}]"):
                artifacts.append(Artifact(**fields.members(value, Artifact)))
        given["artifacts"] = artifacts
        with fields.inside("golden"):
            given["golden"] = Golden.from_dict(given["golden"])
        with fields.inside("preprocessing"):
            given["preprocessing"] = _preprocessing(given["preprocessing"])
        return cls(**given)


def check_format_version(version: Any) -> None:
    """Refuse a format other than this one.

    Raises:
        CompatibilityError: the format is newer.
        BundleError: it is not a version.
    """
    if fields.integer(version, "format_version", 1) > FORMAT_VERSION:
        raise CompatibilityError(
            "bundle was made by a newer edge-lsla", f"format_version {version}", "update edge-lsla on this device"
        )


def _preprocessing(values: Any) -> Preprocessing:
    given = fields.members(values, Preprocessing)
    fields.integer(given["image_size"], "image_size", 1, 4096)
    fields.text(given["resize"], "resize")
    fields.number(given["crop_fraction"], "crop_fraction")
    for name in ("mean", "std"):
        if not isinstance(given[name], list):
            raise fields.refuse("is not a list", name)
        for index, value in enumerate(given[name]):
            fields.number(value, f"{name}[{index}]")
    try:
        return Preprocessing(**given)
    except UsageError as error:
        raise BundleError(error.what, error.where, error.remedy) from error


def _same(given: set[str], expected: set[str], field: str) -> None:
    for key in sorted(expected - given):
        raise fields.refuse("is missing", f"{field}.{key}", "add it")
    for key in sorted(given - expected):
        raise fields.refuse("belongs to no artifact", f"{field}.{key}", "remove it")
