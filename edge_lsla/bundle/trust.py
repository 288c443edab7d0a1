"""Whom this machine trusts: keys in a folder, bundles built here, and who else could have written either.

Native code (engines, plugin libraries) comes only from the installation, this machine's engine cache, a bundle built on
this machine, or a bundle that a trusted key signed; `allows_native_code` decides about bundles.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path

from edge_lsla.bundle.bundle import Bundle
from edge_lsla.bundle.signing import PublicKey, read_public_key, verify_signature
from edge_lsla.errors import EdgeLslaError, InputError, TrustError, UsageError

KEYS_VARIABLE = "EDGE_LSLA_TRUSTED_KEYS"
LEDGER_VARIABLE = "EDGE_LSLA_BUILT_HERE"
LEDGER = "record of bundles built here"
MOST_KEYS = 1000
MOST_REMEMBERED = 1024  # bundles built here; an older one is built again, or signed

_DIGEST = re.compile("[0-9a-f]{64}")


def trusted_keys_folder() -> Path:
    """Return the folder of trusted keys: EDGE_LSLA_TRUSTED_KEYS, or ~/.config/edge-lsla/trusted-keys.

    Raises:
        UsageError: this user has no home folder.
    """
    return user_folder(KEYS_VARIABLE, "XDG_CONFIG_HOME", ".config", "trusted-keys")


def trusted_keys(folder: Path | None = None) -> dict[str, PublicKey]:
    """Return the keys that this user trusts, by key id: every `*.pub` file of the folder; none where it is absent.

    Raises:
        TrustError: somebody else can change the folder or a key in it, or owns it.
        InputError: a `.pub` file is no key, or there are too many.
        MissingComponentError: there is a key, and cryptography is absent, which reads it.
    """
    folder = (trusted_keys_folder() if folder is None else folder).absolute()
    if not os.path.lexists(folder):
        return {}
    check_folder(folder, "folder of trusted keys", KEYS_VARIABLE, private=False)
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".pub")
    except OSError as error:
        raise InputError("folder of trusted keys cannot be read", folder, error.strerror or str(error)) from error
    if len(files) > MOST_KEYS:
        raise InputError(f"more than {MOST_KEYS} trusted keys", folder, "remove those that are no longer needed")
    found = {}
    for path in files:
        key = read_public_key(path)
        _check_status(path.lstat(), path, "trusted key", private=False)
        found[key.key_id] = key
    return found


def allows_native_code(bundle: Bundle, built_here: bool, trusted: Mapping[str, PublicKey] | None = None) -> None:
    """Return if the native code in a bundle may be loaded; the place for its other sources is the engine cache.

    Args:
        bundle: open.
        built_here: what `was_built_here(bundle.manifest.sha256())` says.
        trusted: by key id; None: those that `trusted_keys` finds.

    Raises:
        TrustError: it was not built here, and no trusted key signed it, or somebody else can change the keys. Where the
            record of bundles built here proves nothing, the message says that too.
        BundleError: its `signature.json` is malformed.
        InputError, MissingComponentError: see `trusted_keys`.
    """
    if built_here:
        return
    try:
        # An unsigned bundle is refused before any key is read: that needs no cryptography.
        known = {} if bundle.signature is None else trusted_keys() if trusted is None else trusted
        verify_signature(bundle, known)
    except EdgeLslaError as error:
        what, remedies = error.what, [error.remedy or "take another bundle"]
        if problem := _ledger_problem():
            what += f", and whether it was built here cannot be known ({problem.what}: {problem.where})"
            remedies.append(problem.remedy or "correct it")
        if isinstance(error, TrustError):
            what = f"native code is loaded only from a bundle built here or signed by a trusted key; {what}"
            remedies += _building_here(bundle)
        raise type(error)(what, error.where, "; or ".join(remedies)) from error


def _building_here(bundle: Bundle) -> list[str]:
    """Return what to type to have an engine of one's own, where the bundle has a graph to build it from."""
    artifacts = bundle.manifest.artifacts
    graphs = {one.backend for one in artifacts if one.kind == "onnx" and one.backend != "onnxruntime"}
    engines = [one.backend for one in artifacts if one.kind == "engine" and one.backend in graphs]
    backend = next(iter([*engines, *sorted(graphs)]), None)
    if backend is None:
        return []
    command = f"build-engine {shlex.quote(str(bundle.path))} --backend {backend} -o NEW.lsla"
    return [f"build an engine here from its ONNX: `{command}`"]


