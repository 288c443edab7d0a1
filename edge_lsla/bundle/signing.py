"""Signatures of bundles: Ed25519 (RFC 8032) over the manifest, which names the SHA-256 of everything else.

What is signed: `DOMAIN`, then the bytes of `manifest.json`. The manifest names every other entry with its SHA-256; an
entry that it does not name is refused, `signature.json` alone excepted; and names and contents decide every byte of the
file. So nothing in a signed bundle can be changed, added or taken away, but the signature itself. `DOMAIN` keeps a
signature that this key gave to any other kind of file from being taken for one of a bundle.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from edge_lsla.atomic import atomic_path
from edge_lsla.bundle import strict_json
from edge_lsla.bundle.archive import Archive, fill_archive
from edge_lsla.bundle.bundle import Bundle, open_bundle
from edge_lsla.bundle.layout import MANIFEST
from edge_lsla.bundle.manifest import SIGNATURE, Manifest
from edge_lsla.errors import BundleError, InputError, MissingComponentError, TrustError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ALGORITHM = "ed25519"
DOMAIN = b"edge-lsla bundle signature 1: manifest\0"
LARGEST_KEY_FILE = 16_384  # bytes; a key of this kind takes about 120

_HEX = {"key_id": 64, "public_key": 64, "signature": 128}  # characters


@dataclass(frozen=True)
class PublicKey:
    """What a signature is verified with.

    Attributes:
        key_id: SHA-256 of `raw`, hexadecimal.
        raw: the 32 bytes of RFC 8032.
        path: the file that it was read from.
    """

    key_id: str
    raw: bytes
    path: Path


@dataclass(frozen=True)
class Signature:
    """What `signature.json` holds, in this order.

    Attributes:
        algorithm: "ed25519".
        key_id: SHA-256 of the raw public key, hexadecimal.
        public_key: 32 bytes, hexadecimal.
        signature: 64 bytes, hexadecimal.
    """

    algorithm: str
    key_id: str
    public_key: str
    signature: str

    def text(self) -> bytes:
        """Return the bytes of `signature.json`: there is exactly one text for a signature."""
        return strict_json.dump(dataclasses.asdict(self))


class SigningKey:
    """A private key, opened; `read_private_key` gives it.

    Attributes:
        public: its public half.
    """

    def __init__(self, key: Ed25519PrivateKey, path: Path) -> None:
        raw = key.public_key().public_bytes_raw()
        self.public = PublicKey(hashlib.sha256(raw).hexdigest(), raw, path)
        self._key = key

    def sign(self, manifest: Manifest) -> Signature:
        """Sign a manifest; the same key and manifest always give the same signature."""
        signed = self._key.sign(DOMAIN + manifest.text())
        return Signature(ALGORITHM, self.public.key_id, self.public.raw.hex(), signed.hex())


def generate_key(path: str | os.PathLike[str], passphrase: str | None = None) -> PublicKey:
    """Make a key pair: PEM files, the private one (PKCS #8) for its owner only, the public one beside it as `.pub`.

    Args:
        path: of the private key, such as `release.pem`; nothing is overwritten.
        passphrase: encrypts the private key; None leaves it readable for whoever reads the file.

    Raises:
        UsageError: a file exists already or cannot be written, or the passphrase is empty.
        MissingComponentError: cryptography is absent.
    """
    library = _library()
    private = Path(path)
    if private.suffix == ".pub" or not private.name:
        raise UsageError("a private key's name cannot end in .pub", private, "write release.pem, for example")
    public = private.with_suffix(".pub") if private.suffix in (".pem", ".key") else Path(f"{private}.pub")
    if passphrase == "":
        raise UsageError("the passphrase is empty", private, "give one, or none at all")
    key = library.ed25519.Ed25519PrivateKey.generate()
    forms = library.serialization
    locked = forms.NoEncryption() if passphrase is None else forms.BestAvailableEncryption(passphrase.encode())
    written: list[Path] = []
    try:
        for file, mode, data in (
            (private, 0o600, key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, locked)),
            (public, 0o644, _public_pem(key.public_key())),
        ):
            handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, mode)
            written.append(file)
            with os.fdopen(handle, "wb") as opened:
                opened.write(data)
                opened.flush()
                os.fsync(handle)
    except BaseException as error:
        for file in written:  # a private key without its other half would block the next attempt
            file.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            raise UsageError("a file of this name exists already", error.filename, "choose another name") from error
        if isinstance(error, (OSError, ValueError)):
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"the key cannot be written ({reason})", private, "choose another place") from error
        raise
    return read_public_key(public)


def read_private_key(path: str | os.PathLike[str], passphrase: str | None = None) -> SigningKey:
    """Open a private key that `generate_key` wrote, or any Ed25519 key in PEM.

    Raises:
        InputError: the file cannot be read or is no such key.
        UsageError: the passphrase is missing or wrong.
        TrustError: others can read the file.
        MissingComponentError: cryptography is absent.
    """
    library, path = _library(), Path(path)
    data, status = _read_key_file(path, "private key", follow=True)
    if status.st_mode & 0o077:
        raise TrustError("others can read or change the private key", path, f"run: chmod 600 {path}")
    if b"ENCRYPTED" in data and not passphrase:
        raise UsageError("the private key is encrypted", path, "give its passphrase")
    secret = passphrase.encode() if passphrase and b"ENCRYPTED" in data else None
    try:
        key = library.serialization.load_pem_private_key(data, secret)
    except (ValueError, TypeError, library.UnsupportedAlgorithm) as error:
        if secret is not None:
            raise UsageError("the passphrase is wrong, or the key damaged", path, "try again") from error
        raise _no_key("private", path) from error
    if not isinstance(key, library.ed25519.Ed25519PrivateKey):
        raise _no_key("private", path)
    return SigningKey(key, path)


def read_public_key(path: Path) -> PublicKey:
    """Read a `.pub` file that `generate_key` wrote; whether it is to be trusted is for the caller to know.

    Raises:
        InputError: the file cannot be read, is a symbolic link, or is no Ed25519 public key in PEM.
        MissingComponentError: cryptography is absent.
    """
    library = _library()
    data, _ = _read_key_file(path, "public key")
    try:
        key = library.serialization.load_pem_public_key(data)
    except (ValueError, TypeError, library.UnsupportedAlgorithm) as error:
        raise _no_key("public", path) from error
    # One form only: a file with a second key or any other text in it would be read in part.
    if not isinstance(key, library.ed25519.Ed25519PublicKey) or _public_pem(key).split() != data.split():
        raise _no_key("public", path)
    raw = key.public_bytes_raw()
    return PublicKey(hashlib.sha256(raw).hexdigest(), raw, path)


def _read_key_file(path: Path, kind: str, *, follow: bool = False) -> tuple[bytes, os.stat_result]:
    """Return the bytes of a small regular file, no symbolic link unless `follow`, and the status of that very file."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # a named pipe would wait for a writer
    try:
        handle = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{kind} is not a regular file", path, "give the file itself")
            data = file.read(LARGEST_KEY_FILE + 1)
    except (OSError, ValueError) as error:
        link = not follow and path.is_symlink()
        reason = "it is a symbolic link" if link else getattr(error, "strerror", None) or str(error)
        raise InputError(f"{kind} cannot be read ({reason})", path, "give the file itself") from error
    if len(data) > LARGEST_KEY_FILE:
        raise InputError(f"{kind} is larger than {LARGEST_KEY_FILE:,} bytes", path, "give the right file")
    return data, status


def sign_bundle(
    path: str | os.PathLike[str], key: SigningKey, output: str | os.PathLike[str] | None = None
) -> Signature:
    """Add a signature to a bundle, or replace the one that it has; every other entry stays as it is, byte for byte.

    Args:
        path: the bundle, which is verified first.
        key: the signer's.
        output: where to write; None replaces `path`. Written atomically, after it was opened as a reader would.

    Raises:
        BundleError: `path` is not a bundle, damaged, or changes meanwhile.
        EdgeLslaError: see `atomic_path`.
    """
    with open_bundle(path) as bundle, Archive(path) as archive:
        if archive.digest != bundle.digest:
            raise BundleError("bundle changed while it was being signed", path, "try again")
        signature = key.sign(bundle.manifest)
        with atomic_path(path if output is None else output) as temporary:
            fill_archive(temporary, _Signed(archive, signature.text()))
            with open_bundle(temporary) as written:
                verify_signature(written, {key.public.key_id: key.public})
    return signature


class _Signed(Mapping[str, "bytes | Path"]):
    """Entries of an archive with another signature, each read when it is asked for, so that memory holds one."""

    def __init__(self, archive: Archive, signature: bytes) -> None:
        self._archive, self._signature = archive, signature

    def __getitem__(self, name: str) -> bytes | Path:
        return self._signature if name == SIGNATURE else self._archive.read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([MANIFEST, *self._archive.entries, SIGNATURE]))

    def __len__(self) -> int:
        return len(list(iter(self)))


