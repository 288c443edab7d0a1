"""Every error a caller can meet, as one tree; the command line maps each class to an exit code.

EdgeLslaError                      exit 1  the work failed
├── InputError                     exit 2  bad usage or bad input
│   ├── UsageError                         an option, setting or configuration field
│   ├── ImageError                         a picture that cannot be read
│   ├── SourceError                        a video, stream or camera that cannot be read
│   ├── DatasetError                       a data set folder or list
│   ├── CheckpointError                    weights that do not fit or cannot be trusted
│   ├── GraphError                         an ONNX file that is not what a stage needs
│   ├── RangesError                        calibration ranges that are corrupt or belong to another model
│   └── BundleError                        a bundle that is corrupt, cut short or not a bundle
├── MissingComponentError          exit 3  a needed library, tool or device is absent
├── GateError                      exit 4  a gate refused
│   ├── TrustError                         a signature or an origin
│   ├── CompatibilityError                 made for another device, version or format
│   └── AccuracyError                      numbers outside the stated tolerance
└── Interrupted                    exit 130  stopped by the user or by SIGTERM
"""

from __future__ import annotations

from typing import Any


class EdgeLslaError(Exception):
    """Root of the tree; its text reads "what is wrong: where; what to do".

    Args:
        what: what is wrong, in plain words.
        where: the file, field or device concerned.
        remedy: what the user can do about it.
        details: what was found until then, for `--json`.
    """

    exit_code = 1

    def __init__(
        self, what: str, where: object = None, remedy: str | None = None, details: dict[str, Any] | None = None
    ) -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        self.details = details or {}
        text = what if where is None else f"{what}: {where}"
        super().__init__(text if remedy is None else f"{text}; {remedy}")


class InputError(EdgeLslaError):
    """Bad usage or bad input."""

    exit_code = 2


class UsageError(InputError):
    """An option, a setting or a configuration field has a value that cannot be used."""


class ImageError(InputError):
    """A picture cannot be read."""


class SourceError(InputError):
    """A video, stream or camera cannot be opened or read."""


class DatasetError(InputError):
    """A data set folder or list is not in a layout that the loaders know."""


class CheckpointError(InputError):
    """A checkpoint is unreadable, unsafe, or does not fit the model."""


class GraphError(InputError):
    """An ONNX file is not what this stage needs."""


class RangesError(InputError):
    """A ranges file is corrupt, or belongs to another model."""


class BundleError(InputError):
    """A file is not a bundle, or its bytes are not those that were written."""


class MissingComponentError(EdgeLslaError):
    """A library, tool or device that this work needs is absent."""

    exit_code = 3


class GateError(EdgeLslaError):
    """A gate refused to let the work go on."""

    exit_code = 4


class TrustError(GateError):
    """A signature is missing or wrong, or native code comes from an untrusted place."""


class CompatibilityError(GateError):
    """A file was made for another device, runtime or format version."""


class AccuracyError(GateError):
    """Results differ by more than the stated tolerance."""


class Interrupted(EdgeLslaError):  # noqa: N818  # nothing is wrong when a user stops the work
    """The user or the system asked the work to stop."""

    exit_code = 130
