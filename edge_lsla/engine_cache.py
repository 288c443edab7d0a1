"""Engines that this device built, kept in a folder that only its owner can reach, named by all that decides an engine.

An entry is one file: the SHA-256 of what follows, the digest of its key, the length of the facts, the facts as JSON,
the engine. Whoever writes one holds a lock on it, which the system releases when the process ends, however it does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_lsla import __version__
from edge_lsla.atomic import LEFTOVER_SECONDS, atomic_path
from edge_lsla.bundle import MAX_BUNDLE_BYTES
from edge_lsla.bundle.trust import make_private_folder, user_folder
from edge_lsla.device import Device
from edge_lsla.errors import EdgeLslaError, UsageError

VARIABLE = "EDGE_LSLA_ENGINE_CACHE"
FORMAT = 3  # of the entries, and of the key
LIMIT_BYTES = 2 * 2**30  # about twenty engines of vit_lsla_t
LARGEST_FACTS = 2**20

_SUFFIX = ".engine"
_DIGEST_BYTES = 32
_HEAD = 2 * _DIGEST_BYTES + 4


@dataclass(frozen=True)
class EngineOptions:
    """What a user may choose of an engine, whatever graph it is built from.

    Attributes:
        batch: the largest that it takes; it is built to be best at half of that.
        workspace_bytes: most scratch memory; None: TensorRT's default.
        optimisation_level: 0 builds fastest, 5 runs fastest.
    """

    batch: int = 1
    workspace_bytes: int | None = None
    optimisation_level: int = 3

    @property
    def profiles(self) -> tuple[tuple[int, int, int], ...]:
        """Smallest, best-served and largest batch."""
        return ((1, max(1, self.batch // 2), self.batch),)


@dataclass(frozen=True)
class EngineKey:
    """Everything that decides an engine.

    Attributes:
        onnx_sha256: of the typed ONNX, hexadecimal.
        backend: "tensorrt" or "tensorrt-rtx".
        version: of TensorRT, in full.
        gpu, capability, driver, cuda, l4t, machine: see `Device`.
        plugin_sha256, index_digest: of the plugin library and its index; None where none is loaded.
        profiles: of each, batch sizes (smallest, best-served, largest).
        workspace_bytes: most scratch memory; None: TensorRT's default.
        optimisation_level: 0 to 5.
        targets: capabilities that it is built for, such as ("sm86",); empty: this GPU's.
        edge_lsla: whose builder it is.
        format: of this key.
    """

    onnx_sha256: str
    backend: str
    version: str
    gpu: str | None
    capability: int | None
    driver: str | None
    cuda: str | None
    l4t: str | None
    machine: str
    plugin_sha256: str | None
    index_digest: str | None
    profiles: tuple[tuple[int, int, int], ...]
    workspace_bytes: int | None
    optimisation_level: int
    targets: tuple[str, ...] = ()
    edge_lsla: str = __version__
    format: int = FORMAT

    @classmethod
    def of(
        cls,
        device: Device,
        *,
        onnx_sha256: str,
        backend: str,
        options: EngineOptions,
        targets: tuple[str, ...] = (),
        plugin: bool,
    ) -> EngineKey:
        """Return the key for an engine that this device builds; `plugin`: whether it uses the plugin library.

        Raises:
            UsageError: the device lacks the backend, or the plugin library.
        """
        version = {"tensorrt": device.tensorrt, "tensorrt-rtx": device.tensorrt_rtx}.get(backend)
        if version is None:
            raise UsageError("this device has no such backend to build engines", backend, "run `doctor`")
        if plugin and device.plugin is None:
            raise UsageError("this device has no plugin library", backend, "make it: `plugin build`")
        library = device.plugin if plugin else None
        return cls(
            onnx_sha256=onnx_sha256,
            backend=backend,
            version=version,
            gpu=device.gpu,
            capability=device.capability,
            driver=device.driver,
            cuda=device.cuda,
            l4t=device.l4t,
            machine=device.machine,
            plugin_sha256=library.sha256 if library else None,
            index_digest=library.index_digest if library else None,
            profiles=options.profiles,
            workspace_bytes=options.workspace_bytes,
            optimisation_level=options.optimisation_level,
            targets=targets,
        )

    def digest(self) -> str:
        """Return the entry's name: the SHA-256 of all fields, hexadecimal."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class CachedEngine:
    """An engine, and the facts that were recorded with it."""

    data: bytes
    facts: dict[str, str]


