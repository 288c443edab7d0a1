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
from edge_lsla.bundle.signing import (
    PublicKey,
    Signature,
    SigningKey,
    generate_key,
    read_private_key,
    read_public_key,
    sign_bundle,
    verify_signature,
)
from edge_lsla.bundle.trust import allows_native_code, remember_built_here, trusted_keys, was_built_here
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
    "PublicKey",
    "Signature",
    "SigningKey",
    "Tolerance",
    "allows_native_code",
    "generate_key",
    "open_bundle",
    "read_private_key",
    "read_public_key",
    "remember_built_here",
    "sign_bundle",
    "trusted_keys",
    "verify_signature",
    "was_built_here",
    "write_bundle",
]
