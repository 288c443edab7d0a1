"""What programs did to a folder, recorded by strace: every system call that changes it, with its data."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CALLS = (
    "openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,fdatasync,"
    "sync_file_range,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,"
    "copy_file_range,sendfile,mmap"
)
# Not of the store: held in memory only, without content, or of no meaning after a power cut.
PASSED_OVER = ("-shm", ".lock", ".reserve")
_BEGUN = re.compile(r"^(?:\[pid +)?(\d+)\]? +(\w+)\((.*) <unfinished \.\.\.>$")
_ENDED = re.compile(r"^(?:\[pid +)?(\d+)\]? +<\.\.\. (\w+) resumed>(.*)$")
_LINE = re.compile(r"^(?:\[pid +)?(\d+)\]? +(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+)(?:<(.*)>)?")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_HANDLE = re.compile(r"(\d+|AT_FDCWD)<([^>]*)>")


@dataclass(frozen=True)
class Operation:
    """One system call that succeeded, on a path below the folder ("" is the folder itself).

    Attributes:
        kind: "create", "open", "write", "resize", "sync", "rename", "remove", "folder" or "said" (written to standard
            output: what the program promised).
        path: of what.
        data: written, or said.
        offset: where it was written, or the new size.
        target: the new path of "rename".
        cut: "open" emptied the file.
    """

    kind: str
    path: str = ""
    data: bytes = b""
    offset: int = 0
    target: str = ""
    cut: bool = False


def record_writes(command: Sequence[str], folder: Path, log: Path) -> list[Operation]:
    """Run a command, and return what it and its children did below `folder`, in order.

    Raises:
        AssertionError: they did something that this module does not model.
    """
    strace = [
        "strace",
        "-f",
        "-y",
        "-xx",
        "-s",
        "16777216",
        "-e",
        f"trace={CALLS}",
        "-e",
        "signal=none",
        "-o",
        str(log),
    ]
    subprocess.run([*strace, *command], check=True, stdout=subprocess.DEVNULL)
    return list(_operations(log, str(folder.resolve())))


def _operations(log: Path, root: str) -> Iterator[Operation]:
    positions: dict[tuple[str, str], int] = {}
    with log.open(encoding="ascii") as lines:
        for line in _whole_lines(lines, root):
            found = _LINE.match(line)
            if found is None:
                continue
            process, call, arguments, result, opened = found.groups()
            if result.startswith("-"):
                continue
            strings = [bytes.fromhex(each.replace("\\x", "")) for each in _STRING.findall(arguments)]
            handle = _HANDLE.match(arguments)
            place = _decoded(handle[2]) if handle else ""
            if call == "write" and handle and handle[1] == "1" and strings:
                yield Operation("said", data=strings[0])
                continue
            if call == "openat":
                positions[process, result] = 0
            yield from _translate(
                call, arguments, strings, place, _decoded(opened or ""), root, positions, (process, handle)
            )


def _whole_lines(lines: Iterable[str], root: str) -> Iterator[str]:
    """Join what strace parts because something else happened during a system call, which counts when it has ended.

    Of two threads that are in calls on the folder at once, one syncs a file that the other leaves alone, or opens what
    is there.
    """
    begun: dict[str, str] = {}  # by process, the line's first part
    for line in lines:
        if (last := _ENDED.match(line)) is not None:
            yield begun.pop(last[1]) + last[3] + "\n"
            continue
        if root.encode().hex() in line.replace("\\x", ""):
            for other in begun.values():
                assert _side_by_side(line, other), f"written while it is synced: {other[:300]}, {line[:300]}"
        if (first := _BEGUN.match(line)) is not None:
            begun[first[1]] = line.partition(" <unfinished")[0]
        else:
            yield line


def _side_by_side(line: str, other: str) -> bool:
    """Say whether the order of two calls makes no difference."""
    for one, another in ((line, other), (other, line)):
        place = _HANDLE.search(one)
        if "openat(" in one and "O_CREAT" not in one and "O_TRUNC" not in one:
            return True
        if "sync(" in one and place is not None and f"<{place[2]}>" not in another:
            return True
    return False


def _translate(
    call: str,
    arguments: str,
    strings: list[bytes],
    place: str,
    opened: str,
    root: str,
    positions: dict[tuple[str, str], int],
    who: tuple[str, re.Match[str] | None],
) -> Iterator[Operation]:
    """Turn a call into an operation, where it is one on the folder."""
    if call in ("openat", "open", "creat"):
        path = _below(opened, root)
        if path and ("O_CREAT" in arguments or "O_TRUNC" in arguments):
            assert "O_APPEND" not in arguments, arguments
            yield Operation("create" if "O_CREAT" in arguments else "open", path, cut="O_TRUNC" in arguments)
        return
    if call in ("rename", "unlink", "mkdir", "rmdir", "unlinkat", "mkdirat", "renameat", "renameat2"):
        names = [each.decode() for each in strings]
        assert all(each.startswith("/") for each in names) or root not in place, arguments[:200]
        paths = [_below(each, root) for each in names]
        if not paths[0]:
            return
        kind = "rename" if "rename" in call else "folder" if "mkdir" in call else "remove"
        yield Operation(kind, paths[0], target=(paths[1] or "") if kind == "rename" else "")
        return
    path = _below(place, root)
    if call == "mmap":
        handles = [_below(_decoded(each[1]), root) for each in _HANDLE.findall(arguments)]
        written = "PROT_WRITE" in arguments and "MAP_SHARED" in arguments
        assert not written or not any(handles), f"written through memory: {handles}"
    elif path is not None and call in ("fsync", "fdatasync"):
        yield Operation("sync", path)
    elif path and call == "write":
        process, handle = who
        assert handle is not None
        key = (process, handle[1])
        yield Operation("write", path, strings[0], positions[key])
        positions[key] += len(strings[0])
    elif path and call == "pwrite64":
        yield Operation("write", path, strings[0], int(arguments.rpartition(", ")[2], 0))
    elif path and call == "ftruncate":
        yield Operation("resize", path, offset=int(arguments.rpartition(", ")[2], 0))
    else:
        assert not path, f"not modelled: {call} on {path}"


def _decoded(text: str) -> str:
    return bytes.fromhex(text.replace("\\x", "")).decode() if text.startswith("\\x") else text


def _below(path: str, root: str) -> str | None:
    """Return a path below the folder, "" for the folder, None for what is elsewhere or passed over."""
    if path == root:
        return ""
    if not path.startswith(root + "/") or path.endswith(PASSED_OVER):
        return None
    return path[len(root) + 1 :]
