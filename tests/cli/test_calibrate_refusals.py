"""What `calibrate`, `compare` and the gate refuse before any work, and that nothing is lost or left over."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def fused(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from typer.testing import CliRunner

    import cli

    folder = tmp_path_factory.mktemp("fused")
    for arguments in (
        ("export", checkpoint, "-o", folder / "m.onnx"),
        ("fuse", folder / "m.onnx", "-o", folder / "f.onnx"),
    ):
        assert CliRunner().invoke(cli.app, [str(a) for a in arguments]).exit_code == 0
    return folder / "f.onnx"


def test_calibrate_does_not_overwrite_what_it_reads_or_what_is_no_ranges_file(
    command, fused: Path, pictures: Path, tmp_path: Path
) -> None:
    graph = tmp_path / "g.onnx"
    shutil.copy(fused, graph)
    ranges = tmp_path / "r.onnx"
    ranges.write_text("{}")
    for output, options in ((graph, ()), (ranges, ("--ranges", ranges))):
        result = command("calibrate", graph, "--data", pictures, "-o", output, *options)
        assert (result.code, "would overwrite what is read" in result.err) == (2, True), result.err
    mine = tmp_path / "y.ranges.json"
    mine.write_text('{"mine": 1}')
    result = command("calibrate", graph, "--data", pictures, "-o", tmp_path / "y.onnx")
    assert (result.code, "the ranges would overwrite another file" in result.err) == (2, True), result.err
    (tmp_path / "z.ranges.json").mkdir()
    result = command("calibrate", graph, "--data", pictures, "-o", tmp_path / "z.onnx")
    assert (result.code, "the output is a folder" in result.err) == (2, True), result.err
    assert graph.read_bytes() == fused.read_bytes()
    assert mine.read_text() == '{"mine": 1}'
    assert not [path for path in tmp_path.iterdir() if path.name in ("y.onnx", "z.onnx")]


def test_calibrate_says_what_to_give_instead_of_a_checkpoint_or_a_bundle(
    command, checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    output = tmp_path / "q.onnx"
    for given, words in ((checkpoint, "export and fuse it first"), (tmp_path / "a.lsla", "add --update")):
        result = command("calibrate", given, "--data", pictures, "-o", output)
        assert (result.code, words in result.err) == (2, True), result.err


def test_a_gate_is_refused_before_the_export(command, checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("ant\nb\x1bee\nlady beetle\n")
    (tmp_path / "x.report.json").write_text("{}")
    one, wrong = tmp_path / "one", tmp_path / "wrong"
    one.mkdir()
    shutil.copy(pictures / "test" / "ant" / "0.jpg", one)
    shutil.copytree(pictures, wrong)
    (wrong / "val" / "ant").rename(wrong / "val" / "zebra")
    video = tmp_path / "v.mp4"
    video.touch()
    for options, words in (
        (("--data", pictures, "--labels", tmp_path / "labels"), "has a control character"),
        (("--data", pictures, "--sources", "("), "not a regular expression"),
        (("--data", pictures, "--report", tmp_path / "x.report.html"), "would overwrite another file"),
        (("--data", one), "all 1 pictures are of one source"),
        (("--data", video), "must lie in a folder"),
        (("--data", wrong), "folder 'zebra' is not in classes.txt"),
    ):
        result = command("build-engine", checkpoint, "--precision", "auto", *options, "-o", tmp_path / "b.lsla")
        assert (result.code, words in result.err) == (2, True), result.err
        assert "exported" not in result.out + result.err
    assert not list(tmp_path.glob("b.*"))


def test_compare_refuses_an_unknown_split_and_no_threads(command, fused: Path, pictures: Path) -> None:
    result = command("compare", fused, fused, "--data", pictures, "--split", "nope")
    assert (result.code, "no such split 'nope'" in result.err) == (2, True), result.err
    for threads in (0, -4):
        result = command("compare", fused, fused, "--data", pictures, "--threads", threads)
        assert (result.code, "--threads" in result.err) == (2, True), result.err


def test_copied_pictures_of_the_judging_folder_are_not_calibrated_on(
    command, bundle: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same folder under another name: all that judge are left out, and none are left to calibrate on."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pictures / "test", tmp_path / "copies")
    options = ("--update", "--data", "copies", "--evaluate", pictures, "--max-drop", 100, "-o", tmp_path / "new.lsla")
    result = command("calibrate", bundle, *options)
    assert (result.code, "no picture is left to calibrate on" in result.err) == (2, True), result.err


def test_a_report_that_cannot_be_written_leaves_no_bundle(
    command, bundle: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib.figure

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", fail)
    options = ("--update", "--data", pictures, "--evaluate", pictures, "--max-drop", 100)
    result = command("calibrate", bundle, *options, "-o", tmp_path / "new.lsla")
    assert result.code != 0
    assert not list(tmp_path.glob("*new*"))
