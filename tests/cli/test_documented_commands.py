"""Every command in the documentation names verbs and options that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

import cli

ROOT = Path(__file__).parents[2]


def commands() -> list[tuple[str, str]]:
    found = []
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text(encoding="utf-8")
        blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
        lines = re.findall(r"(?m)^(?:python cli\.py|edge-lsla) (.*)", blocks) + re.findall(
            r"`python cli\.py (.*?)`", text
        )
        found += [(page.name, line.split(" #")[0]) for line in lines]
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_documented_command_exists(page: str, line: str) -> None:
    command = typer.main.get_command(cli.app)
    words = shlex.split(line)
    while hasattr(command, "commands") and words:
        verb = words.pop(0)
        assert verb in command.commands or verb in ("VERB", "…"), line
        if verb not in command.commands:
            return
        command = command.commands[verb]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if re.match("--?[a-z]", word):
            assert word.partition("=")[0] in known, f"{line}: {word}"


def test_there_are_such_commands() -> None:
    assert len(commands()) > 40
