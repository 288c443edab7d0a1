"""Keys and signatures: what they cover, and every way in which they are refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundle_parts as parts
import pytest

from edge_lsla.bundle import (
    PublicKey,
    SigningKey,
    generate_key,
    open_bundle,
    read_private_key,
    read_public_key,
    sign_bundle,
    strict_json,
    verify_signature,
)
from edge_lsla.bundle.signing import DOMAIN, LARGEST_KEY_FILE
from edge_lsla.errors import (
    BundleError,
    CompatibilityError,
    EdgeLslaError,
    InputError,
    MissingComponentError,
    TrustError,
    UsageError,
)

FULL_DISK = """
import resource, sys
from edge_lsla.bundle import read_private_key, sign_bundle
from edge_lsla.errors import EdgeLslaError
key = read_private_key(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
try:
    sign_bundle(sys.argv[1], key)
except EdgeLslaError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    path = tmp_path_factory.mktemp("keys") / "release.pem"
    generate_key(path)
    return read_private_key(path)


@pytest.fixture(scope="module")
def trusted(key: SigningKey) -> dict[str, PublicKey]:
    return {key.public.key_id: key.public}


@pytest.fixture(scope="module")
def signed(key: SigningKey, bundle_file: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("signed") / "demo.lsla"
    sign_bundle(bundle_file, key, path)
    return path.read_bytes()


def with_signature(data: bytes, signature: bytes) -> bytes:
    """Exchange signature.json as somebody without a key could."""
    entries = {**parts.contents(data), "signature.json": signature}
    first, *rest = entries
    return parts.from_entries({name: entries[name] for name in (first, *sorted(rest))})


def edited(data: bytes, **changes: Any) -> bytes:
    values = {**json.loads(parts.contents(data)["signature.json"]), **changes}
    return with_signature(data, strict_json.dump({name: value for name, value in values.items() if value is not None}))


def refusal(path: Path, data: bytes, trusted: dict[str, PublicKey]) -> EdgeLslaError:
    path.write_bytes(data)
    with pytest.raises(EdgeLslaError) as caught, open_bundle(path) as bundle:
        verify_signature(bundle, trusted)
    with pytest.raises(type(caught.value)) as required:
        open_bundle(path, require_signature=True, trusted=trusted)
    assert str(required.value) == str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_key_pair_is_two_files_of_which_one_is_private(tmp_path: Path) -> None:
    os.umask(umask := os.umask(0))
    public = generate_key(tmp_path / "release.pem")
    assert {one.name for one in tmp_path.iterdir()} == {"release.pem", "release.pub"}
    assert stat.S_IMODE((tmp_path / "release.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "release.pub").stat().st_mode) == 0o644 & ~umask
    assert public.key_id == hashlib.sha256(public.raw).hexdigest()
    assert read_public_key(tmp_path / "release.pub") == public
    again = read_private_key(tmp_path / "release.pem").public
    assert (again.key_id, again.raw) == (public.key_id, public.raw)
    assert generate_key(tmp_path / "other").path == tmp_path / "other.pub"


@pytest.mark.parametrize("there", ["release.pem", "release.pub"])
def test_no_key_is_overwritten_and_no_half_pair_is_left(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("precious")
    with pytest.raises(UsageError, match=f"exists already: .*{there}; choose another name"):
        generate_key(tmp_path / "release.pem")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [(there, "precious")]


def test_a_link_is_not_followed_when_a_key_is_written(tmp_path: Path) -> None:
    (tmp_path / "release.pem").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="exists already"):
        generate_key(tmp_path / "release.pem")
    assert not (tmp_path / "elsewhere").exists()


def test_names_and_places_that_cannot_hold_a_key(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot end in \.pub"):
        generate_key(tmp_path / "a.pub")
    with pytest.raises(UsageError, match="No such file or directory"):
        generate_key(tmp_path / "no" / "a.pem")
    with pytest.raises(UsageError, match="passphrase is empty"):
        generate_key(tmp_path / "a.pem", "")
    assert not list(tmp_path.iterdir())


def test_a_passphrase_is_needed_to_open_the_key_that_it_encrypts(tmp_path: Path) -> None:
    public = generate_key(tmp_path / "a.pem", "Käfer 🐞")
    assert b"ENCRYPTED" in (tmp_path / "a.pem").read_bytes()
    assert read_private_key(tmp_path / "a.pem", "Käfer 🐞").public.raw == public.raw
    with pytest.raises(UsageError, match=r"is encrypted: .*; give its passphrase"):
        read_private_key(tmp_path / "a.pem")
    with pytest.raises(UsageError, match="passphrase is wrong"):
        read_private_key(tmp_path / "a.pem", "kaefer")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o777])
def test_a_private_key_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    generate_key(tmp_path / "a.pem")
    (tmp_path / "a.pem").chmod(mode)
    with pytest.raises(TrustError, match=r"others can .*a\.pem; run: chmod 600") as caught:
        read_private_key(tmp_path / "a.pem")
    assert caught.value.exit_code == 4


def openssl_pem(kind: str) -> tuple[bytes, bytes]:
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric import ec, x25519

    made = {"ec": lambda: ec.generate_private_key(ec.SECP256R1()), "x25519": x25519.X25519PrivateKey.generate}[kind]()
    pem, plain = forms.Encoding.PEM, forms.NoEncryption()
    public = made.public_key().public_bytes(pem, forms.PublicFormat.SubjectPublicKeyInfo)
    return made.private_bytes(pem, forms.PrivateFormat.PKCS8, plain), public


@pytest.mark.parametrize("kind", ["ec", "x25519", "empty", "noise", "huge", "text", "swapped", "cut"])
def test_files_that_are_no_ed25519_keys(tmp_path: Path, kind: str) -> None:
    generate_key(tmp_path / "good.pem")
    good = (tmp_path / "good.pem").read_bytes(), (tmp_path / "good.pub").read_bytes()
    private, public = {
        "empty": (b"", b""),
        "noise": (os.urandom(500), os.urandom(500)),
        "huge": (good[0] * 1000, good[1] * 1000),
        "text": (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"ssh-ed25519 AAAA me@here\n"),
        "swapped": good[::-1],
        "cut": (good[0][:60], good[1][:60]),
    }.get(kind) or openssl_pem(kind)
    assert max(len(good[0]), len(good[1])) < LARGEST_KEY_FILE // 50
    for name, data, read in (("a.pem", private, read_private_key), ("a.pub", public, read_public_key)):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
        with pytest.raises(InputError, match="larger than" if kind == "huge" else "not an Ed25519") as caught:
            read(tmp_path / name)
        assert caught.value.exit_code == 2
        assert str(tmp_path / name) in str(caught.value)


def test_key_paths_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing", Path("/dev/zero"), Path("a\0b")):
        for read in (read_private_key, read_public_key):
            with pytest.raises(InputError, match="give the file itself"):
                read(path)
    with pytest.raises(InputError, match="symbolic link"):
        read_public_key(tmp_path / "link")


def test_a_public_key_file_holds_one_key_and_nothing_else(tmp_path: Path) -> None:
    generate_key(tmp_path / "a.pem")
    for extra in (b"ssh-rsa AAAA\n", (tmp_path / "a.pub").read_bytes()):
        (tmp_path / "two.pub").write_bytes((tmp_path / "a.pub").read_bytes() + extra)
        with pytest.raises(InputError, match="not an Ed25519 public key"):
            read_public_key(tmp_path / "two.pub")


def test_the_signature_covers_the_manifest_and_leaves_every_other_entry_as_it_is(
    bundle_bytes: bytes, signed: bytes, key: SigningKey, trusted: dict[str, PublicKey], tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    before, after = parts.contents(bundle_bytes), parts.contents(signed)
    found = json.loads(after.pop("signature.json"))
    assert after == before
    assert list(found) == ["algorithm", "key_id", "public_key", "signature"]
    # By hand, from the description in docs/bundle.md.
    assert DOMAIN == b"edge-lsla bundle signature 1: manifest\0"
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(found["public_key"]))
    public.verify(bytes.fromhex(found["signature"]), DOMAIN + before["manifest.json"])
    assert found["key_id"] == hashlib.sha256(bytes.fromhex(found["public_key"])).hexdigest() == key.public.key_id
    (tmp_path / "a.lsla").write_bytes(signed)
    with open_bundle(tmp_path / "a.lsla", require_signature=True, trusted=trusted) as bundle:
        assert verify_signature(bundle, trusted).key_id == key.public.key_id
        assert bundle.manifest.sha256() == hashlib.sha256(before["manifest.json"]).hexdigest()


def test_the_same_contents_and_key_always_give_the_same_file(
    bundle_bytes: bytes, signed: bytes, key: SigningKey, tmp_path: Path
) -> None:
    path = tmp_path / "a.lsla"
    path.write_bytes(bundle_bytes)
    sign_bundle(path, key)
    assert path.read_bytes() == signed == parts.from_entries(parts.contents(signed))
    sign_bundle(path, key)
    assert path.read_bytes() == signed


def test_another_signature_replaces_the_first(signed: bytes, trusted: dict[str, PublicKey], tmp_path: Path) -> None:
    path = tmp_path / "a.lsla"
    path.write_bytes(signed)
    other = generate_key(tmp_path / "other.pem")
    sign_bundle(path, read_private_key(tmp_path / "other.pem"))
    with open_bundle(path) as bundle:
        assert verify_signature(bundle, {other.key_id: other}).key_id == other.key_id
    assert list(parts.contents(path.read_bytes())).count("signature.json") == 1
    error = refusal(path, path.read_bytes(), trusted)
    assert (type(error), error.exit_code) == (TrustError, 4)
    assert f"signed by an unknown key, {other.key_id}" in str(error)


def other_key(data: bytes, tmp_path: Path) -> bytes:
    """Sign changed contents with a key of one's own, and claim the trusted one's id."""
    own = generate_key(tmp_path / "own.pem")
    with open_bundle(tmp_path / "x.lsla") as bundle:
        signature = read_private_key(own.path.with_suffix(".pem")).sign(bundle.manifest)
    return edited(data, public_key=signature.public_key, signature=signature.signature)


REFUSALS: dict[str, tuple[Callable[[bytes, Path], bytes], type[EdgeLslaError], str]] = {
    "unsigned": (lambda d, t: parts.write(t / "u.lsla"), TrustError, "is not signed: .*; take a signed one, or sign"),
    "other algorithm": (lambda d, t: edited(d, algorithm="rsa"), TrustError, "algorithm is 'rsa', not 'ed25519'"),
    "escapes": (lambda d, t: edited(d, algorithm="\x1b[31m" + "x" * 999), TrustError, r"is '\\x1b\[31mx{35}', not"),
    "other bundle": (lambda d, t: parts.fix_crcs(d.replace(b"vit_lsla_demo", b"vit_lsla_dema")), TrustError, "changed"),
    "flipped": (lambda d, t: edited(d, signature="0" * 128), TrustError, "which was changed after signing"),
    "low order": (
        lambda d, t: edited(d, public_key="00" * 32, key_id=hashlib.sha256(bytes(32)).hexdigest()),
        TrustError,
        "changed after signing|unknown key",
    ),
    "stolen id": (other_key, BundleError, "malformed"),
    "upper case": (lambda d, t: edited(d, signature="A" * 128), BundleError, "malformed"),
    "short": (lambda d, t: edited(d, signature="0" * 126), BundleError, "malformed"),
    "long": (lambda d, t: edited(d, signature="0" * 130), BundleError, "malformed"),
    "missing": (lambda d, t: edited(d, key_id=None), BundleError, "malformed"),
    "extra": (lambda d, t: edited(d, comment="x"), BundleError, "malformed"),
    "number": (lambda d, t: edited(d, signature=7), BundleError, "malformed"),
    "algorithm is a list": (lambda d, t: edited(d, algorithm=["ed25519"]), BundleError, "malformed"),
    "list": (lambda d, t: with_signature(d, b"[]"), BundleError, "malformed"),
    "empty": (lambda d, t: with_signature(d, b""), BundleError, "malformed"),
    "noise": (lambda d, t: with_signature(d, os.urandom(400)), BundleError, "malformed"),
    "deep": (lambda d, t: with_signature(d, b"[" * 60_000), BundleError, "malformed"),
    "twice": (lambda d, t: with_signature(d, b'{"algorithm": "a", "algorithm": "b"}'), BundleError, "malformed"),
    "huge": (lambda d, t: with_signature(d, bytes(70_000)), BundleError, "larger than 65,536 bytes"),
    "spaced": (
        lambda d, t: with_signature(d, parts.contents(d)["signature.json"] + b"\n"),
        BundleError,
        "malformed",
    ),
    "compact": (
        lambda d, t: with_signature(d, json.dumps(json.loads(parts.contents(d)["signature.json"])).encode()),
        BundleError,
        "malformed",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_each_failure_has_its_own_sentence(
    signed: bytes, trusted: dict[str, PublicKey], tmp_path: Path, name: str
) -> None:
    change, kind, match = REFUSALS[name]
    path = tmp_path / "x.lsla"
    path.write_bytes(signed)
    error = refusal(path, change(signed, tmp_path), trusted)
    assert type(error) is kind
    assert error.exit_code == {TrustError: 4, BundleError: 2}[kind]

    assert re.search(match, str(error)), str(error)


def test_the_malleable_form_of_a_signature_is_refused(
    signed: bytes, trusted: dict[str, PublicKey], tmp_path: Path
) -> None:
    """RFC 8032 5.1.7: S + L would satisfy the equation too, and give a second signature without the key."""
    order = 2**252 + 27742317777372353535851937790883648493
    whole = bytes.fromhex(json.loads(parts.contents(signed)["signature.json"])["signature"])
    larger = int.from_bytes(whole[32:], "little") + order
    assert larger < 2**256
    error = refusal(
        tmp_path / "x.lsla", edited(signed, signature=(whole[:32] + larger.to_bytes(32, "little")).hex()), trusted
    )
    assert "changed after signing" in str(error)


def test_a_signature_does_not_verify_without_its_domain(
    signed: bytes, key: SigningKey, trusted: dict[str, PublicKey], tmp_path: Path
) -> None:
    bare = key._key.sign(parts.contents(signed)["manifest.json"])
    assert "changed after signing" in str(refusal(tmp_path / "x.lsla", edited(signed, signature=bare.hex()), trusted))


def test_every_flipped_byte_is_refused_or_changes_nothing(
    signed: bytes, trusted: dict[str, PublicKey], tmp_path: Path
) -> None:
    """Of the file as it is, and with all checksums made anew, which anybody can."""
    path, resealed = tmp_path / "x.lsla", 0
    original = parts.contents(signed)
    path.write_bytes(signed)
    with path.open("r+b", buffering=0) as file:
        for position in range(len(signed)):
            flipped = bytearray(signed)
            flipped[position] ^= 1 << position % 8
            os.pwrite(file.fileno(), flipped, 0)  # in place: a file system may wait for the disk when one is replaced
            with pytest.raises(BundleError):
                open_bundle(path)
            if position >= len(signed) - 64:
                continue
            inside = any(first <= position < end for _, _, first, end, _ in parts.records(signed))
            os.pwrite(file.fileno(), (parts.fix_crcs if inside else parts.reseal)(bytes(flipped)), 0)
            try:
                with open_bundle(path, require_signature=True, trusted=trusted) as bundle:
                    held = {one.name: bundle.read(one) for one in bundle.manifest.artifacts}
                    assert held.items() <= original.items()
                    assert bundle.manifest.text() == original["manifest.json"]
            except (BundleError, TrustError, CompatibilityError):  # the last: a later format version
                resealed += 1
    assert resealed == len(signed) - 64


def test_what_is_not_a_bundle_is_not_signed(key: SigningKey, bundle_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.lsla"
    for damaged in (b"", bundle_bytes[:-1], parts.reseal(bundle_bytes.replace(b"Orin", b"Orim"))):
        path.write_bytes(damaged)
        with pytest.raises(BundleError):
            sign_bundle(path, key)
        assert path.read_bytes() == damaged
    path.write_bytes(bundle_bytes)
    with pytest.raises(UsageError, match="no such folder"):
        sign_bundle(path, key, tmp_path / "no" / "b.lsla")
    assert [one.name for one in tmp_path.iterdir()] == ["a.lsla"]


def test_a_full_disk_leaves_the_bundle_as_it_was(bundle_bytes: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "bundles"
    folder.mkdir()
    (folder / "a.lsla").write_bytes(bundle_bytes)
    generate_key(tmp_path / "a.pem")
    command = [sys.executable, "-c", FULL_DISK, str(folder / "a.lsla"), str(tmp_path / "a.pem")]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1, done.stderr
    assert "cannot write" in done.stdout
    assert [(one.name, one.read_bytes()) for one in folder.iterdir()] == [("a.lsla", bundle_bytes)]


def test_without_cryptography_the_sentence_says_how_to_get_it(
    signed: bytes, bundle_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    (tmp_path / "a.lsla").write_bytes(signed)
    for need in (
        lambda: generate_key(tmp_path / "a.pem"),
        lambda: open_bundle(tmp_path / "a.lsla", require_signature=True, trusted={}),
    ):
        with pytest.raises(MissingComponentError, match="pip install cryptography") as caught:
            need()
        assert caught.value.exit_code == 3
    with open_bundle(tmp_path / "a.lsla") as bundle:  # none is needed where none is required
        assert bundle.signature is not None
    with pytest.raises(TrustError, match="is not signed"):
        open_bundle(bundle_file, require_signature=True, trusted={})
