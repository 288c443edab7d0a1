"""The shipped demo, and the README's commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_demo_keeps_its_promises(command, tmp_path: Path) -> None:
    result = command("demo", "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    fp32, int8 = result.json["results"]
    assert (fp32["precision"], int8["precision"]) == ("fp32", "int8")
    assert fp32["images"] == 420
    assert fp32["top1"] >= 70.0  # on an artist it never saw
    assert int8["top1"] >= fp32["top1"] - 1.0
    assert int8["agreement"] >= 97.0
    assert int8["bytes"] < fp32["bytes"] / 3
    for name in ("bundle", "picture", "video"):
        assert Path(result.json[name]).stat().st_size > 10_000


def test_what_ships_is_small() -> None:
    demo = ROOT / "demo"
    assert (demo / "vit_lsla_demo.safetensors").stat().st_size <= 5_000_000
    shown = [*(demo / "samples").iterdir(), demo / "pests.mp4"]
    assert len(shown) == 25
    assert sum(path.stat().st_size for path in shown) <= 3_000_000


def test_no_held_out_artwork_is_calibrated_on() -> None:
    names = {path.name.split("_")[0] for path in (ROOT / "demo" / "calibration").rglob("*.jpg")}
    held_out = {path.name.split("_")[0] for path in (ROOT / "demo" / "heldout").rglob("*.jpg")}
    assert held_out == {"fluent-emoji", "fluent-emoji-flat"}
    assert names
    assert not any(name.startswith("fluent") for name in names)


def readme_commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    # Training runs for hours, the plugin is built into the checkout, and engines need another package: test_chain.py,
    # test_plugin_verbs.py and test_engine_verbs.py run these verbs on something small.
    elsewhere = (" train ", " plugin ", " --target ")
    return [line for line in lines if line.startswith("python cli.py") and not any(w in line for w in elsewhere)]


@pytest.mark.slow
def test_the_readmes_commands_work(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = readme_commands()
    assert len(lines) >= 9
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    (tmp_path / "best.safetensors").symlink_to(ROOT / "demo" / "vit_lsla_demo.safetensors")
    (tmp_path / "DATA").mkdir()
    (tmp_path / "DATA" / "classes.txt").symlink_to(ROOT / "demo" / "classes.txt")
    (tmp_path / "DATA" / "train").symlink_to(ROOT / "demo" / "calibration")
    (tmp_path / "DATA" / "test").symlink_to(ROOT / "demo" / "heldout")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    for line in lines:
        result = command(*shlex.split(line)[2:])
        assert result.code == 0, f"{line}: {result.err}"
