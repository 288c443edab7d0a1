"""The engine cache: real files, permissions, processes and damage."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_lsla.device import Device, PluginLibrary
from edge_lsla.engine_cache import CachedEngine, EngineCache, EngineKey, EngineOptions
from edge_lsla.errors import EdgeLslaError, TrustError, UsageError

ROOT = Path(__file__).parents[1]
FACTS = {"tensorrt": "10.3.0", "gpu": "Orin"}
KEY = EngineKey(
    onnx_sha256="a" * 64,
    backend="tensorrt",
    version="10.3.0",
    gpu="Orin",
    capability=87,
    driver="540.4.0",
    cuda="12.6",
    l4t="36.4.3",
    machine="aarch64",
    plugin_sha256="b" * 64,
    index_digest="c" * 64,
    profiles=((1, 4, 8),),
    workspace_bytes=2**28,
    optimisation_level=3,
    targets=("sm87",),
)


def numbered(number: int) -> EngineKey:
    return dataclasses.replace(KEY, onnx_sha256=f"{number:064x}")


@pytest.fixture
def notices() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, notices: list[str]) -> EngineCache:
    return EngineCache(tmp_path / "engines", limit_bytes=5000, notice=notices.append)


def entry(cache: EngineCache, key: EngineKey = KEY) -> Path:
    return cache.folder / f"{key.digest()}.engine"


def test_what_was_put_is_got(cache: EngineCache, notices: list[str]) -> None:
    assert cache.get(KEY) is None
    cache.put(KEY, b"engine", FACTS)
    assert cache.get(KEY) == b"engine"
    assert cache.load(KEY) == CachedEngine(b"engine", FACTS)
    cache.put(KEY, b"another", {})
    assert cache.load(KEY) == CachedEngine(b"another", {})
    assert entry(cache).stat().st_mode & 0o777 == 0o600
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert notices == []
    with pytest.raises(UsageError, match="engine is empty"):
        cache.put(KEY, b"", {})


CHANGED = {
    "onnx_sha256": "d" * 64,
    "backend": "tensorrt-rtx",
    "version": "10.3.0.30",
    "gpu": None,
    "capability": 86,
    "driver": "540.4.1",
    "cuda": "12.7",
    "l4t": "36.4.4",
    "machine": "x86_64",
    "plugin_sha256": None,
    "index_digest": "d" * 64,
    "profiles": ((1, 4, 8), (16, 16, 16)),
    "workspace_bytes": None,
    "optimisation_level": 4,
    "targets": (),
    "edge_lsla": "99",
    "format": 4,
}


def test_everything_that_decides_an_engine_decides_its_name(cache: EngineCache) -> None:
    assert {field.name for field in dataclasses.fields(EngineKey)} == set(CHANGED)
    others = [dataclasses.replace(KEY, **{name: value}) for name, value in CHANGED.items()]
    assert len({one.digest() for one in (KEY, *others)}) == len(others) + 1
    cache.put(KEY, b"engine", FACTS)
    assert all(cache.get(one) is None for one in others)
    assert cache.get(dataclasses.replace(KEY)) == b"engine"


def test_the_key_of_a_device() -> None:
    plugin = PluginLibrary(Path("p.so"), "b" * 64, "aarch64", 1, "c" * 64, (87,), 80)
    device = Device("aarch64", 64, "Orin", 87, "540.4.0", "12.6", "36.4.3", tensorrt="10.3.0", plugin=plugin)

    def key(device: Device, backend: str = "tensorrt", plugin: bool = True) -> EngineKey:
        return EngineKey.of(
            device,
            onnx_sha256="a" * 64,
            backend=backend,
            options=EngineOptions(8, 2**28, 3),
            targets=("sm87",),
            plugin=plugin,
        )

    assert key(device) == KEY
    assert key(device, plugin=False) == dataclasses.replace(KEY, plugin_sha256=None, index_digest=None)
    with pytest.raises(UsageError, match="no such backend to build engines: tensorrt-rtx; run `doctor`"):
        key(device, "tensorrt-rtx")
    with pytest.raises(UsageError, match=r"no plugin library: .*plugin build"):
        key(dataclasses.replace(device, plugin=None))


def test_every_flipped_byte_removes_the_entry_with_a_notice(cache: EngineCache, notices: list[str]) -> None:
    cache.put(KEY, b"engine", FACTS)
    whole = entry(cache).read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        entry(cache).write_bytes(damaged)
        entry(cache).chmod(0o600)
        notices.clear()
        assert cache.get(KEY) is None, position
        assert not entry(cache).exists()
        assert notices == [f"a cached engine is damaged and is removed: {entry(cache)}; it is built again"]
    assert cache.get(KEY) is None
    assert len(notices) == 1  # what is not there is nothing to tell


KEYED = bytes.fromhex(KEY.digest())


def sealed(head: bytes, facts: bytes = b"", data: bytes = b"") -> bytes:
    """An entry whose digest is right, whatever is in it."""
    length = len(facts).to_bytes(4, "little") if facts else b""
    return hashlib.sha256(head + length + facts + data).digest() + head + length + facts + data


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda p: p.write_bytes(b""), "is damaged"),
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:-1]), "is damaged"),
    "longer": (lambda p: p.write_bytes(p.read_bytes() + b"x"), "is damaged"),
    "noise": (lambda p: p.write_bytes(os.urandom(9999)), "is damaged"),
    "states huge facts": (lambda p: p.write_bytes(bytes(32) + b"\xff" * 40), "is damaged"),
    "of an older format": (lambda p: p.write_bytes(sealed(b"\2\0\0\0{}engine")), "is damaged"),
    "facts too deep": (lambda p: p.write_bytes(sealed(KEYED, b"[" * 10**5 + b"]" * 10**5, b"engine")), "is damaged"),
    "facts are a list": (lambda p: p.write_bytes(sealed(KEYED, b"[]", b"engine")), "is damaged"),
    "facts are no texts": (lambda p: p.write_bytes(sealed(KEYED, b'{"a": 1}', b"engine")), "is damaged"),
    "no engine": (lambda p: p.write_bytes(sealed(KEYED, b"{}", b"")), "is damaged"),
    "an empty folder": (lambda p: p.unlink() or p.mkdir(), "is a folder and is removed"),
    "huge": (lambda p: os.truncate(p, 2**33), "is damaged"),
    "group reads it": (lambda p: p.chmod(0o640), "is not a file that only its owner can reach"),
    "all write it": (lambda p: p.chmod(0o602), "is not a file that only its owner can reach"),
    "link": (lambda p: p.rename(p.parent / "x") and p.symlink_to(p.parent / "x"), "is a symbolic link"),
    "pipe": (lambda p: p.unlink() or os.mkfifo(p, 0o600), "is not a file"),
    "foreign": (lambda p: os.chown(p, 54321, -1), "is not a file that only its owner can reach"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_entries_that_others_made_or_damaged_are_removed(cache: EngineCache, notices: list[str], name: str) -> None:
    if name == "foreign" and os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    change, match = HOSTILE[name]
    cache.put(KEY, b"engine", FACTS)
    change(entry(cache))
    assert cache.get(KEY) is None
    assert len(notices) == 1
    assert match in notices[0]
    assert not os.path.lexists(entry(cache))
    cache.put(KEY, b"again", FACTS)
    assert cache.get(KEY) == b"again"


def test_an_entry_under_anothers_name_is_refused(cache: EngineCache, notices: list[str]) -> None:
    cache.put(KEY, b"engine", FACTS)
    other = dataclasses.replace(KEY, gpu="another")
    shutil.copy2(entry(cache), entry(cache, other))
    assert cache.load(other) is None
    where = entry(cache, other)
    assert notices == [f"a cached engine is damaged (it is another one) and is removed: {where}; it is built again"]
    assert not where.exists()
    assert cache.get(KEY) == b"engine"


def test_a_folder_in_an_entrys_place_is_a_notice_and_then_a_sentence(cache: EngineCache, notices: list[str]) -> None:
    (entry(cache) / "x").mkdir(parents=True)
    assert cache.get(KEY) is None
    assert notices == [f"a cached engine is a folder and has to be removed by hand: {entry(cache)}; it is built again"]
    with pytest.raises(EdgeLslaError, match=r"a folder has its name in the engine cache: .*\.engine; remove it"):
        cache.put(KEY, b"engine", FACTS)
    assert (entry(cache) / "x").is_dir()


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o777, 0o1777])
def test_a_folder_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    EngineCache(tmp_path / "engines").put(KEY, b"engine", FACTS)
    (tmp_path / "engines").chmod(mode)
    with pytest.raises(
        TrustError, match=r"engine cache is open to other users .*; run: chmod go-rwx .*engines"
    ) as caught:
        EngineCache(tmp_path / "engines")
    assert caught.value.exit_code == 4


def test_links_files_and_open_folders_above_are_refused(tmp_path: Path) -> None:
    EngineCache(tmp_path / "engines")
    (tmp_path / "link").symlink_to(tmp_path / "engines")
    (tmp_path / "file").write_text("")
    (tmp_path / "file").chmod(0o600)
    (tmp_path / "open").mkdir()
    EngineCache(tmp_path / "open" / "engines")
    (tmp_path / "open").chmod(0o777)
    for name, match in (
        ("link", "symbolic link"),
        ("file", "not a folder"),
        ("open/engines", "folder above the engine"),
    ):
        with pytest.raises(TrustError, match=match):
            EngineCache(tmp_path / name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    EngineCache(tmp_path / "engines")
    os.chown(tmp_path / "engines", 54321, -1)
    with pytest.raises(TrustError, match="engine cache belongs to another user, 54321"):
        EngineCache(tmp_path / "engines")


def test_the_folder_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_LSLA_ENGINE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert EngineCache().folder == tmp_path / "cache/edge-lsla/engines"
    monkeypatch.setenv("EDGE_LSLA_ENGINE_CACHE", str(tmp_path / "own"))
    assert EngineCache().folder == tmp_path / "own"


def age(cache: EngineCache, number: int, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(entry(cache, numbered(number)), (then, then))


def test_the_longest_unused_go_first(cache: EngineCache) -> None:
    for number in range(4):
        cache.put(numbered(number), bytes(1000), FACTS)
        age(cache, number, 100 - number)
    assert cache.get(numbered(0)) is not None  # used: now the newest
    cache.put(numbered(4), bytes(1000), FACTS)
    kept = [number for number in range(5) if entry(cache, numbered(number)).exists()]
    assert kept == [0, 2, 3, 4]
    total = sum(one.stat().st_size for one in cache.folder.iterdir())
    assert total <= 5000


def test_what_was_just_put_stays_however_large_or_old_its_time(cache: EngineCache) -> None:
    cache.put(numbered(0), bytes(1000), FACTS)
    age(cache, 0, -3600)  # the clock was set back since
    cache.put(numbered(1), bytes(9000), FACTS)
    assert not entry(cache, numbered(0)).exists()
    assert cache.get(numbered(1)) == bytes(9000)


def test_leftovers_of_killed_writers_go_at_once_and_strangers_stay(cache: EngineCache) -> None:
    for name in (".x.engine.abcd1234.part.engine", "README", ".y.engine.abcd1234.part.engine"):
        (cache.folder / name).write_bytes(bytes(9000))
    with (cache.folder / ".y.engine.abcd1234.part.engine").open("rb") as writer:  # it lives
        fcntl.flock(writer, fcntl.LOCK_EX)
        cache.put(KEY, b"engine", FACTS)
        names = {one.name for one in cache.folder.iterdir()}
        assert names == {"README", ".y.engine.abcd1234.part.engine", entry(cache).name, "lock"}
    cache.put(KEY, b"engine", FACTS)
    assert {one.name for one in cache.folder.iterdir()} == {"README", entry(cache).name, "lock"}


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_engine_cache import KEY
from edge_lsla import atomic
from edge_lsla.engine_cache import EngineCache

fsync = os.fsync
def stop(handle):
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    print("written", flush=True)
    sys.stdin.readline()
    fsync(handle)
atomic.os.fsync = stop
EngineCache(Path(sys.argv[1])).put(KEY, bytes(5000), {})
"""


