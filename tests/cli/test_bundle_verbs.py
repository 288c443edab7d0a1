"""Keys, signing and verifying as a user does it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="signing needs cryptography")


def test_sign_and_verify(command, bundle: Path, tmp_path: Path) -> None:
    mine, key, trusted = tmp_path / "mine.lsla", tmp_path / "release.pem", tmp_path / "trusted"
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\nnot this\n")
    shutil.copy(bundle, mine)
    trusted.mkdir(mode=0o700)
    unsigned = command("bundle", "verify", mine, "--trusted", trusted)
    assert (unsigned.code, "is not signed" in unsigned.err) == (4, True)

    made = command("bundle", "keygen", key, "--passphrase-file", secret, "--json")
    assert (made.code, key.stat().st_mode & 0o777) == (0, 0o600)
    locked = command("bundle", "sign", mine, "--key", key)
    assert (locked.code, "encrypted" in locked.err) == (2, True)
    assert command("bundle", "sign", mine, "--key", key, "--passphrase-file", secret).code == 0

    stranger = command("bundle", "verify", mine, "--trusted", trusted)
    assert (stranger.code, "unknown key" in stranger.err) == (4, True)
    shutil.copy(made.json["public_key"], trusted)
    verified = command("bundle", "verify", mine, "--trusted", trusted, "--json")
    assert (verified.code, verified.json["key_id"]) == (0, made.json["key_id"])
    assert command("selftest", mine).code == 0  # signing changed nothing else


def test_a_passphrase_file_that_is_none(command, tmp_path: Path) -> None:
    result = command("bundle", "keygen", tmp_path / "k.pem", "--passphrase-file", tmp_path / "absent")
    assert (result.code, "passphrase cannot be read" in result.err) == (2, True)
    assert not (tmp_path / "k.pem").exists()
