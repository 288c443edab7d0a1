"""Trusted keys, bundles built here, and folders that somebody else could have written to, with real permissions."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import bundle_parts as parts
import pytest

from edge_lsla.bundle import (
    GoldenSet,
    NewArtifact,
    allows_native_code,
    generate_key,
    open_bundle,
    read_private_key,
    remember_built_here,
    sign_bundle,
    trusted_keys,
    was_built_here,
    write_bundle,
)
from edge_lsla.bundle.trust import (
    MOST_REMEMBERED,
    check_folder,
    make_private_folder,
    trusted_keys_folder,
    try_to_remember,
)
from edge_lsla.errors import BundleError, EdgeLslaError, InputError, TrustError, UsageError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
FOREIGN = 54321
DIGEST = "ab" * 32


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home folder without anything in it."""
    for name in ("EDGE_LSLA_TRUSTED_KEYS", "EDGE_LSLA_BUILT_HERE", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def store(home: Path) -> Path:
    """The folder of trusted keys, with one key; its private half lies in the home folder."""
    folder = home / ".config" / "edge-lsla" / "trusted-keys"
    folder.mkdir(parents=True)
    for one in (folder, *folder.parents[:2]):
        one.chmod(0o755)
    public = generate_key(home / "release.pem")
    public.path.rename(folder / "release.pub")
    return folder


def test_the_store_lies_where_the_environment_says(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trusted_keys_folder() == home / ".config/edge-lsla/trusted-keys"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative/is/ignored")
    assert trusted_keys_folder() == home / ".config/edge-lsla/trusted-keys"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "conf"))
    assert trusted_keys_folder() == home / "conf/edge-lsla/trusted-keys"
    monkeypatch.setenv("EDGE_LSLA_TRUSTED_KEYS", str(home / "keys"))
    assert trusted_keys_folder() == home / "keys"
    assert trusted_keys() == {}
    assert not list(home.iterdir())


