"""Opening a bundle: everything is verified before anything in it is used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_lsla.bundle import strict_json
from edge_lsla.bundle.archive import Archive
from edge_lsla.bundle.arrays import npy_size, parse_npy
from edge_lsla.bundle.layout import MANIFEST
from edge_lsla.bundle.manifest import (
    GOLDEN_INPUTS,
    SIGNATURE,
    Artifact,
    Manifest,
    golden_logits_name,
)
from edge_lsla.errors import BundleError, CompatibilityError

if TYPE_CHECKING:
    from edge_lsla.bundle.signing import PublicKey

MAX_SIGNATURE_BYTES = 65_536


class Bundle:
    """An open bundle, verified. Owns the open file: close it, or use it as a context manager.

    Attributes:
        path: the file.
        digest: SHA-256 of the file without its comment, hexadecimal; it identifies the bundle.
        file_sha256: SHA-256 of the whole file, as `sha256sum` tells it.
        manifest: what it holds.
        signature: bytes of `signature.json`, which nothing has looked at (see `verify_signature`); None if unsigned.
    """

    path: Path
    digest: str
    file_sha256: str
    manifest: Manifest
    signature: bytes | None

    def __init__(self, archive: Archive, manifest: Manifest, signature: bytes | None) -> None:
        self.path = archive.path
        self.digest = archive.digest
        self.file_sha256 = archive.file_sha256
        self.manifest = manifest
        self.signature = signature
        self._archive = archive

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was read stays valid, reading more is refused."""
        self._archive.close()

    def artifact(
        self, backend: str, precision: str | None = None, *, kind: str | None = None, target: str | None = None
    ) -> Artifact:
        """Return the first artifact that fits, in the manifest's order, which puts the preferred one first.

        Args:
            backend: one of `BACKENDS`.
            precision, kind: None takes any.
            target: the device, such as "sm87"; artifacts for any device fit too. None takes any.

        Raises:
            CompatibilityError: there is none; the message names what the bundle holds.
        """
        for one in self.manifest.artifacts:
            wanted = (backend, precision or one.precision, kind or one.kind)
            if (one.backend, one.precision, one.kind) == wanted and one.fits(target):
                return one
        sought = " ".join(part for part in (backend, precision, kind, target and f"for {target}") if part)
        held = ", ".join(one.name for one in self.manifest.artifacts)
        raise CompatibilityError(
            f"bundle holds no artifact for {sought}", self.path, f"it holds {held}; choose one of these or rebuild it"
        )

    def read(self, artifact: Artifact) -> bytes:
        """Return an artifact's bytes, verified again, held once.

        Raises:
            BundleError: the file was changed since it was opened, or the artifact is not this bundle's.
        """
        if artifact not in self.manifest.artifacts:
            raise BundleError("artifact is not of this bundle", f"{self.path}: {artifact.name}", "give one of its own")
        return self._read_verified(artifact.name)

    def golden_inputs(self) -> NDArray[np.uint8]:
        """Return the golden inputs, uint8 [K, S, S, 3], read-only; `normalise` turns them into the model's input.

        Raises:
            BundleError: they are not what the manifest says.
        """
        with _naming(self.path):
            return parse_npy(self._read_verified(GOLDEN_INPUTS), "|u1", _pixels_shape(self.manifest))

    def golden_logits(self, artifact: Artifact) -> NDArray[np.float32]:
        """Return the logits that an artifact must give for the golden inputs, float32 [K, classes], read-only.

        Raises:
            BundleError: they are not what the manifest says, or not finite.
        """
        name = golden_logits_name(artifact.backend, artifact.precision)
        with _naming(self.path):
            logits = parse_npy(self._read_verified(name), "<f4", _logits_shape(self.manifest))
            if not np.isfinite(logits).all():  # NaN would compare as "within tolerance"
                raise BundleError("golden logits are not finite", name, "rebuild the bundle")
        return logits

    def _read_verified(self, name: str) -> bytes:
        data = self._archive.read(name)
        if hashlib.sha256(data).hexdigest() != self.manifest.digests_of_entries()[name]:
            raise BundleError("entry is not the one that the manifest names", f"{self.path}: {name}", "open it again")
        return data