def test_a_killed_writers_file_goes_and_a_working_ones_stays(cache: EngineCache) -> None:
    """Stopped where the file is written and has not yet its name."""
    command = [sys.executable, "-c", KILLED, str(cache.folder)]
    assert subprocess.run([*command, "killed"], cwd=ROOT, check=False).returncode == -signal.SIGKILL
    (left,) = cache.folder.glob(".*.part.engine")
    with subprocess.Popen(
        [*command, "waits"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        assert not left.exists()
        (unfinished,) = cache.folder.glob(".*.part.engine")
        cache.put(numbered(1), b"engine", FACTS)
        assert unfinished.exists()
        writer.communicate("go on\n", timeout=30)
    assert writer.returncode == 0
    assert cache.get(KEY) == bytes(5000)
    assert not list(cache.folder.glob(".*.part.engine"))


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_engine_cache import KEY
from edge_lsla.engine_cache import EngineCache
from edge_lsla.errors import EdgeLslaError
cache = EngineCache(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
try:
    cache.put(KEY, bytes(2000), {})
except EdgeLslaError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_full_disk_is_one_sentence_and_leaves_the_old_entry(cache: EngineCache) -> None:
    cache.put(KEY, b"old", FACTS)
    before = sorted(one.name for one in cache.folder.iterdir())
    command = [sys.executable, "-c", FULL_DISK, str(cache.folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("\n") == 1
    assert f"engine cannot be kept in the engine cache: {cache.folder}; " in done.stdout
    assert "free some space, or set EDGE_LSLA_ENGINE_CACHE" in done.stdout
    assert sorted(one.name for one in cache.folder.iterdir()) == before
    assert cache.get(KEY) == b"old"


PROCESS = """
import random, sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_engine_cache import numbered
from edge_lsla.engine_cache import EngineCache
notices = []
cache = EngineCache(Path(sys.argv[1]), limit_bytes=20_000, notice=notices.append)
random.seed(sys.argv[2])
hits = 0
for _ in range(150):
    number = random.randrange(12)
    data = cache.get(numbered(number))
    assert data in (None, bytes([number]) * 3000), "torn"
    hits += data is not None
    if data is None:
        cache.put(numbered(number), bytes([number]) * 3000, {"number": str(number)})
assert not notices, notices
print(hits)
"""


def test_processes_share_it(tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    started = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(folder), str(seed)], cwd=ROOT, stdout=subprocess.PIPE)
        for seed in range(3)
    ]
    hits = [int(one.communicate(timeout=60)[0] or -1) for one in started]
    assert [one.returncode for one in started] == [0, 0, 0]
    assert min(hits) > 0
    left = {one.name for one in folder.iterdir()}
    assert all(name == "lock" or (name.endswith(".engine") and not name.startswith(".")) for name in left)
    assert sum(one.stat().st_size for one in folder.iterdir()) <= 20_000