def test_only_pub_files_of_the_store_are_keys(store: Path) -> None:
    (store / "README").write_text("not a key")
    second = generate_key(store.parents[2] / "second.pem")
    second.path.rename(store / "second.pub")
    keys = trusted_keys()
    assert len(keys) == 2
    assert keys[second.key_id].raw == second.raw
    assert {one.path.name for one in keys.values()} == {"release.pub", "second.pub"}


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "group writes the folder": (lambda s: s.chmod(0o775), r"open to other users \(mode 0775\): .*; run: chmod go-w"),
    "all write the folder": (lambda s: s.chmod(0o757), r"open to other users \(mode 0757\)"),
    "sticky is no excuse for the store": (lambda s: s.chmod(0o1777), r"open to other users \(mode 1777\)"),
    "group writes a key": (lambda s: (s / "release.pub").chmod(0o664), r"trusted key is open to .* 0664.*release\.pub"),
    "all write a key": (lambda s: (s / "release.pub").chmod(0o646), "trusted key is open to other users"),
    "all write the folder above": (lambda s: s.parent.chmod(0o777), "folder above the folder of trusted keys is open"),
    "the folder is a link": (lambda s: s.rename(f"{s}2") and s.symlink_to(f"{s}2"), "is a symbolic link"),
    "the folder is a file": (lambda s: s.rename(f"{s}2") and s.write_text(""), "is not a folder"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_store_that_others_can_change_proves_nothing(store: Path, name: str) -> None:
    change, match = CHANGES[name]
    assert len(trusted_keys()) == 1
    change(store)
    with pytest.raises(TrustError, match=match) as caught:
        trusted_keys()
    assert caught.value.exit_code == 4


@needs_root
def test_a_store_or_key_of_another_user_proves_nothing(store: Path) -> None:
    for path in (store, store / "release.pub", store.parent):
        os.chown(path, FOREIGN, -1)
        with pytest.raises(TrustError, match=f"belongs to another user, {FOREIGN}: {path}; have it owned by user"):
            trusted_keys()
        os.chown(path, os.geteuid(), -1)
    assert len(trusted_keys()) == 1


@needs_root
def test_another_users_sticky_folder_above_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    (tmp_path / "mine").mkdir(mode=0o700)
    check_folder(tmp_path / "mine", "folder", "MINE", private=True)
    os.chown(tmp_path, FOREIGN, -1)
    with pytest.raises(TrustError, match=r"folder above the folder belongs to another user.*, or set MINE to another"):
        check_folder(tmp_path / "mine", "folder", "MINE", private=True)


@pytest.mark.parametrize("kind", ["garbled", "huge", "link", "pipe", "folder", "private"])
def test_a_pub_file_that_is_no_key_is_named(store: Path, kind: str) -> None:
    bad = store / "bad.pub"
    if kind == "link":
        bad.symlink_to(store / "release.pub")
    elif kind == "pipe":
        os.mkfifo(bad, 0o600)
    elif kind == "folder":
        bad.mkdir()
    else:
        private = (store.parents[2] / "release.pem").read_bytes()
        bad.write_bytes({"garbled": os.urandom(99), "huge": bytes(10**6), "private": private}[kind])
    with pytest.raises(InputError, match=r"bad\.pub") as caught:
        trusted_keys()
    assert caught.value.exit_code == 2


def test_too_many_keys_are_refused(store: Path) -> None:
    for number in range(1000):
        (store / f"{number}.pub").touch()
    with pytest.raises(InputError, match="more than 1000 trusted keys"):
        trusted_keys()


def test_native_code_comes_from_here_or_from_a_trusted_key(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.lsla"
    parts.write(path)
    with open_bundle(path) as bundle:
        digest = bundle.manifest.sha256()
        allows_native_code(bundle, built_here=True)
        with pytest.raises(TrustError, match=r"not signed: .*a\.lsla") as caught:
            allows_native_code(bundle, was_built_here(digest))
        assert caught.value.exit_code == 4
        remember_built_here(digest)
        allows_native_code(bundle, was_built_here(digest))
    with pytest.raises(TrustError, match="is not signed"):
        open_bundle(path, require_signature=True)  # built here is not signed
    sign_bundle(path, read_private_key(tmp_path / "release.pem"))
    with open_bundle(path, require_signature=True) as bundle:
        assert was_built_here(bundle.manifest.sha256())  # signing changes nothing of what was built
        allows_native_code(bundle, built_here=False)
        with pytest.raises(TrustError, match="unknown key"):
            allows_native_code(bundle, built_here=False, trusted={})
        (store / "release.pub").unlink()
        with pytest.raises(TrustError, match="unknown key"):
            allows_native_code(bundle, built_here=False)
        store.chmod(0o777)
        with pytest.raises(TrustError, match="folder of trusted keys is open to other users"):
            allows_native_code(bundle, built_here=False)
    with pytest.raises(TrustError, match="folder of trusted keys is open"):
        open_bundle(path, require_signature=True)


def test_a_loose_record_leaves_the_decision_to_the_signature(store: Path, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.lsla"
    parts.write(path)
    with open_bundle(path) as bundle:
        digest = bundle.manifest.sha256()
        remember_built_here(digest)
        record = home / ".local/state/edge-lsla/built-here"
        record.chmod(0o755)
        with pytest.raises(TrustError) as caught:
            allows_native_code(bundle, was_built_here(digest))
        said = str(caught.value)
        assert (
            "bundle is not signed, and whether it was built here cannot be known (record of bundles built here" in said
        )
        assert f"(mode 0755): {record})" in said
        assert f"; or run: chmod go-rwx {record}, or set EDGE_LSLA_BUILT_HERE to another folder" in said
    sign_bundle(path, read_private_key(tmp_path / "release.pem"))
    with open_bundle(path) as bundle:
        allows_native_code(bundle, was_built_here(digest))
        (store / "release.pub").write_text("no key any more")
        with pytest.raises(InputError, match=r"release\.pub.*chmod go-rwx"):
            allows_native_code(bundle, was_built_here(digest))


def test_the_remedy_can_be_typed(home: Path, tmp_path: Path) -> None:
    golden = parts.golden()
    logits = {**golden.logits, ("tensorrt-rtx", "fp32"): golden.logits["onnxruntime", "fp32"]}
    graph = NewArtifact(b"graph", "tensorrt-rtx", "fp32")
    path = tmp_path / "a b.lsla"
    write_bundle(
        path, parts.passport(), [*parts.artifacts(), graph], GoldenSet(golden.pixels, logits, golden.tolerance)
    )
    with open_bundle(path) as bundle, pytest.raises(TrustError) as caught:
        allows_native_code(bundle, built_here=False)
    assert caught.value.remedy is not None
    command = shlex.split(caught.value.remedy.rpartition("here from its ONNX: `")[2].rstrip("`"))
    assert command == ["build-engine", str(path), "--backend", "tensorrt-rtx", "-o", "NEW.lsla"]
    parts.write(path)  # without a graph for a GPU
    with open_bundle(path) as bundle, pytest.raises(TrustError) as caught:
        allows_native_code(bundle, built_here=False)
    assert "build-engine" not in str(caught.value)


@pytest.mark.parametrize("fault", ["open to others", "a file in its place", "no home"])
def test_a_record_that_cannot_be_written_is_a_sentence(home: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert try_to_remember(DIGEST, "a.lsla") is None
    assert was_built_here(DIGEST)
    state = home / ".local/state/edge-lsla"
    if fault == "open to others":
        (state / "built-here").chmod(0o755)
    elif fault == "a file in its place":
        state.rename(home / "moved")
        state.write_text("")
    else:
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    said = try_to_remember(DIGEST, "a.lsla")
    assert said is not None
    assert "engines in it will be run here only once it is signed: `bundle sign a.lsla --key KEY.pem` (" in said
    assert "set EDGE_LSLA_BUILT_HERE to " in said
    assert not was_built_here(DIGEST)


def test_a_garbled_signature_allows_nothing(tmp_path: Path, store: Path) -> None:
    entries = parts.contents(parts.write(tmp_path / "a.lsla"))
    order = [*list(entries)[:-1], "signature.json", list(entries)[-1]]
    entries["signature.json"] = b"garbled"
    assert order[1:] == sorted(order[1:])
    (tmp_path / "a.lsla").write_bytes(parts.from_entries({name: entries[name] for name in order}))
    with open_bundle(tmp_path / "a.lsla") as bundle, pytest.raises(BundleError, match="malformed"):
        allows_native_code(bundle, built_here=False)


def test_the_record_is_for_its_owner_only_and_survives_what_lies_in_it(home: Path) -> None:
    folder = home / ".local/state/edge-lsla/built-here"
    assert not was_built_here(DIGEST)
    assert not folder.exists()
    os.umask(umask := os.umask(0))
    os.umask(0)
    try:
        remember_built_here(DIGEST)
    finally:
        os.umask(umask)
    for one in (folder, *folder.parents[:3]):
        assert one.stat().st_mode & 0o777 == 0o700
    assert (folder / DIGEST).stat().st_mode & 0o777 == 0o600
    (folder / ("cd" * 32)).mkdir()
    (folder / ("ef" * 32)).symlink_to(folder / DIGEST)
    (folder / "garbage").write_bytes(os.urandom(5000))
    (folder / DIGEST).write_bytes(os.urandom(5000))
    assert was_built_here(DIGEST)
    for no in ("cd" * 32, "ef" * 32, "12" * 32, "garbage", "", "../../x", DIGEST.upper()):
        assert not was_built_here(no)
    remember_built_here("12" * 32)
    remember_built_here("12" * 32)
    assert was_built_here("12" * 32)
    for no in ("../x", "", "x" * 10**6):
        with pytest.raises(UsageError, match="not the SHA-256"):
            remember_built_here(no)


def test_the_record_is_bounded_and_forgets_the_oldest(tmp_path: Path) -> None:
    folder = make_private_folder(tmp_path / "record", "record", "RECORD")
    for number in range(MOST_REMEMBERED):
        (folder / f"{number:064x}").touch()
        os.utime(folder / f"{number:064x}", (1000 + number, 1000 + number))
    remember_built_here(f"{0:064x}", folder)  # built again: now the newest
    remember_built_here(DIGEST, folder)
    assert len(list(folder.iterdir())) == MOST_REMEMBERED
    assert was_built_here(f"{0:064x}", folder)
    assert was_built_here(DIGEST, folder)
    assert not was_built_here(f"{1:064x}", folder)


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o770, 0o777, 0o1777])
def test_a_record_that_others_can_reach_proves_nothing(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "record"
    remember_built_here(DIGEST, folder)
    folder.chmod(mode)
    assert not was_built_here(DIGEST, folder)
    with pytest.raises(
        TrustError, match=r"open to other users .*chmod go-rwx .*, or set EDGE_LSLA_BUILT_HERE to another"
    ):
        remember_built_here(DIGEST, folder)
    folder.chmod(0o700)
    assert was_built_here(DIGEST, folder)


@needs_root
def test_a_record_of_another_user_proves_nothing(tmp_path: Path) -> None:
    remember_built_here(DIGEST, tmp_path / "record")
    os.chown(tmp_path / "record", FOREIGN, -1)
    assert not was_built_here(DIGEST, tmp_path / "record")
    with pytest.raises(TrustError, match="belongs to another user"):
        remember_built_here(DIGEST, tmp_path / "record")


def test_a_linked_record_and_one_that_cannot_be_made(tmp_path: Path) -> None:
    remember_built_here(DIGEST, tmp_path / "record")
    (tmp_path / "link").symlink_to(tmp_path / "record")
    assert not was_built_here(DIGEST, tmp_path / "link")
    with pytest.raises(TrustError, match="symbolic link"):
        remember_built_here(DIGEST, tmp_path / "link")
    (tmp_path / "file").write_text("")
    with pytest.raises((EdgeLslaError, TrustError), match="record of bundles built here"):
        remember_built_here(DIGEST, tmp_path / "file" / "record")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(TrustError, match="symbolic link"):
        remember_built_here(DIGEST, tmp_path / "dangling")


def test_processes_record_at_the_same_time(tmp_path: Path) -> None:
    folder = tmp_path / "record"
    code = (
        "import sys; from pathlib import Path; from edge_lsla.bundle import remember_built_here as r\n"
        "for n in range(100): r(f'{int(sys.argv[2]) * 100 + n:064x}', Path(sys.argv[1]))"
    )
    root = str(Path(__file__).parents[2])
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(folder), str(one)], env={"PYTHONPATH": root})
        for one in range(3)
    ]
    assert [one.wait(60) for one in started] == [0, 0, 0]
    assert all(was_built_here(f"{number:064x}", folder) for number in range(300))


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.delenv("HOME")
    code = (
        "import os, sys\nfrom edge_lsla.bundle import trusted_keys\nfrom edge_lsla.errors import UsageError\n"
        "if os.geteuid() == 0: os.setuid(54321)\n"
        "try: trusted_keys()\nexcept UsageError as error: sys.exit(str(error))"
    )
    if os.geteuid() != 0:
        pytest.skip("only root can become a user without an entry in the list of users")
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "this user has no home folder" in done.stderr
    assert "set EDGE_LSLA_TRUSTED_KEYS to a folder" in done.stderr