def remember_built_here(digest: str, folder: Path | None = None) -> None:
    """Record that a bundle was built on this machine; a record is an empty file, so none can spoil another.

    Args:
        digest: the manifest's (`Manifest.sha256`), which signing does not change.
        folder: where; None: ~/.local/state/edge-lsla/built-here, readable by its owner only.

    Raises:
        TrustError: others can reach the folder.
        EdgeLslaError: it cannot be written.
    """
    if not _DIGEST.fullmatch(digest):
        raise UsageError("not the SHA-256 of a manifest", ascii(digest[:80]), "give Manifest.sha256()")
    folder = make_private_folder(_ledger_folder() if folder is None else folder, LEDGER, LEDGER_VARIABLE)
    try:
        handle = os.open(folder / digest, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        try:
            os.utime(handle)
        finally:
            os.close(handle)
        by_age = sorted((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name) for entry in os.scandir(folder))
    except FileNotFoundError:
        return  # another process forgot an old one while this one looked; it has forgotten enough
    except OSError as error:
        reason = f"{error.strerror or error}; free some space, or set {LEDGER_VARIABLE} to another folder"
        raise EdgeLslaError("cannot record that the bundle was built here", folder, reason) from error
    for _, name in by_age[:-MOST_REMEMBERED]:
        with contextlib.suppress(OSError):  # a folder that somebody put there, or another process was quicker
            (folder / name).unlink()


def try_to_remember(digest: str, bundle: str | os.PathLike[str], folder: Path | None = None) -> str | None:
    """Do `remember_built_here`; return None, or the sentence to warn with: the bundle is written all the same.

    Args:
        digest, folder: see `remember_built_here`.
        bundle: the file, for the sentence.
    """
    try:
        remember_built_here(digest, folder)
    except EdgeLslaError as error:
        sign = f"`bundle sign {shlex.quote(str(bundle))} --key KEY.pem`"
        return (
            f"this machine will not know that it built {bundle}, and engines in it will be run here only once it is "
            f"signed: {sign} ({error})"
        )
    return None


def was_built_here(digest: str, folder: Path | None = None) -> bool:
    """Say whether `remember_built_here` recorded this manifest's digest, where others cannot have done so."""
    try:
        folder = (_ledger_folder() if folder is None else folder).absolute()
        return (
            _DIGEST.fullmatch(digest) is not None
            and _ledger_problem(folder) is None
            and stat.S_ISREG((folder / digest).lstat().st_mode)
        )
    except (EdgeLslaError, OSError):  # no home folder, or no record
        return False


def _ledger_problem(folder: Path | None = None) -> EdgeLslaError | None:
    """Return why the record proves nothing; an absent one is merely empty."""
    try:
        folder = (_ledger_folder() if folder is None else folder).absolute()
        if os.path.lexists(folder):
            check_folder(folder, LEDGER, LEDGER_VARIABLE, private=True)
    except EdgeLslaError as error:
        return error
    return None


def _ledger_folder() -> Path:
    return user_folder(LEDGER_VARIABLE, "XDG_STATE_HOME", ".local/state", "built-here")


def user_folder(variable: str, base_variable: str, base: str, name: str) -> Path:
    """Return the folder that `variable` names, or `name` below edge-lsla's folder of the XDG base directory.

    Source: XDG Base Directory Specification 0.8; a base that is not absolute is ignored.

    Raises:
        UsageError: this user has no home folder.
    """
    if own := os.environ.get(variable):
        return Path(own)
    given = Path(os.environ.get(base_variable) or "")
    try:
        place = given if given.is_absolute() else Path.home() / base
    except RuntimeError as error:
        raise UsageError("this user has no home folder", name, f"set {variable} to a folder") from error
    return place / "edge-lsla" / name


def make_private_folder(folder: Path, what: str, variable: str) -> Path:
    """Return the folder's absolute path, made, with its parents, for its owner only; see `check_folder`.

    Raises:
        TrustError: it is there, and others can reach it.
        EdgeLslaError: it cannot be made.
    """
    folder = folder.absolute()
    for one in reversed([folder, *folder.parents]):
        try:
            if not os.path.lexists(one):
                one.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            remedy = f"set {variable} to another folder"
            raise EdgeLslaError(f"cannot make the {what} ({error.strerror})", one, remedy) from error
    check_folder(folder, what, variable, private=True)
    return folder


def check_folder(folder: Path, what: str, variable: str, *, private: bool) -> None:
    """Refuse a folder that somebody else could have written to, or exchanged for another.

    Args:
        folder: absolute.
        what: what it is, for the message.
        variable: of the environment, which moves it, for the message.
        private: whether others may not even read it.

    Raises:
        TrustError: it is a symbolic link or no folder, belongs to another user, is open to others, or a folder above
            it is.
    """
    try:
        status = folder.lstat()
        if stat.S_ISLNK(status.st_mode):
            raise TrustError(f"{what} is a symbolic link", folder, "put a folder in its place")
        if not stat.S_ISDIR(status.st_mode):
            raise TrustError(f"{what} is not a folder", folder, "put a folder in its place")
        _check_status(status, folder, what, private=private)
        above = Path(os.path.realpath(folder.parent))
        for one in (above, *above.parents):
            status = one.stat()
            closed = 0o002 if _is_private_group(status) else 0o022
            # In a sticky folder, such as /tmp, others cannot rename what is not theirs; its owner can.
            closed = 0 if status.st_mode & stat.S_ISVTX else closed
            _check_status(status, one, f"folder above the {what}", private=False, closed=closed)
    except OSError as error:
        raise TrustError(
            f"{what} cannot be examined ({error.strerror or error})", folder, f"set {variable} to another folder"
        ) from error
    except TrustError as error:
        raise TrustError(error.what, error.where, f"{error.remedy}, or set {variable} to another folder") from error


def _check_status(status: os.stat_result, path: Path, what: str, *, private: bool, closed: int | None = None) -> None:
    """Refuse another owner, and the permission bits `closed`: by default what others need to reach or change it."""
    mine = {os.geteuid()} if private else {os.geteuid(), 0}
    if status.st_uid not in mine:
        remedy = f"have it owned by user {os.geteuid()}"
        raise TrustError(f"{what} belongs to another user, {status.st_uid}", path, remedy)
    if status.st_mode & ((0o077 if private else 0o022) if closed is None else closed):
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        remedy = f"run: chmod {'go-rwx' if private else 'go-w'} {shlex.quote(str(path))}"
        raise TrustError(f"{what} is open to other users (mode {mode})", path, remedy)


def _is_private_group(status: os.stat_result) -> bool:
    """Say whether a folder's group is its owner's alone: Ubuntu's default lets such a group write."""
    try:
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    alone = owner.pw_name == group.gr_name and owner.pw_gid == group.gr_gid and set(group.gr_mem) <= {owner.pw_name}
    return alone and status.st_uid == os.geteuid()
