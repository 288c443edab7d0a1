"""What a disk may hold after a power cut.

The disk that is modelled keeps only what POSIX promises: content up to the last fsync or fdatasync of the file, names
up to the last fsync of their folder. Of everything later each 512-byte sector, each change of size and each change of a
name may be there or not, in any order; a file that grew may hold garbage where nothing arrived.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field

from benchmarks.recorded_writes import Operation


@dataclass
class File:
    """A file's durable content, and what was done to it since: (offset, data), or (size, None)."""

    durable: bytes = b""
    later: list[tuple[int, bytes | None]] = field(default_factory=list)


@dataclass
class Folder:
    """A folder's names, those that are durable, and what was done since: (name, node, former name)."""

    live: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)
    later: list[tuple[str, File | Folder | None, str]] = field(default_factory=list)


class Disk:
    """A folder on a disk, while operations happen to it; it begins empty."""

    def __init__(self) -> None:
        self.root = Folder()

    def apply(self, operation: Operation) -> None:
        """Let an operation happen."""
        parent, name = self._parent(operation.path)
        if operation.kind in ("create", "open"):
            if name not in parent.live:
                assert operation.kind == "create"
                self._name(parent, name, File())
            elif operation.cut:
                self._file(operation.path).later.append((0, None))
        elif operation.kind == "folder":
            self._name(parent, name, Folder())
        elif operation.kind == "remove":
            del parent.live[name]
            parent.later.append((name, None, ""))
        elif operation.kind == "rename":
            other, new = self._parent(operation.target)
            node = parent.live.pop(name)
            other.live[new] = node
            if other is parent:
                parent.later.append((new, node, name))
            else:  # two folders: the worst disk does one and not the other
                other.later.append((new, node, ""))
                parent.later.append((name, None, ""))
        elif operation.kind == "write":
            self._file(operation.path).later.append((operation.offset, operation.data))
        elif operation.kind == "resize":
            self._file(operation.path).later.append((operation.offset, None))
        elif operation.kind == "sync":
            self._sync(operation.path)

    def after_cut(self, content: str, names: str, choice: random.Random) -> dict[str, bytes | None]:
        """Return what the disk may hold if the power goes now: paths to content, folders to None.

        Args:
            content, names: what becomes of what was not synced: "lost", "kept" or "torn" (`choice` decides).
            choice: of "torn".
        """
        found: dict[str, bytes | None] = {}
        self._collect(self.root, "", content, names, choice, found)
        return found

    def _collect(
        self, folder: Folder, path: str, content: str, names: str, choice: random.Random, found: dict[str, bytes | None]
    ) -> None:
        for name, node in _names(folder, names, choice).items():
            place = f"{path}{name}"
            if isinstance(node, Folder):
                found[place] = None
                self._collect(node, place + "/", content, names, choice, found)
            else:
                found[place] = _content(node, content, choice)

    def _parent(self, path: str) -> tuple[Folder, str]:
        folder: File | Folder = self.root
        *above, name = path.split("/")
        for each in above:
            assert isinstance(folder, Folder)
            folder = folder.live[each]
        assert isinstance(folder, Folder)
        return folder, name

    def _file(self, path: str) -> File:
        parent, name = self._parent(path)
        node = parent.live[name]
        assert isinstance(node, File)
        return node

    @staticmethod
    def _name(parent: Folder, name: str, node: File | Folder) -> None:
        parent.live[name] = node
        parent.later.append((name, node, ""))

    def _sync(self, path: str) -> None:
        parent, name = self._parent(path)
        node: File | Folder = self.root if path == "" else parent.live[name]
        if isinstance(node, Folder):
            node.durable, node.later = dict(node.live), []
        else:
            node.durable, node.later = _content(node, "kept", random.Random(0)), []


def _names(folder: Folder, fate: str, choice: random.Random) -> dict[str, File | Folder]:
    if fate == "kept":
        return folder.live
    names = copy.copy(folder.durable)
    if fate == "lost":
        return names
    in_order = choice.random() < 0.5  # as a journal would keep them
    end = choice.randint(0, len(folder.later))
    for index, (name, node, other) in enumerate(folder.later):
        if (index >= end) if in_order else (choice.random() < 0.5):
            continue
        if node is None:
            names.pop(name, None)
        elif not other:
            names[name] = node
        elif other in names:  # a rename happens as a whole or not at all
            names[name] = names.pop(other)
    return names


def _content(file: File, fate: str, choice: random.Random) -> bytes:
    if fate == "lost" or not file.later:
        return file.durable
    data = bytearray(file.durable)
    sector = 1 << 62 if fate == "kept" else choice.choice((512, 4096))
    in_order, end = choice.random() < 0.3, choice.randint(0, len(file.later))
    likely = choice.choice((0.1, 0.5, 0.9))
    for index, (offset, written) in enumerate(file.later):
        kept = fate == "kept" or (index < end if in_order else True)
        if written is None:
            if kept and (fate == "kept" or choice.random() < likely):
                del data[offset:]
                data.extend(bytes(offset - len(data)))
            continue
        if not kept:
            continue
        if fate != "kept" and choice.random() < 0.5:
            _grow(data, offset + len(written), choice)
        position = 0
        while position < len(written):
            size = min(len(written) - position, sector - (offset + position) % sector)
            if fate == "kept" or choice.random() < likely:
                begin = offset + position
                if begin > len(data):
                    data.extend(bytes(begin - len(data))) if fate == "kept" else _grow(data, begin, choice)
                data[begin : begin + size] = written[position : position + size]
            position += size
    return bytes(data)


def _grow(data: bytearray, size: int, choice: random.Random) -> None:
    """Let a file have grown without its content: zeros, or what lay on the disk before."""
    missing = size - len(data)
    if missing > 0:
        data.extend(bytes(missing) if choice.random() < 0.5 else choice.randbytes(missing))
