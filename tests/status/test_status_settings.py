"""Settings that check themselves, and the token: where it comes from, and how slowly it is guessed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from status_parts import TOKEN

from edge_lsla.errors import UsageError
from edge_lsla.status.settings import StatusSettings
from edge_lsla.status.tokens import COOKIE_SECONDS, GUESS_SECONDS, GUESSES, MOST_ADDRESSES, Doorkeeper, read_token


def test_by_default_only_this_machine_can_ask() -> None:
    settings = StatusSettings()
    assert (settings.address, settings.port, settings.loopback, settings.needs_token) == (
        "127.0.0.1",
        8080,
        True,
        False,
    )
    assert StatusSettings(host="localhost").address == "127.0.0.1"
    assert StatusSettings(host="::1").loopback
    assert StatusSettings(host="127.0.0.9").loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "fe80::1", "::ffff:127.0.0.1"])
def test_the_network_is_refused_without_a_token(host: str) -> None:
    with pytest.raises(UsageError, match=r"open to the network at .*: host; set token_file or token_env"):
        StatusSettings(host=host)
    assert not StatusSettings(host=host, token_env="X").loopback


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"host": "trap.local"}, "host"),
        ({"host": ""}, "host"),
        ({"port": -1}, "port"),
        ({"port": 65536}, "port"),
        ({"host_names": ("http://trap.local",)}, "host_names"),
        ({"host_names": ("trap.local:80",)}, "host_names"),
        ({"token_file": Path("x"), "token_env": "X"}, "token_env"),
        ({"max_connections": 1}, "max_connections"),
        ({"request_timeout_seconds": 0}, "request_timeout_seconds"),
        ({"answer_timeout_seconds": float("nan")}, "answer_timeout_seconds"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError, match=f": {field}; "):
        StatusSettings(**changes)


def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(StatusSettings(token_file=file)) == TOKEN
    monkeypatch.setenv("TRAP_TOKEN", TOKEN)
    assert read_token(StatusSettings(token_env="TRAP_TOKEN")) == TOKEN
    assert read_token(StatusSettings()) is None


@pytest.mark.parametrize(
    "content", [b"", b"fifteen-letters", b"x" * 2000, b"with a space in it", b"\xff" * 20, b"a\nb" * 9]
)
def test_a_token_that_is_none_is_refused_and_not_repeated(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"token_file; make one") as error:
        read_token(StatusSettings(token_file=file))
    assert not content.strip() or content.decode("latin-1") not in str(error.value)


def test_a_token_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"token_file; No such file"):
        read_token(StatusSettings(token_file=tmp_path / "none"))
    monkeypatch.delenv("TRAP_TOKEN", raising=False)
    with pytest.raises(UsageError, match=r"no environment variable TRAP_TOKEN: token_env"):
        read_token(StatusSettings(token_env="TRAP_TOKEN"))


def test_a_token_is_not_awaited_from_a_pipe_or_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UsageError, match=f"cannot be read from {file}: token_file; not a regular file"):
            read_token(StatusSettings(token_file=file))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_wrong_tokens_are_slowed_down_by_address() -> None:
    clock = Clock()
    door = Doorkeeper(TOKEN, clock)
    for _ in range(GUESSES):
        assert door.may_guess("10.0.0.1")
        door.guessed("10.0.0.1")
    assert not door.may_guess("10.0.0.1")
    assert not door.may_guess("::ffff:10.0.0.1")
    assert door.may_guess("10.0.0.2")
    clock.now += GUESS_SECONDS + 0.01
    assert door.may_guess("10.0.0.1")
    door.guessed("10.0.0.1")
    assert not door.may_guess("10.0.0.1")
    clock.now += 1e6
    for _ in range(GUESSES):  # waiting long earns no more than at the start
        door.guessed("10.0.0.1")
    assert not door.may_guess("10.0.0.1")


def test_a_whole_ipv6_network_is_one_guesser() -> None:
    door = Doorkeeper(TOKEN, Clock())
    for host in range(GUESSES):
        door.guessed(f"2001:db8::{host:x}")
    assert not door.may_guess("2001:db8::ffff:1")
    assert door.may_guess("2001:db8:0:1::1")


def test_remembered_addresses_do_not_grow() -> None:
    door = Doorkeeper(TOKEN, Clock())
    for number in range(2 * MOST_ADDRESSES):
        door.guessed(f"10.1.{number // 256}.{number % 256}")
    assert len(door._guesses) == MOST_ADDRESSES


def test_a_cookie_proves_the_token_hides_it_and_expires() -> None:
    wall = Clock()
    door = Doorkeeper(TOKEN, wall=wall)
    cookie = door.cookie()
    assert TOKEN not in cookie
    assert door.right_cookie(cookie)
    assert Doorkeeper(TOKEN, wall=wall).right_cookie(cookie)  # the service may be started anew
    assert not Doorkeeper("another-token-of-the-orchard", wall=wall).right_cookie(cookie)
    until, _, signature = cookie.partition(".")
    for wrong in (
        "",
        ".",
        cookie[:-1],
        f"{int(until) + 1}.{signature}",
        f"{until}.",
        f"é.{signature}",
        "\ud800.\ud800",
        TOKEN,
    ):
        assert not door.right_cookie(wrong)
    wall.now += COOKIE_SECONDS
    assert not door.right_cookie(cookie)


def test_only_the_token_is_right() -> None:
    door = Doorkeeper(TOKEN)
    assert door.right(TOKEN)
    for wrong in ("", TOKEN[:-1], TOKEN + " ", TOKEN.upper(), "\ud800", "é" * 26):
        assert not door.right(wrong)