def verify_signature(bundle: Bundle, trusted: Mapping[str, PublicKey]) -> Signature:
    """Return a bundle's signature if one of the keys made it.

    The manifest that `bundle` holds in memory is verified, not the file, which could have changed since.

    Args:
        bundle: open.
        trusted: by key id; see `trusted_keys`.

    Raises:
        TrustError: unsigned, signed with another algorithm, not the signature of this manifest, or by an unknown key.
        BundleError: `signature.json` is not one.
        MissingComponentError: cryptography is absent.
    """
    if bundle.signature is None:
        remedy = "take a signed one, or sign it: `bundle sign BUNDLE --key KEY.pem`"
        raise TrustError("bundle is not signed", bundle.path, remedy)
    signature = parse_signature(bundle.signature, f"{bundle.path}: {SIGNATURE}")
    library = _library()
    public = library.ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature.public_key))
    try:
        public.verify(bytes.fromhex(signature.signature), DOMAIN + bundle.manifest.text())
    except library.InvalidSignature as error:
        remedy = "take the bundle again from who signed it"
        raise TrustError(
            "signature is not of this bundle, which was changed after signing", bundle.path, remedy
        ) from error
    key = trusted.get(signature.key_id)
    if key is None or key.raw.hex() != signature.public_key:
        remedy = "if you trust its owner, put the .pub file that he gives you among your trusted keys"
        raise TrustError(f"bundle is signed by an unknown key, {signature.key_id}", bundle.path, remedy)
    return signature


