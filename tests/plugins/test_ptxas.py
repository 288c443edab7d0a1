"""Which assembler is taken for which architecture."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_lsla.errors import MissingComponentError, UsageError
from plugins.ptxas import NEEDS, SHIPPED, Ptxas, choose, installed, notices


def have(*versions: str, named: bool = False) -> list[Ptxas]:
    return [Ptxas(Path(f"/opt/{version}/ptxas"), version, named) for version in versions]


@pytest.mark.parametrize(
    ("arch", "versions", "taken"),
    [
        (87, ("12.8.93", "12.6.85", "13.0.88"), "12.6.85"),  # JetPack 6's
        (87, ("12.8.93", "12.4.131", "13.0.88"), "12.4.131"),  # an older one's files any driver takes
        (87, ("12.9.86", "12.8.93"), "12.8.93"),
        (80, ("12.6.85", "12.9.86"), "12.6.85"),
        (110, ("12.9.86", "13.5.37", "13.0.88"), "13.0.88"),
        (110, ("13.5.37", "13.2.51"), "13.2.51"),
        (120, ("12.6.85", "12.8.93", "12.9.86", "13.0.88"), "12.9.86"),
        (120, ("12.6.85", "13.0.88"), "13.0.88"),
    ],
)
def test_the_nearest_release_that_suits_is_taken(arch: int, versions: tuple[str, ...], taken: str) -> None:
    assert choose(arch, have(*versions)).version == taken


@pytest.mark.parametrize(
    ("arch", "versions", "remedy"),
    [
        (87, ("13.0.88", "11.8.89"), "nvidia-cuda-nvcc-cu12==12.6"),
        (110, ("12.9.86",), r"nvidia-cuda-nvcc==13.0"),
        (120, ("12.6.85",), "nvidia-cuda-nvcc-cu12==12.9"),
        (90, (), "found: none"),
    ],
)
def test_none_that_suits_is_a_missing_component(arch: int, versions: tuple[str, ...], remedy: str) -> None:
    with pytest.raises(MissingComponentError, match=rf"sm_{arch}") as caught:
        choose(arch, have(*versions))
    assert remedy in str(caught.value)


def test_an_unknown_architecture_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"sm_61.*86, 87"):
        choose(61, have("12.6.85"))
    assert set(SHIPPED) <= set(NEEDS)


def test_what_the_user_named_goes_first_where_it_suits() -> None:
    found = [*have("12.6.85", "13.0.88"), *have("12.8.93", named=True)]
    assert choose(87, found).version == "12.8.93"
    assert choose(110, found).version == "13.0.88"


def test_a_second_choice_is_said_with_its_risk() -> None:
    lines = notices({87: have("12.8.93")[0], 90: have("12.6.85")[0], 89: have("12.4.1")[0], 120: have("13.0.88")[0]})
    assert [line.split(":")[0] for line in lines] == ["sm_87", "sm_89", "sm_120"]
    assert "older than CUDA 12.8" in lines[0]
    assert "may refuse" not in lines[1]
    assert "older than CUDA 13 " in lines[2]


def script(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "ptxas"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_programs_are_asked_for_their_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = script(tmp_path / "a", "echo 'Cuda compilation tools, release 12.3, V12.3.107'")
    second = script(tmp_path / "b", "echo 'Cuda compilation tools, release 12.5, V12.5.40'")
    broken = script(tmp_path / "c", "exit 1")
    monkeypatch.setenv("EDGE_LSLA_PTXAS", str(first))
    monkeypatch.setenv("PATH", f"{second.parent}:/usr/bin:/bin")
    found = {one.path: one for one in installed()}
    assert (found[first].version, found[first].release, found[first].named) == ("12.3.107", (12, 3), True)
    assert (found[second].version, found[second].named) == ("12.5.40", False)
    monkeypatch.setenv("PATH", f"{broken.parent}:/usr/bin:/bin")
    assert broken not in {one.path for one in installed()}


@pytest.mark.parametrize("text", ["exit 1", "echo no version", "kill -SEGV $$"])
def test_a_named_program_that_is_no_ptxas_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = script(tmp_path, text)
    monkeypatch.setenv("EDGE_LSLA_PTXAS", str(path))
    with pytest.raises(UsageError, match="EDGE_LSLA_PTXAS"):
        installed()
    path.unlink()
    with pytest.raises(UsageError, match=str(path)):
        installed()