def open_bundle(
    path: str | os.PathLike[str],
    *,
    require_signature: bool = False,
    trusted: Mapping[str, PublicKey] | None = None,
) -> Bundle:
    """Open a bundle and verify all of it: size, digest, layout, names, manifest, and every entry's size and SHA-256.

    Args:
        path: the file.
        require_signature: whether a trusted key must have signed it. Else a `signature.json` entry is allowed, not
            looked at, and nothing is trusted because of it.
        trusted: by key id; None: those that `trusted_keys` finds.

    Raises:
        BundleError: the file cannot be read, is no bundle, or is not what was written.
        CompatibilityError: it was made by a newer edge-lsla.
        TrustError: a signature is required, and is absent, wrong or by an unknown key.
        MissingComponentError: a signature is required, and cryptography is absent, which verifies it.
    """
    with _naming(path):
        archive = Archive(path)
        try:
            text = archive.read(MANIFEST, strict_json.MAX_BYTES)
            manifest = _manifest(strict_json.parse(text))
            if manifest.text() != text:
                raise BundleError("manifest is not written in the form of a bundle", MANIFEST, "rebuild the bundle")
            bundle = Bundle(archive, manifest, _verify_entries(archive, manifest))
        except BaseException:
            archive.close()
            raise
    if require_signature:
        try:
            _require_signature(bundle, trusted)
        except BaseException:
            bundle.close()
            raise
    return bundle


def _require_signature(bundle: Bundle, trusted: Mapping[str, PublicKey] | None) -> None:
    # Both build on this module, and most bundles are opened without them.
    from edge_lsla.bundle.signing import verify_signature
    from edge_lsla.bundle.trust import trusted_keys

    verify_signature(bundle, trusted_keys() if trusted is None else trusted)


def _manifest(values: Any) -> Manifest:
    try:
        return Manifest.from_dict(values)
    except BundleError as error:  # who opens a bundle cannot correct its fields
        raise BundleError(error.what, error.where, "rebuild the bundle") from error


def _verify_entries(archive: Archive, manifest: Manifest) -> bytes | None:
    """Refuse entries other than the manifest's; return the bytes of the one that it cannot name, the signature."""
    digests = manifest.digests_of_entries()
    for name in archive.entries:
        if name not in digests and name not in (MANIFEST, SIGNATURE):
            raise BundleError("entry is not named by the manifest", name, "rebuild the bundle")
    sizes = {artifact.name: artifact.size for artifact in manifest.artifacts}
    sizes |= dict.fromkeys(manifest.golden.entries, npy_size("<f4", _logits_shape(manifest)))
    sizes[GOLDEN_INPUTS] = npy_size("|u1", _pixels_shape(manifest))
    for name, digest in digests.items():
        if name not in archive.entries:
            raise BundleError("entry that the manifest names is missing", name, "copy the bundle again or rebuild it")
        if archive.entries[name].size != sizes[name] or archive.sha256(name) != digest:
            raise BundleError("entry is not the one that the manifest names", name, "rebuild the bundle")
    return archive.read(SIGNATURE, MAX_SIGNATURE_BYTES) if SIGNATURE in archive.entries else None


def _pixels_shape(manifest: Manifest) -> tuple[int, ...]:
    return (manifest.golden.images, manifest.preprocessing.image_size, manifest.preprocessing.image_size, 3)


def _logits_shape(manifest: Manifest) -> tuple[int, ...]:
    return (manifest.golden.images, len(manifest.labels))


@contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file in every refusal, and turn whatever Python raises on absurd contents into one."""
    try:
        yield
    except (BundleError, CompatibilityError) as error:
        if str(error.where).startswith(str(Path(path))):
            raise
        raise type(error)(error.what, f"{path}: {error.where}", error.remedy) from error
    except (
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        EOFError,
        OSError,
        MemoryError,
        RecursionError,
    ) as error:
        raise BundleError("bundle cannot be read", path, f"rebuild it ({type(error).__name__}: {error})") from error