class EngineCache:
    """The engines of this user on this device; processes and threads may share the folder.

    Args:
        folder: None: EDGE_LSLA_ENGINE_CACHE, or ~/.cache/edge-lsla/engines. It is made, for its owner only.
        limit_bytes: what the entries may take together; those unused for longest go first.
        notice: told, in a sentence, of an entry that was damaged and removed.

    Raises:
        TrustError: the folder is a symbolic link, belongs to another user, or others can reach it.
        EdgeLslaError: it cannot be made.
    """

    def __init__(
        self,
        folder: Path | None = None,
        limit_bytes: int = LIMIT_BYTES,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        place = user_folder(VARIABLE, "XDG_CACHE_HOME", ".cache", "engines") if folder is None else folder
        self.folder = make_private_folder(place, "engine cache", VARIABLE)
        self._limit, self._notice = limit_bytes, notice

    def get(self, key: EngineKey) -> bytes | None:
        """Return an engine's bytes, or None: it is not there, or was damaged and is now removed."""
        found = self.load(key)
        return None if found is None else found.data

    def load(self, key: EngineKey) -> CachedEngine | None:
        """Do `get`, with the facts.

        Raises:
            EdgeLslaError: the entry does not fit in memory.
        """
        path = self._path(key)
        try:
            found = _read(path, key)
        except FileNotFoundError:
            return None
        except MemoryError as error:
            raise EdgeLslaError("engine does not fit in memory", path, "close other programs") from error
        except OSError as error:
            self._notice(f"a cached engine cannot be read ({error.strerror}): {path}; it is built again")
            return None
        except ValueError as error:
            try:
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
                gone = "and is removed"
            except OSError:  # a folder with something in it: whose it is, is not known
                gone = "and has to be removed by hand"
            self._notice(f"a cached engine {error} {gone}: {path}; it is built again")
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the order in which entries go; not every file system keeps the time of reading
        return found

    def put(self, key: EngineKey, data: bytes, facts: Mapping[str, str]) -> None:
        """Keep an engine, whole or not at all, then remove those unused for longest; never the one just put.

        Args:
            key: what decides it.
            data: the serialised plan.
            facts: what it was built with and for, as an artifact's `versions`.

        Raises:
            EdgeLslaError: the disk is full or fails; nothing is left of the entry, and the engine itself can be used.
        """
        path = self._path(key)
        described = json.dumps(dict(facts), sort_keys=True).encode()
        if len(described) > LARGEST_FACTS or not data:
            raise UsageError("engine is empty, or its facts too large", path, "build it again")
        if path.is_dir():
            raise EdgeLslaError("engine cannot be kept: a folder has its name in the engine cache", path, "remove it")
        head = bytes.fromhex(key.digest()) + len(described).to_bytes(4, "little") + described
        digest = hashlib.sha256(head)
        digest.update(data)
        try:
            # Unlocked only once it has its name.
            with contextlib.ExitStack() as held, contextlib.ExitStack() as writing:
                with self._alone():  # until it is locked it looks like a dead writer's
                    self._sweep()
                    temporary = writing.enter_context(atomic_path(path))
                    temporary.chmod(0o600)
                    handle = os.open(temporary, os.O_RDWR | os.O_CLOEXEC)
                    held.callback(os.close, handle)
                    with contextlib.suppress(OSError):  # a network file system without locks
                        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with temporary.open("wb") as file:
                    file.writelines((digest.digest(), head, data))
        except EdgeLslaError as error:
            remedy = f"{(error.remedy or 'it failed').partition(';')[0]}; free some space, or set {VARIABLE}"
            raise EdgeLslaError("engine cannot be kept in the engine cache", self.folder, remedy) from error
        self._make_room(path)

    def _path(self, key: EngineKey) -> Path:
        return self.folder / f"{key.digest()}{_SUFFIX}"

    def _sweep(self) -> None:
        """Remove what writers left that were killed."""
        for one in _listed(self.folder):
            if ".part" in one.name:
                with contextlib.suppress(OSError):  # a living writer's, or removed meanwhile by another process
                    if _is_abandoned(Path(one.path)):
                        Path(one.path).unlink()

    def _make_room(self, newest: Path) -> None:
        with self._alone():
            entries = []
            for one in _listed(self.folder):
                if one.name.endswith(_SUFFIX) and not one.name.startswith("."):
                    with contextlib.suppress(OSError):  # removed meanwhile by another process
                        status = one.stat(follow_symlinks=False)
                        entries.append((status.st_mtime_ns, status.st_size, one.name))
            excess = sum(size for _, size, _ in entries) - self._limit
            for _, size, name in sorted(entries):
                if excess > 0 and name != newest.name:
                    with contextlib.suppress(OSError):
                        (self.folder / name).unlink()
                        excess -= size

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold a lock that the system releases when the process ends, so that two do not both make room."""
        try:
            handle = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            yield  # too much room is made at worst
            return
        try:
            with contextlib.suppress(OSError):  # a network file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # somebody removed the cache: there is nothing to tidy
        return []


def _is_abandoned(path: Path) -> bool:
    """Say whether nobody holds the lock of an unfinished entry; without locks its age decides.

    Raises:
        OSError: it cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return time.time() - os.fstat(handle).st_mtime > LEFTOVER_SECONDS
    finally:
        os.close(handle)


def _read(path: Path, key: EngineKey) -> CachedEngine:
    """Read and verify an entry; ValueError says what is wrong with it."""
    if path.is_symlink():
        raise ValueError("is a symbolic link")
    if path.is_dir():
        raise ValueError("is a folder")
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise ValueError("is not a file that only its owner can reach")
        head = file.read(_HEAD)
        length = int.from_bytes(head[2 * _DIGEST_BYTES :], "little")
        if len(head) != _HEAD or length > LARGEST_FACTS or status.st_size > MAX_BUNDLE_BYTES:
            raise ValueError("is damaged")
        described, data = file.read(length), file.read()
    digest = hashlib.sha256(head[_DIGEST_BYTES:])
    digest.update(described)
    digest.update(data)
    if digest.digest() != head[:_DIGEST_BYTES]:
        raise ValueError("is damaged")
    if head[_DIGEST_BYTES : 2 * _DIGEST_BYTES].hex() != key.digest():  # whole, and moved here from its own name
        raise ValueError("is damaged (it is another one)")
    try:
        facts = json.loads(described)
    except RecursionError:
        facts = None
    if not isinstance(facts, dict) or not data or not all(isinstance(value, str) for value in facts.values()):
        raise ValueError("is damaged")
    return CachedEngine(data, facts)
