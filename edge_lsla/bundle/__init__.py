"""The bundle: one verified file `NAME.lsla` that holds everything a field device needs to run a classifier."""

from edge_lsla.bundle.bundle import Bundle, open_bundle
from edge_lsla.bundle.layout import MAX_BUNDLE_BYTES
from edge_lsla.bundle.manifest import (
    BACKENDS,
    FORMAT_VERSION,
    KINDS,
    PRECISIONS,
    Artifact,
    Golden,
    Manifest,
    Passport,
    Tolerance,
)
from edge_lsla.bundle.writing import GoldenSet, NewArtifact, write_bundle

__all__ = [
    "BACKENDS",
    "FORMAT_VERSION",
    "KINDS",
    "MAX_BUNDLE_BYTES",
    "PRECISIONS",
    "Artifact",
    "Bundle",
    "Golden",
    "GoldenSet",
    "Manifest",
    "NewArtifact",
    "Passport",
    "Tolerance",
    "open_bundle",
    "write_bundle",
]