def parse_signature(data: bytes, where: object) -> Signature:
    """Read the bytes of `signature.json`; whose signature it is, and of what, is not verified.

    Raises:
        BundleError: it is not one in the only form that it has.
        TrustError: it is of another algorithm.
    """
    malformed = BundleError("signature is malformed", where, "sign the bundle again")
    try:
        values: Any = strict_json.parse(data)
    except BundleError as error:
        raise malformed from error
    algorithm = values.get("algorithm") if isinstance(values, dict) else None
    if isinstance(algorithm, str) and algorithm != ALGORITHM:  # first: its fields may differ in all the rest
        shown = ascii(algorithm[:40])
        raise TrustError(f"signature's algorithm is {shown}, not {ALGORITHM!r}", where, "sign it with this edge-lsla")
    if algorithm != ALGORITHM or values.keys() != {field.name for field in dataclasses.fields(Signature)}:
        raise malformed
    for name, length in _HEX.items():
        if not isinstance(values[name], str) or not re.fullmatch(f"[0-9a-f]{{{length}}}", values[name]):
            raise malformed
    signature = Signature(**values)
    own = hashlib.sha256(bytes.fromhex(signature.public_key)).hexdigest()
    if signature.text() != data or signature.key_id != own:
        raise malformed
    return signature


def _public_pem(key: Any) -> bytes:
    forms = _library().serialization
    pem: bytes = key.public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    return pem


def _no_key(half: str, path: Path) -> InputError:
    return InputError(f"not an Ed25519 {half} key in PEM", path, "give a file that `bundle keygen` wrote")


def _library() -> SimpleNamespace:
    try:
        from cryptography import exceptions
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        remedy = "pip install cryptography"
        raise MissingComponentError(
            "signatures need the library cryptography, which is absent", None, remedy
        ) from error
    return SimpleNamespace(
        ed25519=ed25519,
        serialization=serialization,
        InvalidSignature=exceptions.InvalidSignature,
        UnsupportedAlgorithm=exceptions.UnsupportedAlgorithm,
    )
